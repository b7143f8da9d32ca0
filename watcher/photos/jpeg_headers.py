"""The tables and headers of a JPEG: whether libjpeg decodes what they describe. Pure functions of their bytes.

The names are those of the standard (ITU-T T.81, annex B): Ss, Se, Ah, Al are the first and last coefficient and the bits
of a scan.
"""

from dataclasses import dataclass, field
from typing import Final

from watcher.photos.refusals import InvalidImage, check_size, damaged, unreadable

FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""The kinds of JPEG that libjpeg decodes whatever options it was built with."""
RARE_FRAMES: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE, 0xF7})
_PROGRESSIVE: Final = frozenset({0xC2, 0xCA})
_ARITHMETIC: Final = frozenset({0xC9, 0xCA})

_MAX_TABLES: Final = 2_000
_MAX_SIDE: Final = 65_500
_MAX_BLOCKS: Final = 10
_DC, _AC = 0, 1
# Ss, Se, and Ah with Al. Some cameras write zeros; libjpeg, too, takes them for the whole range.
_SEQUENTIAL: Final = (b"\x00\x3f\x00", b"\0\0\0")


@dataclass(frozen=True, slots=True)
class Component:
    """One colour channel."""

    across: int
    down: int
    """Sampling factors."""
    quantization: int
    """The number of its table."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the frame header says."""

    progressive: bool
    arithmetic: bool
    pixels: int
    components: dict[int, Component]


@dataclass(slots=True)
class Tables:
    """Which tables are defined so far."""

    quantization: set[int] = field(default_factory=set)
    huffman: dict[tuple[int, int], bool] = field(default_factory=dict)
    """By class and number: whether the table is one that can be decoded with."""
    _count: int = 0

    def read_dqt(self, body: bytes) -> None:
        """Read a DQT segment; raises InvalidImage."""
        while body:
            precision, number = divmod(body[0], 16)
            size = 1 + 64 * (precision + 1)
            if precision > 1 or number > 3 or len(body) < size:
                raise damaged("one of its quantization tables is invalid")
            self.quantization.add(number)
            self._counted()
            body = body[size:]

    def read_dht(self, body: bytes) -> None:
        """Read a DHT segment; raises InvalidImage."""
        at = 0
        while at < len(body):
            kind, number = divmod(body[at], 16)
            counts = body[at + 1 : at + 17]
            symbols = body[at + 17 : at + 17 + sum(counts)]
            if len(counts) < 16 or not len(symbols) == sum(counts) <= 256 or kind > 1 or number > 3:
                raise damaged("one of its Huffman tables is invalid")
            self.huffman[kind, number] = _is_decodable(kind, counts, symbols)
            self._counted()
            at += 17 + len(symbols)

    def read_dac(self, body: bytes) -> None:
        """Read a DAC segment; raises InvalidImage."""
        pairs = list(zip(body[::2], body[1::2], strict=False))
        wrong = any(index > 31 or (index < 16 and value & 15 > value >> 4) for index, value in pairs)
        if len(body) > 64 or len(body) % 2 or wrong:
            raise damaged("one of its arithmetic tables is invalid")

    def _counted(self) -> None:
        self._count += 1
        if self._count > _MAX_TABLES:
            raise damaged(f"it has more than {_MAX_TABLES:,} tables")


def _is_decodable(kind: int, counts: bytes, symbols: bytes) -> bool:
    """Whether a Huffman table gives each symbol a code of its own, none of them all ones."""
    code = 0
    for length, count in enumerate(counts, 1):
        code += count
        if count and code >= 1 << length:
            return False
        code <<= 1
    return kind == _AC or max(symbols, default=0) <= 15


def read_frame(marker: int, body: bytes) -> Frame:
    """Read a frame header; raises InvalidImage unless libjpeg and Pillow decode such an image."""
    if len(body) not in {9, 12, 15, 18}:  # one to four components
        raise damaged("its header has a wrong length")
    precision, height, width = body[0], int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    parts = [
        (number, Component(*divmod(factors, 16), table))
        for number, factors, table in zip(body[6::3], body[7::3], body[8::3], strict=True)
    ]
    components = dict(parts)
    if len(body) != 6 + 3 * body[5] or len(components) < len(parts) or not _fit(list(components.values())):
        raise damaged("its header is invalid")
    if precision != 8 or len(parts) == 2:
        raise rare()
    check_size(width, height)
    if max(width, height) > _MAX_SIDE:
        raise _too_long(width, height)
    return Frame(marker in _PROGRESSIVE, marker in _ARITHMETIC, width * height, components)


def _fit(components: list[Component]) -> bool:
    """Whether the sampling factors are legal, and every channel can be enlarged by whole numbers."""
    factors = [(part.across, part.down) for part in components]
    if not all(1 <= factor <= 4 for pair in factors for factor in pair):
        return False
    across, down = (max(side) for side in zip(*factors, strict=True))
    return not any(across % x or down % y for x, y in factors)


def check_scan(body: bytes, frame: Frame, tables: Tables) -> None:
    """Raise InvalidImage unless libjpeg decodes a scan with this header, with the tables defined so far."""
    if len(body) not in {6, 8, 10, 12}:
        raise damaged("one of its parts has a wrong length")
    named, numbers, span = body[1:-3:2], body[2:-3:2], body[-3:]
    channels = [frame.components[name] for name in named if name in frame.components]
    if len(body) != 4 + 2 * body[0] or len(channels) < len(named) or len(set(named)) < len(named):
        raise damaged("one of its parts is invalid")
    blocks = sum(channel.across * channel.down for channel in channels)
    if (len(channels) > 1 and blocks > _MAX_BLOCKS) or not _is_legal(span, len(channels), frame):
        raise damaged("one of its scans is invalid")
    if any(channel.quantization not in tables.quantization for channel in channels):
        raise damaged("one of its quantization tables is missing")
    if not frame.arithmetic and not all(tables.huffman.get(key) for key in _used(numbers, span, frame)):
        raise damaged("one of its Huffman tables is missing or is invalid")


def _is_legal(span: bytes, channels: int, frame: Frame) -> bool:
    """Whether a scan of so many channels may have these coefficients and bits."""
    if not frame.progressive:
        return span in _SEQUENTIAL
    first, last, (high, low) = span[0], span[1], divmod(span[2], 16)
    whole = first <= last <= 63 and channels == 1 if first else last == 0
    return whole and low <= 13 and high in {0, low + 1}


def _used(numbers: bytes, span: bytes, frame: Frame) -> set[tuple[int, int]]:
    """Return which Huffman tables a scan is decoded with; its header names two for each channel."""
    of_dc = {(_DC, number >> 4) for number in numbers}
    of_ac = {(_AC, number & 15) for number in numbers}
    if not frame.progressive:
        return of_dc | of_ac
    if span[0] > 0:
        return of_ac
    return set() if span[2] >> 4 else of_dc  # a refinement of the DC has no codes


def rare() -> InvalidImage:
    """Return the refusal of a kind of JPEG that is legal, but not opened."""
    return unreadable("is a rare kind of JPEG that hardly any program opens; save it as an ordinary JPG")


def _too_long(width: int, height: int) -> InvalidImage:
    return InvalidImage(
        "image_too_many_pixels",
        f"has {width} × {height} pixels: programs open JPGs of up to {_MAX_SIDE:,} on a side; make it smaller",
    )
