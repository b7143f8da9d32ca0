"""The orientation of an image, as Pillow reads it from EXIF or XMP, and an EXIF block that holds nothing else."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ORIENTATION: Final = 0x0112
_IN_XMP: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_START: Final = re.compile(rb"(?:Exif\0\0){1,2}")
_HEADS: Final = {
    **dict.fromkeys((b"MM\0\x2a", b"MM\x2a\0", b"MM\0\x2b"), ">"),
    **dict.fromkeys((b"II\x2a\0", b"II\0\x2a"), "<"),
}
# The types of TIFF that are numbers or bytes, as `struct` knows them; 5 and 10 are fractions, of two each.
_TYPES: Final = {
    1: "B", 2: "B", 3: "H", 4: "L", 5: "L", 6: "b", 7: "B", 8: "h", 9: "l", 10: "l", 11: "f", 12: "d", 13: "L", 16: "Q",
}  # fmt: skip
_BYTES: Final = frozenset({1, 2, 7})
_FRACTIONS: Final = frozenset({5, 10})
_MAX_ENTRIES: Final = 2_000
"""Cameras write dozens, in ascending order of their tags."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory."""

    kind: int
    order: str
    """Of the bytes, as `struct` writes it."""
    data: bytes

    @property
    def number(self) -> float | None:
        """The first value; None if the entry holds text or bytes."""
        if self.kind in _BYTES:
            return None
        code = self.order + _TYPES[self.kind]
        values = [value for (value,) in struct.iter_unpack(code, self.data)]
        if self.kind not in _FRACTIONS:
            return float(values[0])
        return values[0] / values[1] if values[1] else None


def entries(tiff: bytes) -> dict[int, Entry]:
    """Read the first directory of a TIFF file by tag, as far as it goes; empty if it is none."""
    order = _HEADS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return {}
    found: dict[int, Entry] = {}
    total = 0
    [start] = struct.unpack(order + "L", tiff[4:8])
    for tag, kind, count, field in _records(tiff, start, order):
        if tag in found or kind not in _TYPES:
            continue
        size = count * struct.calcsize("=" + _TYPES[kind]) * (2 if kind in _FRACTIONS else 1)
        at, source = 0, field
        if size > len(field):
            total += size
            if total > len(tiff):
                continue
            [at], source = struct.unpack(order + "L", field), tiff
        if at + size > len(source):
            break
        if size:
            found[tag] = Entry(kind, order, source[at : at + size])
    return found


def _records(tiff: bytes, start: int, order: str) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and value of each entry, as far as the file goes."""
    if len(tiff) >= start + 2:
        [count] = struct.unpack(order + "H", tiff[start : start + 2])
        end = start + 2 + 12 * min(count, _MAX_ENTRIES)
        for at in range(start + 2, min(end, len(tiff) - 11), 12):
            yield struct.unpack(order + "HHL4s", tiff[at : at + 12])


def orientation(exif: bytes | None, xmp: bytes | None) -> int | None:
    """Return the orientation, 1 to 8; None if there is none. XMP is asked where EXIF does not name any."""
    if exif is not None and (found := entries(tiff_of(exif)).get(_ORIENTATION)):
        number = found.number
    else:
        match = _IN_XMP.search(xmp or b"")
        number = int(match[1]) if match else None
    return int(number) if number is not None and number in range(1, 9) else None


def tiff_of(exif: bytes) -> bytes:
    """Return the TIFF file in an EXIF block."""
    start = _START.match(exif)
    return exif[start.end() :] if start else exif


def of_raw_profile(text: bytes) -> bytes | None:
    """Return the EXIF that ImageMagick writes into a PNG as text, in hexadecimal after three lines; None if it is none."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n", 3)[3:]).decode("latin-1"))
    except ValueError:
        return None


def tiff_with(orientation: int) -> bytes:
    """Return a TIFF file that holds this orientation and nothing else."""
    return struct.pack(">4sLHHHLHHL", b"MM\0\x2a", 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
