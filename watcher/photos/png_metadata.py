"""The chunks of a PNG beside its picture: what of them is published, what keeps Pillow from opening it, what it tells."""

import zlib
from typing import Final

from watcher.photos import exif
from watcher.photos.refusals import damaged
from watcher.photos.stream import Parser, run

_MAX_TEXT: Final = 2**20
"""Pillow refuses texts and profiles that inflate to more."""
_MAX_INFLATED: Final = 64 * 2**20
"""Of all texts together, again Pillow's limit."""
_MAX_RATIO: Final = 1032  # of deflate: a match of 258 bytes takes two bits
_MAX_TOLD: Final = 2**18
"""Bytes of a text or of EXIF in which the orientation is looked for."""
MAX_HELD: Final = _MAX_TEXT + 2**16
"""Bytes of a chunk that are looked at. A compressed text that is longer inflates to more than Pillow takes."""

# Length of what decides how colours look; what is longer holds something else behind it.
_LENGTHS: Final = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
_PHYS_SIZE: Final = 9
_TRANSPARENT: Final = {0: 2, 2: 6}
"""Length of tRNS by colour type."""
_PALETTED: Final = 3
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
READ: Final = frozenset({b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs", *_LENGTHS, *_TEXTS, *_ANIMATION})
"""The chunks whose content is looked at."""

_XMP, _RAW_PROFILE, _EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif"
# Pillow keeps texts beside what it knows of the picture, and mistakes these for it.
_MISTAKEN: Final = frozenset({b"bbox", b"interlace", b"transparency"})


class Metadata:
    """What the chunks of one PNG say."""

    def __init__(self, colour: int, *, clean: bool) -> None:
        """`clean`: what is not published need not be checked."""
        self._colour = colour
        self._clean = clean
        self._inflated = 0
        self._once: set[bytes] = set()
        self._exif: bytes | None = None
        self._texts: dict[bytes, bytes] = {}
        self._xmp: bytes | None = None

    @property
    def has_palette(self) -> bool:
        """Whether a palette has come."""
        return b"PLTE" in self._once

    @property
    def orientation(self) -> int | None:
        """The orientation, 1 to 8, as far as it is told by now."""
        found = self._exif
        if found is None and _RAW_PROFILE in self._texts:
            found = exif.of_raw_profile(self._texts[_RAW_PROFILE])
        return exif.orientation(found, self._texts.get(_XMP) or self._xmp)

    def read(self, name: bytes, body: bytes, size: int) -> Parser[bytes | None]:
        """Read a chunk of which `body` has the first `MAX_HELD` of `size` bytes; raises InvalidImage.

        Returns its content as it is to be published, None if it is left out.
        """
        if name in {b"PLTE", b"iCCP"}:
            if name in self._once:
                raise damaged("it has two palettes" if name == b"PLTE" else "it has two colour profiles")
            self._once.add(name)
        if name == b"PLTE":
            return self._palette(body)
        if name == b"iCCP":
            return (yield from self._profile(body, size))
        if name == b"eXIf":
            self._exif = body[:_MAX_TOLD]
        elif name in _TEXTS:
            yield from self._text(name, body, size)
        elif name in _LENGTHS or name == b"tRNS":
            return self._short(name, body)
        elif name in _ANIMATION:
            self._left_out("it has parts of an animation")
        elif len(body) < _PHYS_SIZE:
            self._left_out("its resolution is cut off")
        return None

    def _palette(self, body: bytes) -> bytes | None:
        if self._colour != _PALETTED:
            return None  # a suggestion
        if len(body) > 3 * 256 or len(body) % 3 or not body:
            raise damaged("its palette is missing")
        return body

    def _short(self, name: bytes, body: bytes) -> bytes | None:
        """Read a chunk of a known length: what is behind it goes, and what is too short is left out."""
        length = _LENGTHS.get(name) or _TRANSPARENT.get(self._colour)
        if length is None:
            if self._colour != _PALETTED:
                return None
            length = len(body) if len(body) <= 256 else 2**31
        if name == b"cHRM" and len(body) % 4:
            self._left_out("its cHRM has a wrong length")  # Pillow 10 fails on it
        if len(body) < length:
            if name != b"cICP":
                self._left_out(f"its {name.decode()} is cut off")
            return None
        return body[:length]

    def _profile(self, body: bytes, size: int) -> Parser[bytes | None]:
        """Read a colour profile: its name goes."""
        _, separator, rest = body.partition(b"\0")
        if not separator or rest[:1] != b"\0":
            self._left_out("its colour profile is cut off")
            return None
        try:
            _, behind = yield from self._inflate(rest[1:], size)
        except zlib.error:
            return None
        except ValueError:
            self._left_out("its colour profile is larger than 1 MiB")
            return None
        return b"icc\0\0" + rest[1 : len(rest) - behind]

    def _left_out(self, problem: str) -> None:
        """Raise InvalidImage for a problem that Pillow has with a chunk, unless the chunk is left out."""
        if not self._clean:
            raise damaged(problem)

    def _text(self, name: bytes, body: bytes, size: int) -> Parser[None]:
        """Read a text: of interest where it tells the orientation, and where Pillow fails on it."""
        key, _, rest = body.partition(b"\0")
        if key in _MISTAKEN:
            self._left_out("it has a text that programs take for something else")
        told = key in {_XMP, _RAW_PROFILE, _EXIF}
        if self._clean and not told:
            return
        try:
            text = yield from self._content(name, rest, size)
        except zlib.error:
            text = b"" if name == b"zTXt" else None
        except ValueError:
            self._left_out("a text in it cannot be unpacked")
            return
        if text is None:
            return
        self._inflated += len(text)
        if not self._clean and self._inflated > _MAX_INFLATED:
            raise damaged("the texts in it have more than 64 MiB")
        if told:
            self._tell(name, key, text)

    def _tell(self, name: bytes, key: bytes, text: bytes) -> None:
        if key == _EXIF:
            self._exif = text[:_MAX_TOLD] if name == b"tEXt" else self._exif
            return
        told = text if key == _RAW_PROFILE else text[:_MAX_TOLD]
        if key == _XMP and name == b"iTXt":
            self._xmp = told
        if name != b"iTXt" or _is_utf8(text):
            self._texts[key] = told

    def _content(self, name: bytes, rest: bytes, size: int) -> Parser[bytes | None]:
        """Return the text behind the keyword; raises ValueError or zlib.error where it cannot be unpacked."""
        if name == b"tEXt":
            return rest
        if name == b"zTXt":
            if rest[:1] not in {b"\0", b""}:
                raise ValueError(rest)
            return (yield from self._inflate(rest[1:], size))[0]
        parts = rest[2:].split(b"\0", 2)
        if len(rest) < 2 or len(parts) < 3:
            return None
        if not rest[0]:
            return parts[2]
        return (yield from self._inflate(parts[2], size))[0] if rest[1] == 0 else None

    def _inflate(self, data: bytes, size: int) -> Parser[tuple[bytes, int]]:
        """Inflate as Pillow does; returns the text, and how many bytes are behind it. Raises ValueError, zlib.error."""
        if size > MAX_HELD or self._inflated > _MAX_INFLATED:
            raise ValueError(size)
        found: tuple[bytes, int] | Exception = yield from run(lambda: _inflated(data))
        if isinstance(found, Exception):
            self._inflated += min(_MAX_TEXT, _MAX_RATIO * len(data))
            raise found
        return found


def _inflated(data: bytes) -> tuple[bytes, int] | Exception:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, _MAX_TEXT)
    except zlib.error as error:
        return error
    return ValueError(len(text)) if inflater.unconsumed_tail else (text, len(inflater.unused_data))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
