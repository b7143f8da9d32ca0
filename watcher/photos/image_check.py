"""Checks the structure of a JPEG or PNG while its bytes are streamed. Opens no file.

One pass: no pixel is decoded, nothing is decompressed, and only the current chunk is held in memory. The time is
linear in the image's length, whatever it contains.
"""

import re
import zlib
from collections.abc import Generator
from contextlib import suppress
from typing import Final, Literal, TypeVar

from watcher.photos.file_types import SIGNATURE_BYTES, describe

Format = Literal["jpg", "png"]
Code = Literal["image_not_jpeg_or_png", "image_unreadable", "image_animated", "image_too_many_pixels"]

_T = TypeVar("_T")
_Parser = Generator[None, None, _T]  # yields when it needs the next chunk

MAX_PIXELS: Final = 250_000_000
MAX_PARTS: Final = 100_000
"""Segments (JPEG) or chunks (PNG) of one image: cameras write dozens, and 20 MiB of empty ones would take seconds."""


class InvalidImage(Exception):
    """The image cannot be published.

    `code` is one of `errors.CODES`; `reason` is the rest of a sentence after "Image 3 (beach.jpg) ".
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ImageCheck:
    """Checks one image, chunk by chunk. Not to be used further once a method has raised."""

    def __init__(self) -> None:
        self._stream = _Stream()
        self._parser = _image(self._stream)
        self._format: Format | None = None
        next(self._parser)

    def feed(self, chunk: bytes) -> None:
        """Check the next bytes, of any number; raises InvalidImage as soon as the image is known to be invalid."""
        if self._format:
            return  # bytes after the end are accepted: phones append a video
        self._stream.chunk = chunk
        self._stream.at = 0
        try:
            next(self._parser)
        except StopIteration as end:
            self._format = end.value

    def finish(self) -> Format:
        """Return the format once all bytes are fed; raises InvalidImage if the image is incomplete."""
        if self._format is None:
            self._parser.throw(_unreadable("is cut off: its end is missing; upload it again"))
        assert self._format
        return self._format


class _Stream:
    """The current chunk, and the position up to which it is read."""

    def __init__(self) -> None:
        self.chunk = b""
        self.at = 0

    def take(self, size: int) -> _Parser[bytes]:
        """Read `size` bytes; for small sizes."""
        taken = self.chunk[self.at : self.at + size]
        self.at += len(taken)
        while len(taken) < size:
            yield
            part = self.chunk[: size - len(taken)]
            self.at = len(part)
            taken += part
        return taken

    def skip(self, size: int, crc: int = 0) -> _Parser[int]:
        """Skip `size` bytes; returns `crc` updated with them."""
        while size > (here := len(self.chunk) - self.at):
            crc = zlib.crc32(memoryview(self.chunk)[self.at :], crc)
            size -= here
            yield
        crc = zlib.crc32(memoryview(self.chunk)[self.at : self.at + size], crc)
        self.at += size
        return crc

    def marker(self) -> _Parser[tuple[int, int]]:
        """Skip to the next JPEG marker; returns how many bytes were skipped, and the marker's code."""
        skipped = 0
        while not (found := _MARKER.search(self.chunk, self.at)):
            rest = len(self.chunk) - self.at
            half = b"\xff" if rest and self.chunk.endswith(b"\xff") else b""
            skipped += rest - len(half)
            yield
            self.chunk = half + self.chunk
        skipped += found.start() - self.at
        self.at = found.end()
        return skipped, found[0][1]


def _image(stream: _Stream) -> _Parser[Format]:
    """Detect the format from the first bytes, and check the rest accordingly."""
    start = b""
    try:
        while len(start) < len(_PNG):
            yield
            start += stream.chunk
    except InvalidImage:  # from `finish`: there are no more bytes
        if not start:
            raise _unreadable("is empty; upload it again") from None
        if start in {_JPEG[: len(start)], _PNG[: len(start)]} or start.startswith(_JPEG):
            raise
        raise _other_format(start) from None
    stream.chunk, stream.at = start, 0
    if start.startswith(_JPEG):
        stream.at = 2
        return (yield from _jpeg(stream))
    if start.startswith(_PNG):
        stream.at = len(_PNG)
        return (yield from _png(stream))
    with suppress(InvalidImage):
        while len(start) < SIGNATURE_BYTES:
            yield
            start += stream.chunk
    raise _other_format(start)


_JPEG: Final = b"\xff\xd8\xff"
# FF00 is a data byte, FFD0 to FFD7 are restarts inside the data, and FF before a marker is padding.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_TEM, _EOI, _SOS = 0x01, 0xD9, 0xDA
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})  # those that libjpeg-turbo 3 decodes
_OTHER_FRAMES: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE, 0xF7})
# Tables, DNL (the number of lines), the restart interval, APPn, comment.
_SEGMENTS: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})


