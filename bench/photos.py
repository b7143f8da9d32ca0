"""Photos of a given size: valid JPEGs, nearly all of it image data, all different, and cheap to make."""

import io
import math
import struct
from functools import cache

from PIL import Image

from tests.acceptance.person import Person

MEGABYTE = 10**6
_SAMPLE = 512


def photo(size: int, number: int) -> bytes:
    """A JPEG of `size` bytes, within 2 %, and different for each number."""
    base = _base(size)
    return base[:2] + struct.pack(">HHI", 0xFFFE, 6, number) + base[2:]  # a comment, right after the start


def upload(person: Person, size: int, count: int) -> list[str]:
    """Upload `count` different photos and return their paths."""
    return [person.upload(photo(size, number)) for number in range(count)]


@cache
def _base(size: int) -> bytes:
    per_pixel = len(_grainy(_SAMPLE)) / _SAMPLE**2
    for _ in range(3):
        picture = _grainy(round(math.sqrt(size / per_pixel)))
        if abs(len(picture) / size - 1) < 0.015:
            return picture
        per_pixel *= len(picture) / size
    raise AssertionError(f"The photo has {len(picture)} bytes instead of {size}.")


def _grainy(side: int) -> bytes:
    """A gradient with grain, which takes about the same number of bytes per pixel at any size, as a photo does."""
    grain = Image.effect_noise((side, side), 40)
    shade = Image.linear_gradient("L").resize((side, side))
    picture = Image.merge("RGB", [Image.blend(grain, shade.rotate(90 * turn), 0.5) for turn in range(3)])
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
