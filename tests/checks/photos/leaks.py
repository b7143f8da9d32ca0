"""Looks for what a cleaned file must not tell: in its bytes, with Pillow, and with exiftool."""

import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.checks.photos.mutations import jpeg_of, jpeg_parts, png_parts
from tests.checks.photos.variants import SECRETS
from tests.support.pictures import PNG_SIGNATURE

_INFO = frozenset(
    {
        *(
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "dpi",
            "adobe",
            "adobe_transform",
            "progressive",
        ),
        *("progression", "icc_profile", "exif", "transparency", "gamma", "chromaticity", "srgb", "interlace"),
    }
)
_GROUPS = frozenset({"SourceFile", "ExifTool", "System", "File", "JFIF", "Adobe", "PNG", "Composite"})
_PNG_TAGS = frozenset(
    {
        *(
            "ImageWidth",
            "ImageHeight",
            "BitDepth",
            "ColorType",
            "Compression",
            "Filter",
            "Interlace",
            "Palette",
        ),
        *(
            "Transparency",
            "Gamma",
            "SRGBRendering",
            "WhitePointX",
            "WhitePointY",
            "RedX",
            "RedY",
            "GreenX",
            "GreenY",
        ),
        *("BlueX", "BlueY", "ProfileName", "ColorPrimaries", "TransferCharacteristics", "MatrixCoefficients"),
        *("VideoFullRangeFlag",),
    }
)
_EXIF_TAGS = frozenset({"Orientation", "ExifByteOrder"})


def leaks(image: bytes) -> Iterator[str]:
    """Yield what a cleaned file tells to somebody who searches its bytes, and to Pillow."""
    bare = _without_profile(image)
    for secret in SECRETS:
        if secret in bare:
            yield f"its bytes have {secret!r}"
    with Image.open(io.BytesIO(image)) as opened:
        opened.load()
        for key in opened.info.keys() - _INFO:
            yield f"Pillow finds {key!r}"
        for tag in set(opened.getexif()) - {0x0112}:
            yield f"Pillow finds the EXIF tag {tag:#06x}"
        if opened.format == "MPO":
            yield "Pillow finds further pictures"


def _without_profile(image: bytes) -> bytes:
    if image.startswith(PNG_SIGNATURE):
        return b"".join(name + content for name, content in png_parts(image) if name != b"iCCP")
    parts = [part for part in jpeg_parts(image) if not (part[0] == 0xE2 and b"ICC_PROFILE" in part[1][:16])]
    return jpeg_of(parts)


def missing_program() -> str | None:
    """Return a sentence if exiftool is not there."""
    if shutil.which("exiftool") is None:
        return "exiftool is missing: install it, on Debian with `apt install libimage-exiftool-perl`."
    return None


def told_to_exiftool(images: dict[str, bytes]) -> Iterator[str]:
    """Yield what cleaned files tell to exiftool, which reads more than anything else; `images` by name."""
    with tempfile.TemporaryDirectory(prefix="check-photos-") as folder:
        files = {}
        for number, (name, image) in enumerate(images.items()):
            path = Path(folder, str(number))
            path.write_bytes(image)
            files[str(path)] = name
        command = ["exiftool", "-json", "-groupNames1", "-unknown2", "-duplicates", "-ee", *files]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = json.loads(output)
    if len(found) != len(images):
        yield f"exiftool read {len(found)} of {len(images)} files"
    for tags in found:
        for tag in tags:
            if not _is_harmless(tag):
                yield f"{files[tags['SourceFile']]}: exiftool finds {tag} = {tags[tag]!r}"


def _is_harmless(tag: str) -> bool:
    group, _, name = tag.partition(":")
    if group == "PNG":
        return name in _PNG_TAGS
    if group in {"IFD0", "EXIF"} or name == "ExifByteOrder":
        return name in _EXIF_TAGS
    return group in _GROUPS or group.startswith(("ICC", "PNG-cICP", "PNG-pHYs"))
