"""JPEGs and PNGs of every kind that Pillow writes, and as phones and editors write them."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageCms, PngImagePlugin

from tests.support.hostile import drawn
from tests.support.pictures import (
    EOI,
    IEND,
    JPEG_START,
    chunk,
    frame,
    hand_made_png,
    header,
    pixels,
    png,
    saved,
    scan,
    segment,
)

SECRETS = (b"2026:11:22", b"Secretphone", b"SN-0815-4711", b"48.2082", b"a private word", b"maker's own")
"""What must not be found in a cleaned file."""
_VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + b"".join(SECRETS) * 9
_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="%d" xmp:CreateDate="2026:11:22"
 GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="999" exif:GPSLatitude="48.2082" aux:SerialNumber="SN-0815-4711"
 Container:Directory="Item:Mime=video/mp4" hdrgm:Version="1.0"/></rdf:RDF></x:xmpmeta>"""


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 33), seed: int = 1) -> Image.Image:
    """A picture with edges and grain."""
    chance = random.Random(seed)
    width, height = size
    bands = len(mode) if mode in {"RGB", "RGBA", "LA", "CMYK"} else 1
    raw = bytes(
        (x * 7 + y * 5 + chance.randrange(40)) % 256 for y in range(height) for x in range(width * bands)
    )
    if mode in {"1", "P"}:
        return Image.frombytes("L", size, raw).convert(mode)
    return Image.frombytes(mode, size, raw)


@cache
def profile() -> bytes:
    """An ICC profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(turn: int | None = 6) -> bytes:
    """EXIF as a phone writes it, with a thumbnail behind it."""
    block = Image.Exif()
    if turn is not None:
        block[0x0112] = turn
    block[0x010F], block[0x0110], block[0x0132] = "Secretphone", "Secretphone 9", "2026:11:22 10:00:00"
    block[0xA431], block[0x9C9C] = "SN-0815-4711", b"a private word"
    block.get_ifd(0x8769)[0x927C] = b"Apple iOS\0maker's own" + EOI
    block.get_ifd(0x8769)[0x9003] = "2026:11:22 10:00:00"
    block.get_ifd(0x8825).update({1: "N", 2: (48.2082, 12.0, 30.0), 29: "2026:11:22"})
    return block.tobytes() + saved(picture(size=(16, 12)))


def xmp(turn: int = 6) -> bytes:
    """XMP of a phone."""
    return _XMP % turn


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Name and bytes."""
    for mode in ("L", "RGB", "CMYK", "1"):
        for progressive in (False, True):
            name = f"{mode}{', progressive' * progressive}"
            yield name, saved(picture(mode), progressive=progressive)
            yield f"{name}, restarts", saved(picture(mode), progressive=progressive, restart_marker_blocks=2)
            yield (
                f"{name}, optimized",
                saved(picture(mode), progressive=progressive, optimize=True, quality=95),
            )
    for sampling in range(3):
        yield f"subsampling {sampling}", saved(picture(), subsampling=sampling)
    for quality in (1, 30, 100):
        yield f"quality {quality}", saved(picture(), quality=quality)
    yield "RGB kept", saved(picture(), keep_rgb=True)
    yield "tables apart", saved(picture(), qtables="web_high")
    yield "ICC", saved(picture(), icc_profile=profile())
    yield "ICC in parts", saved(picture(), icc_profile=profile() * 150)
    yield "comment", saved(picture(), comment=b"a private word" + EOI)
    yield "EXIF", saved(picture(), exif=exif())
    yield "XMP alone", saved(picture(), xmp=xmp(8))
    yield "XMP beside EXIF", saved(picture(), exif=exif(None), xmp=xmp(3))
    yield (
        "all of it",
        saved(picture(), exif=exif(), xmp=xmp(), icc_profile=profile(), comment=b"2026:11:22", dpi=(72, 72)),
    )
    yield "MPO", saved(picture(), "MPO", save_all=True, append_images=[picture(seed=2)], exif=exif())
    yield from phones()
    whole = saved(picture("L"))
    yield (
        "arithmetic",
        JPEG_START + segment(0xDB, b"\0" + b"\1" * 64) + frame(16, 16, 0xC9) + scan(b"\x55" * 20) + EOI,
    )
    yield "filled", whole[:2] + b"\xff" * 9 + whole[2:]
    yield "junk between", whole[:20] + b"junk" + whole[20:]


