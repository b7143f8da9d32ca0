"""What in a JPEG's metadata keeps Pillow from opening it. Only of use where the metadata is published as it came."""

import struct

from watcher.photos.exif import entries, tiff_of
from watcher.photos.refusals import InvalidImage, damaged

_X_RESOLUTION = 0x011A
_ASCII = 2
_PICTURES = b"MPF\0"
_PICTURE_COUNT, _PICTURE_LIST, _PICTURE_SIZE = 0xB001, 0xB002, 16
_PHOTOSHOP = b"Photoshop 3.0\0"


def check_metadata(number: int, body: bytes) -> None:
    """Raise InvalidImage if Pillow fails on this segment, APP0 to APP15; it reads those before the first scan."""
    if number == 0 and body.startswith(b"JFIF") and len(body) < 7:
        raise _broken("JFIF")
    if number == 2 and body.startswith(b"ICC_PROFILE\0") and len(body) < 14:
        raise _broken("colour profile")
    if number == 2 and body.startswith(_PICTURES) and not _has_all_pictures(body):
        raise damaged("its list of pictures is cut off")
    if number == 13 and body.startswith(_PHOTOSHOP) and not _is_readable(body):
        raise _broken("IPTC")
    if number == 14 and body.startswith(b"Adobe") and len(body) < 7:
        raise _broken("Adobe")


def check_exif(exif: bytes) -> None:
    """Raise InvalidImage if Pillow fails on this EXIF block: where its resolution is text of one character."""
    resolution = entries(tiff_of(exif)).get(_X_RESOLUTION)
    if resolution and resolution.number is None:
        text = resolution.data.removesuffix(b"\0") if resolution.kind == _ASCII else resolution.data
        if len(text) < 2:
            raise _broken("EXIF")


def _has_all_pictures(body: bytes) -> bool:
    """Whether the list of an MPO's pictures is as long as it says; Pillow 10 fails otherwise."""
    found = entries(body[len(_PICTURES) :])
    count, pictures = found.get(_PICTURE_COUNT), found.get(_PICTURE_LIST)
    if count is None or count.number is None or pictures is None:
        return True
    return pictures.number is not None or len(pictures.data) >= _PICTURE_SIZE * count.number


def _is_readable(body: bytes) -> bool:
    """Whether Pillow gets through Photoshop's blocks: it fails where they end right behind a number."""
    at = len(_PHOTOSHOP)
    while body[at : at + 4] == b"8BIM":
        if at + 6 == len(body):
            return False
        if at + 6 > len(body):
            return True
        at += 7 + body[at + 6]
        at += at & 1
        if at + 4 > len(body):
            return True
        [size] = struct.unpack(">L", body[at : at + 4])
        at += 4 + size
        at += at & 1
    return True


def _broken(what: str) -> InvalidImage:
    return damaged(f"its {what} data is cut off")