def _jpeg(stream: _Stream) -> _Parser[Format]:
    """Read the segments from after the start marker to the end marker, as a decoder would."""
    components: frozenset[int] | None = None
    previous, scanned = 0, False
    for _ in range(MAX_PARTS):
        skipped, marker = yield from stream.marker()
        scanned |= previous == _SOS and skipped > 0
        previous = marker
        if marker == _EOI:
            if not scanned:
                raise _damaged("there is no picture in it")
            return "jpg"
        if marker == _TEM:
            continue
        size = int.from_bytes((yield from stream.take(2))) - 2
        if size < 0:
            raise _damaged("one of its parts has no length")
        if marker in _FRAMES:
            if components is not None:
                raise _damaged("it has two headers")
            components = yield from _frame(stream, size, lossless=marker == 0xC3)
        elif marker == _SOS:
            yield from _scan(stream, size, components)
        elif marker in _SEGMENTS:
            yield from stream.skip(size)
        elif marker in _OTHER_FRAMES:
            raise _unreadable(
                "is a rare kind of JPEG that hardly any program opens; save it as an ordinary JPG"
            )
        else:
            raise _damaged(f"marker {marker:02X} does not belong there")
    raise _too_many_parts()


def _frame(stream: _Stream, size: int, *, lossless: bool) -> _Parser[frozenset[int]]:
    """Read the frame header; returns the identifiers of its components."""
    if size not in {9, 12, 15, 18}:  # one to four components
        raise _damaged("its header has a wrong length")
    header = yield from stream.take(size)
    precision, height, width = header[0], int.from_bytes(header[1:3]), int.from_bytes(header[3:5])
    sampling = [factor for pair in header[7::3] for factor in (pair >> 4, pair & 15)]
    if not (
        size == 6 + 3 * header[5]
        and (2 <= precision <= 16 if lossless else precision in {8, 12})
        and all(1 <= factor <= 4 for factor in sampling)
    ):
        raise _damaged("its header makes no sense")
    _limit(width, height)
    return frozenset(header[6::3])


def _scan(stream: _Stream, size: int, components: frozenset[int] | None) -> _Parser[None]:
    """Read the header of a scan, which names components of the frame; its data ends at the next marker."""
    if components is None:
        raise _damaged("its header is missing")
    if size not in {6, 8, 10, 12}:
        raise _damaged("one of its parts has a wrong length")
    header = yield from stream.take(size)
    if size != 4 + 2 * header[0] or not components.issuperset(header[1:-3:2]):
        raise _damaged("one of its parts makes no sense")


_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_PALETTED: Final = 3
_MAX_DEFLATE: Final = 1032  # the highest compression ratio: a match of 258 bytes takes two bits


def _png(stream: _Stream) -> _Parser[Format]:
    """Read the chunks from the header to the end chunk, and verify the checksum of each."""
    palette, compressed, data_ended = False, 0, False
    colour, raw = yield from _png_header(stream)
    for _ in range(MAX_PARTS):
        size, name = yield from _chunk_head(stream)
        if name == b"acTL" and not compressed:
            raise InvalidImage(
                "image_animated", "is an animated PNG; save one still picture of it as JPG or PNG"
            )
        if name == b"IDAT":
            if data_ended:
                raise _damaged("its picture is in pieces")
            if colour == _PALETTED and not palette:
                raise _damaged("its palette is missing")
            compressed += size
        elif name == b"PLTE":
            palette = 0 < size <= 3 * 256 and size % 3 == 0
        elif name != b"IEND" and name[:1].isupper():
            raise _damaged("it has a required part of an unknown type")
        crc = yield from stream.skip(size, zlib.crc32(name))
        yield from _checksum(stream, crc)
        data_ended |= compressed > 0 and name != b"IDAT"
        if name == b"IEND":
            if compressed * _MAX_DEFLATE < raw:
                raise _damaged("there is too little in it for a picture of its size")
            return "png"
    raise _too_many_parts()


def _png_header(stream: _Stream) -> _Parser[tuple[int, int]]:
    """Read the header chunk; returns the colour type and the least size of the uncompressed picture in bytes."""
    size, name = yield from _chunk_head(stream)
    if (size, name) != (13, b"IHDR"):
        raise _damaged("it does not begin with its header")
    header = yield from stream.take(13)
    yield from _checksum(stream, zlib.crc32(header, zlib.crc32(name)))
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    depth, colour, compression, filtering, interlace = header[8:]
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise _damaged("its header makes no sense")
    _limit(width, height)
    return colour, height * (1 + width * depth * _CHANNELS[colour] // 8)


def _chunk_head(stream: _Stream) -> _Parser[tuple[int, bytes]]:
    head = yield from stream.take(8)
    size, name = int.from_bytes(head[:4]), head[4:]
    if size >= 1 << 31 or not name.isalpha():
        raise _damaged("its parts do not follow each other")
    return size, name


def _checksum(stream: _Stream, crc: int) -> _Parser[None]:
    stored = yield from stream.take(4)
    if int.from_bytes(stored) != crc:
        raise _damaged("a checksum in it does not match")


def _limit(width: int, height: int) -> None:
    if not width or not height:
        raise _damaged("it is 0 pixels wide or high")
    if width * height > MAX_PIXELS:
        raise InvalidImage(
            "image_too_many_pixels",
            f"has {width} × {height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels; make it smaller",
        )


def _too_many_parts() -> InvalidImage:
    return _damaged(f"it is in more than {MAX_PARTS:,} pieces")


def _unreadable(reason: str) -> InvalidImage:
    return InvalidImage("image_unreadable", reason)


def _damaged(damage: str) -> InvalidImage:
    return _unreadable(f"is damaged: {damage}; open it and save it again as JPG or PNG")


def _other_format(start: bytes) -> InvalidImage:
    if start[1:4] == b"PNG":
        return _damaged("it is a PNG whose first bytes were changed, as by a transfer in text mode")
    return InvalidImage("image_not_jpeg_or_png", describe(start))