def phones() -> Iterator[tuple[str, bytes]]:
    """The shapes of an iPhone, Google's and Samsung's motion photos, Ultra HDR, and what editors add."""
    plain = saved(picture(), exif=exif(), icc_profile=profile())
    preview = saved(picture(size=(16, 12)))
    extended = b"http://ns.adobe.com/xmp/extension/\0" + bytes(32) + b"<x>48.2082</x>" * 20
    photoshop = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x1c\x1c\x02\x78\0\x0ea private word" + b"2026:11:22"
    first = saved(picture(), "MPO", save_all=True, append_images=[picture(seed=3)], exif=exif(), xmp=xmp())
    yield "Google's motion photo", _with(plain, [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp())]) + _VIDEO
    yield "Samsung's motion photo", plain + _VIDEO + b"SEFH" + b"".join(SECRETS) + b"SEFT"
    yield "Ultra HDR", first + preview
    yield "iPhone with a gain map", _with(first, [(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(9))])
    parts = [
        (0xE0, b"JFXX\0\x10" + preview),
        (0xE1, extended),
        (0xE2, b"FPXR\0" + b"".join(SECRETS)),
        (0xE4, b"SN-0815-4711"),
        (0xEB, b"JP" + struct.pack(">HI", 1, 1) + b"\0\0\0\x20jumbc2pa a private word"),
        (0xED, photoshop),
        (0xEE, b"Adobe\0\x64\0\0\0\0\1" + b"a private word"),
    ]
    yield "with all that editors add", _with(plain, parts)
    jfif = saved(picture())
    thumbnail = b"\4\4" + (b"2026:11:22" * 5)[:48]
    yield "thumbnail in JFIF", jfif[:4] + struct.pack(">H", 16 + 48) + jfif[6:18] + thumbnail + jfif[20:]
    scans = saved(picture(), progressive=True)
    last = scans.rindex(b"\xff\xda")
    yield (
        "comments between scans",
        scans[:last] + segment(0xFE, b"a private word") + segment(0xE1, exif()) + scans[last:],
    )


def _with(whole: bytes, parts: list[tuple[int, bytes]]) -> bytes:
    return whole[:2] + b"".join(segment(marker, body) for marker, body in parts) + whole[2:]


def pngs() -> Iterator[tuple[str, bytes]]:
    """Name and bytes."""
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        raw = picture("L", (80, 33)).tobytes()
        one = Image.frombytes("I;16", (40, 33), raw) if mode == "I;16" else picture(mode)
        yield f"PNG {mode}", saved(one, "PNG")
    for bits in (1, 2, 4):
        yield f"PNG P in {bits} bits", saved(picture("L").quantize(2**bits), "PNG", bits=bits)
    yield "PNG P with transparency", saved(picture("P"), "PNG", transparency=3)
    yield "PNG P with alphas", saved(picture("P"), "PNG", transparency=bytes(range(0, 250, 5)))
    yield "PNG RGB with transparency", saved(picture(), "PNG", transparency=(1, 2, 3))
    yield "PNG L with transparency", saved(picture("L"), "PNG", transparency=9)
    yield "PNG stored", saved(picture(), "PNG", compress_level=0)
    yield "PNG optimized", saved(picture(), "PNG", optimize=True)
    yield "PNG with ICC", saved(picture(), "PNG", icc_profile=profile())
    yield "PNG with EXIF", saved(picture(), "PNG", exif=exif(5))
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "a private word")
    info.add_text("Comment", "Secretphone " * 30, zip=True)
    info.add_itxt("XML:com.adobe.xmp", xmp(7).decode())
    info.add(b"tIME", struct.pack(">HBBBBB", 2026, 11, 22, 1, 2, 3))
    info.add(b"prVt", b"SN-0815-4711", after_idat=True)
    yield "PNG with texts", saved(picture(), "PNG", pnginfo=info, dpi=(72, 72), icc_profile=profile())
    zipped = PngImagePlugin.PngInfo()
    zipped.add_itxt("XML:com.adobe.xmp", xmp(2).decode(), zip=True)
    yield "PNG with zipped XMP", saved(picture("P"), "PNG", pnginfo=zipped)
    for interlace in (0, 1):
        for colour, depth in ((0, 1), (0, 8), (0, 16), (2, 16), (3, 4), (6, 16)):
            yield f"PNG of type {colour} in {depth} bits, {interlace}", drawn(colour, depth, interlace)
    colours = (
        chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"sRGB", b"\0"), chunk(b"pHYs", struct.pack(">IIB", 5669, 5669, 1)),
        chunk(b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000])),
        chunk(b"bKGD", bytes(6)), chunk(b"sBIT", b"\x08\x08\x08"), chunk(b"cICP", b"\x01\x0d\0\1"), chunk(b"tRNS", bytes(6)),
    )  # fmt: skip
    yield "PNG with colours", hand_made_png(header(5, 5), *colours, pixels(5, 5), IEND)
    profile_hex = exif(4)[6:].hex().encode()
    raw_profile = b"Raw profile type exif\0\nexif\n    %d\n" % len(exif(4)) + profile_hex + b"\n"
    yield "PNG of ImageMagick", hand_made_png(header(5, 5), chunk(b"tEXt", raw_profile), pixels(5, 5), IEND)
    late = chunk(b"eXIf", exif(8)[6:])
    yield (
        "PNG with EXIF behind",
        hand_made_png(header(5, 5), pixels(5, 5), late, chunk(b"tEXt", b"a\0a private word"), IEND),
    )
    rows = zlib.compress(
        b"".join(bytes([y % 5]) + picture().tobytes()[y * 120 : y * 120 + 120] for y in range(33))
    )
    parts = [chunk(b"IDAT", rows[at : at + 50]) for at in range(0, len(rows), 50)]
    yield "PNG in parts, all filters", hand_made_png(header(40, 33), *parts, IEND)
    yield "PNG with a video behind", png() + _VIDEO


def load(image: bytes) -> Image.Image:
    """Open and decode as Pillow does at its defaults."""
    opened = Image.open(io.BytesIO(image))
    opened.load()
    return opened
