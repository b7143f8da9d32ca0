"""What becomes of one file: judged in both ways, decoded by Pillow, and compared."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tests.checks.photos.variants import load
from watcher.photos.image_check import ImageCheck
from watcher.photos.refusals import InvalidImage

Numbers = list[int]


def judged(image: bytes, block: int = 65_536, *, clean: bool = True) -> tuple[bytes | None, str]:
    """Return what is published, and the format; or None, and code and words of the refusal."""
    check = ImageCheck(clean=clean)
    published = []
    try:
        for start in range(0, len(image), block):
            for step in check.feed(image[start : start + block]):
                step()
            published += check.take()
        kind = check.finish()
    except InvalidImage as refusal:
        return None, f"{refusal.code} {refusal.reason}"
    return b"".join(published), kind


@dataclass(frozen=True, slots=True)
class Decoded:
    """What Pillow makes of a file."""

    pixels: tuple[str, tuple[int, int], bytes]
    in_colour: bytes | None
    """With its transparency; None where that does not fit."""
    profile: bytes | None
    orientation: int | None


def decoded(image: bytes) -> Decoded | None:
    """Decode with Pillow at its defaults; None if that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened = load(image)
        except Exception:  # noqa: BLE001  (whatever it is, a trainer does not get over it)
            return None
        profile = opened.info.get("icc_profile")
        pixels = (opened.mode, opened.size, opened.tobytes())
        return Decoded(pixels, _in_colour(opened), profile, _orientation(opened))


def _in_colour(opened: Image.Image) -> bytes | None:
    try:
        return opened.convert("RGBA").tobytes()
    except (ValueError, TypeError):
        return None


def _orientation(opened: Image.Image) -> int | None:
    try:
        turn = opened.getexif().get(0x0112)
    except Exception:  # noqa: BLE001  (EXIF that Pillow cannot read has no orientation, however it fails)
        return None
    return int(turn) if isinstance(turn, int | float) and turn in range(1, 9) else None


@dataclass(slots=True)
class Found:
    """What was found of one file."""

    refusal: str | None = None
    opens: bool = False
    undecodable: bool = False
    """Accepted, cleaned, and not decodable."""
    kept_undecodable: bool = False
    """Accepted as it came, and not decodable."""
    differences: str | None = None


def examine(image: bytes, chance: random.Random) -> Found:
    """Judge a file both ways, and compare what is published with what came."""
    found = Found()
    before = decoded(image)
    found.opens = before is not None
    kept, _ = judged(image, clean=False)
    found.kept_undecodable = kept is not None and before is None
    clean, words = judged(image, chance.choice((7, 999, 4_096, 262_144)))
    if clean is None:
        found.refusal = words
        return found
    after = decoded(clean)
    found.undecodable = after is None
    if after is not None:
        found.differences = difference(before, after, image, clean, chance)
    return found


def difference(
    before: Decoded | None, after: Decoded, image: bytes, clean: bytes, chance: random.Random
) -> str | None:
    """Say in what a cleaned file is not as it should be; None if it is."""
    again, _ = judged(clean)
    other, _ = judged(image, chance.choice((1, 64, 1_000_000)))
    checks: list[tuple[str, Callable[[], bool]]] = [
        ("pixels", lambda: before is None or before.pixels == after.pixels),
        ("transparency", lambda: before is None or before.in_colour in {None, after.in_colour}),
        ("profile", lambda: before is None or before.profile == after.profile),
        ("orientation", lambda: before is None or before.orientation in {None, after.orientation}),
        ("cleaned twice", lambda: again == clean),
        ("other blocks", lambda: other == clean),
        ("larger", lambda: len(clean) <= len(image) + 4),
    ]
    return next((name for name, holds in checks if not holds()), None)
