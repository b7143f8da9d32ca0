"""Why an image is refused: the exception, and the sentences that several files use."""

from typing import Final, Literal

Code = Literal["image_not_jpeg_or_png", "image_unreadable", "image_animated", "image_too_many_pixels"]

MAX_PIXELS: Final = 178_956_970
"""Pillow, which trainers use, opens no more at its defaults."""


class InvalidImage(Exception):
    """The image cannot be published.

    `code` is one of `errors.CODES`; `reason` is the rest of a sentence after "Image 3 (beach.jpg) ".
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def unreadable(reason: str) -> InvalidImage:
    """Return the refusal of an image that cannot be opened."""
    return InvalidImage("image_unreadable", reason)


def damaged(damage: str) -> InvalidImage:
    """Return the refusal of an image in which something is wrong; `damage` is a clause."""
    return unreadable(f"is damaged: {damage}; open it and save it again as JPG or PNG")


def cut_off() -> InvalidImage:
    """Return the refusal of an image that ends too early."""
    return unreadable("is cut off: its end is missing; upload it again")


def check_size(width: int, height: int) -> None:
    """Raise InvalidImage unless Pillow opens an image of so many pixels."""
    if not width or not height:
        raise damaged("it is 0 pixels wide or high")
    if width * height > MAX_PIXELS:
        raise InvalidImage(
            "image_too_many_pixels",
            f"has {width} × {height} pixels, more than the {MAX_PIXELS // 10**6} megapixels that programs for training "
            "open; make it smaller, or take it with fewer megapixels",
        )
