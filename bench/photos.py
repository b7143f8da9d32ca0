"""Photos of a wanted size: real JPEGs in which nearly every byte is picture, cheap and each another."""

import io
import math
import struct
from functools import cache

from PIL import Image

from tests.acceptance.person import Person

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
    per_pixel = len(_grainy(_SAMPLE)) / _SAMPLE**2
    for _ in range(3):
        picture = _grainy(round(math.sqrt(size / per_pixel)))
        if abs(len(picture) / size - 1) < 0.015:
            return picture
        per_pixel *= len(picture) / size
    raise AssertionError(f"No photo of {size} bytes came of it, but one of {len(picture)}.")


def _grainy(side: int) -> bytes:
    """Light and shade with grain, which compresses to about the same whatever its size is, as a photo does."""
    grain = Image.effect_noise((side, side), 40)
    shade = Image.linear_gradient("L").resize((side, side))
    picture = Image.merge("RGB", [Image.blend(grain, shade.rotate(90 * turn), 0.5) for turn in range(3)])
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
