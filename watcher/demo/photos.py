"""The demo's photos: read from a folder, or generated."""

import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from watcher.errors import Misconfigured, SandboxMissing
from watcher.process.untrusted import one_line

_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as a browser would hold it."""

    name: str
    content: bytes

    @property
    def media_type(self) -> str:
        """The Content-Type that a browser sends with it."""
        return _TYPES[Path(self.name).suffix.lower()]


def read(folder: Path) -> tuple[list[Photo], list[str]]:
    """Read a folder's photos in the order of their names, and return them and the names of what else is there.

    Raises Misconfigured unless there are 3 to 40 that can be read.
    """
    pictures, skipped = [], []
    try:
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in _TYPES and file.is_file():
                pictures.append(Photo(file.name, file.read_bytes()))
            else:
                skipped.append(one_line(file.name))
    except OSError as error:
        raise Misconfigured(f"{error.filename} cannot be read: {error.strerror}.") from error
    if not 3 <= len(pictures) <= 40:
        raise Misconfigured(
            f"{folder} has {len(pictures)} photos (.jpg, .jpeg, .png): 3 to 40 are needed."
            + (f" {left_out(skipped)}" if skipped else "")
        )
    return pictures, skipped


def left_out(names: list[str]) -> str:
    """Say which files are not uploaded."""
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return f"Left out, since they are no files named .jpg, .jpeg or .png: {', '.join(names[:10])}{more}."


def generate() -> list[Photo]:
    """Generate twelve pictures, so that no real person's photos are shipped; raises Misconfigured without Pillow."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise SandboxMissing(error) from error

    chance = random.Random(7)  # noqa: S311  (pictures, not secrets)
    pictures = []
    for number in range(1, 13):
        size = (chance.randrange(900, 1600), chance.randrange(900, 1600))
        picture = Image.effect_noise(size, 40).convert("RGB")
        draw = ImageDraw.Draw(picture)
        for _ in range(12):
            left, top = chance.randrange(size[0]), chance.randrange(size[1])
            edge = chance.randrange(40, 400)
            colour = tuple(chance.randrange(256) for _ in range(3))
            draw.ellipse((left, top, left + edge, top + edge), fill=cast("tuple[int, int, int]", colour))
        suffix = "png" if number % 6 == 0 else "jpg"
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if suffix == "png" else "JPEG")
        pictures.append(Photo(f"photo-{number:02}.{suffix}", buffer.getvalue()))
    return pictures
