"""The files that users choose in the scenarios."""

import random
from pathlib import Path

from PIL import Image

from tests.support.pictures import jpeg, png, saved, segment

LARGE = 20 * 1024 * 1024


def write(folder: Path) -> None:
    """Write them, each with a name that says what it is."""
    folder.mkdir()
    for number in range(1, 13):
        file = png(number, (600, 450)) if number % 6 == 0 else jpeg(number, (1200, 900))
        (folder / f"photo-{number:02}.{'png' if number % 6 == 0 else 'jpg'}").write_bytes(file)
    for number in range(13, 42):
        (folder / f"photo-{number:02}.jpg").write_bytes(jpeg(number))
    (folder / "broken.jpg").write_bytes(jpeg(50, (1200, 900))[:-20_000])
    (folder / "good.jpg").write_bytes(jpeg(51, (1200, 900)))
    (folder / "twin.jpg").write_bytes(jpeg(1, (1200, 900)))
    (folder / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2000))
    (folder / "21MB.jpg").write_bytes(jpeg(52) + bytes(21_000_000))
    noise = saved(Image.effect_noise((4032, 3024), 60).convert("RGB"), quality=60)
    for number in range(1, 41):
        (folder / f"large-{number:02}.jpg").write_bytes(_padded(noise, LARGE - number))


def _padded(picture: bytes, size: int) -> bytes:
    """A JPEG of this size: with comments of random bytes behind its beginning."""
    left, comments = size - len(picture), []
    content = random.Random(size).randbytes(65_533)
    while left > 0:
        part = min(left, 65_537)
        part -= 4 if 0 < left - part < 4 else 0
        comments.append(segment(0xFE, content[: part - 4]))
        left -= part
    return picture[:2] + b"".join(comments) + picture[2:]
