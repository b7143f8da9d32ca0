"""Recognizes files that are neither JPG nor PNG by their first bytes, and says what to do with them. Opens no file."""

import re
from typing import Final

SIGNATURE_BYTES: Final = 512
"""How many bytes at the beginning of a file identify its format."""


def describe(start: bytes) -> str:
    """Describe a file that begins with these bytes, as the rest of a sentence after "Image 3 (beach.jpg) "."""
    start = start[:SIGNATURE_BYTES]
    found = (words for pattern, words in _FORMATS if pattern.match(start))
    return next(found, "is neither a JPG nor a PNG; save it as one of them")


_SAVE: Final = "save it as JPG or PNG"
_FORMATS: Final = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), words)
    for pattern, words in (
        (rb"GIF8[79]a", f"is a GIF; {_SAVE}"),
        (rb"RIFF....WEBP", f"is a WebP picture; {_SAVE}"),
        (rb"....ftyp(?:....){0,8}?avi[fs]", f"is an AVIF picture; {_SAVE}"),
        (
            rb"....ftyp(?:....){0,8}?(?:hei[cmsx]|hev[cmsx]|mi[af]1|msf1)",
            f"is a HEIC photo; on an iPhone choose Settings > Camera > Formats > Most Compatible, or {_SAVE}",
        ),
        (rb"II\*\0|MM\0\*|IIU\0|FUJIFILMCCD-RAW|....ftypcrx ", f"is a TIFF or a camera's raw file; {_SAVE}"),
        (rb"BM....\0\0\0\0", f"is a BMP; {_SAVE}"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", f"is a JPEG 2000 picture; {_SAVE}"),
        (rb"\0\0\0\x0cJXL |\xff\x0a", f"is a JPEG XL picture; {_SAVE}"),
        (rb"8BPS", f"is a Photoshop file; {_SAVE}"),
        (rb"\s*%PDF-", f"is a PDF; {_SAVE}"),
        (
            rb"....(?:ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|RIFF....AVI ",
            "is a video; upload a still picture of it",
        ),
        (rb"\0\0[\1\2]\0", f"is an icon; {_SAVE}"),
        (rb"PK[\3\5]|Rar!|7z\xbc\xaf|\x1f\x8b", "is an archive; upload the pictures in it one by one"),
        (rb"data:image/|/9j/|iVBORw0KGgo", "is a picture written as base64 text; upload the picture itself"),
        (
            rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|script)\b",
            "is a web page; upload the picture itself",
        ),
        (rb"(?:\xef\xbb\xbf)?\s*<(?:.*<)?svg\b", f"is an SVG drawing; {_SAVE}"),
        (rb"\0+\Z", "begins with zeros only; upload it again"),
        (
            rb"--[^\r\n]{1,100}\r?\nContent-",
            "is a form (multipart) with a picture in it; upload the picture itself, as a File or Blob",
        ),
        (
            # The first bytes of a JPEG or PNG that were taken for Latin-1 or UTF-8, and written again as UTF-8.
            rb"\xc3\xbf\xc3\x98\xc3\xbf|(?:\xef\xbf\xbd){3}|(?:\xc2\x89|\xef\xbf\xbd)PNG",
            "was read as text on its way, which destroys a picture; upload the File or Blob itself",
        ),
        (rb"[\t\n\r -~\x80-\xff]+\Z", "is text; upload the picture itself"),
    )
)
