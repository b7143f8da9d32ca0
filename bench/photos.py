"""Photos of a wanted size: real JPEGs in which every byte is picture, and cheap ones that differ in one number."""

import io
import math
import struct
from functools import cache

from acceptance.person import Person
from PIL import Image

MEGABYTE = 10**6
_SAMPLE = 512


def photo(size: int, number: int) -> bytes:
    """A JPEG of `size` bytes, within 2 %, that is another file for each number."""
    base = _base(size)
    return base[:2] + struct.pack(">HHI", 0xFFFE, 6, number) + base[2:]  # a comment, right after the start


def upload(person: Person, size: int, count: int) -> list[str]:
    """Upload `count` distinct ones for somebody, and return their paths."""
    return [person.upload(photo(size, number)) for number in range(count)]


@cache
def _base(size: int) -> bytes:
    per_pixel = len(_noise(_SAMPLE)) / _SAMPLE**2
    for _ in range(3):
        picture = _noise(round(math.sqrt(size / per_pixel)))
        if abs(len(picture) / size - 1) < 0.01:
            return picture
        per_pixel *= len(picture) / size
    raise AssertionError(f"No photo of {size} bytes came of it, but one of {len(picture)}.")


def _noise(side: int) -> bytes:
    """Noise, which compresses to about the same whatever its size is."""
    file = io.BytesIO()
    picture = Image.merge("RGB", [Image.effect_noise((side, side), 80)] * 3)
    picture.save(file, "JPEG", quality=100, subsampling=0)
    return file.getvalue()
