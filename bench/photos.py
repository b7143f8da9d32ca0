"""Photos of a given size: valid JPEGs or PNGs, nearly all of it image data, all different, and cheap to make.

They differ in what stays when a photo is cleaned: a table that no scan uses, and the gamma.
"""

import math
import struct
from functools import cache
from typing import Literal

from PIL import Image

from tests.acceptance.person import Person
from tests.support.pictures import chunk, saved, segment

MEGABYTE = 10**6
_SAMPLE = 512
_HEADER = 8 + 25
"""Bytes of a PNG's signature and header."""

Kind = Literal["JPEG", "PNG"]
_SUFFIXES: dict[Kind, str] = {"JPEG": "jpg", "PNG": "png"}


def photo(size: int, number: int, kind: Kind = "JPEG") -> bytes:
    """A photo of `size` bytes, within 2 %, and different for each number."""
    base = _base(size, kind)
    if kind == "PNG":
        return base[:_HEADER] + chunk(b"gAMA", struct.pack(">I", 45_000 + number)) + base[_HEADER:]
    return base[:2] + segment(0xDB, b"\3" + struct.pack(">I", number).ljust(64, b"\1")) + base[2:]


def upload(person: Person, size: int, count: int, kind: Kind = "JPEG") -> list[str]:
    """Upload `count` different photos and return their paths."""
    return [person.upload(photo(size, number, kind), f"photo.{_SUFFIXES[kind]}") for number in range(count)]


@cache
def _base(size: int, kind: Kind) -> bytes:
    per_pixel = len(_grainy(_SAMPLE, kind)) / _SAMPLE**2
    for _ in range(3):
        picture = _grainy(round(math.sqrt(size / per_pixel)), kind)
        if abs(len(picture) / size - 1) < 0.015:
            return picture
        per_pixel *= len(picture) / size
    raise AssertionError(f"The photo has {len(picture)} bytes instead of {size}.")


def _grainy(side: int, kind: Kind) -> bytes:
    """A gradient with grain, which takes about the same number of bytes per pixel at any size, as a photo does."""
    grain = Image.effect_noise((side, side), 40)
    shade = Image.linear_gradient("L").resize((side, side))
    picture = Image.merge("RGB", [Image.blend(grain, shade.rotate(90 * turn), 0.5) for turn in range(3)])
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    return saved(picture, kind, **options)
