"""Pictures for tests: ordinary ones made by Pillow, odd and hostile ones made by hand."""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SOI = b"\xff\xd8"
EOI = b"\xff\xd9"
# A start marker, a quantization table, and a Huffman table of each class with codes for 0 and 1.
JPEG_START = (
    SOI
    + b"\xff\xdb\0\x43\0" + b"\1" * 64
    + b"\xff\xc4\0\x15\0" + bytes((0, 2, *bytes(14))) + b"\0\1"
    + b"\xff\xc4\0\x15\x10" + bytes((0, 2, *bytes(14))) + b"\0\1"
)  # fmt: skip


def photo(mode: str = "RGB", size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """A picture with something in every pixel; `seed` makes another one."""
    width, height = size
    ramp = bytes((x * 5 + y * 3 + seed * 41) % 256 for y in range(height) for x in range(width))
    return Image.frombytes("L", size, ramp).convert(mode)


def saved(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The picture's file; `options` are Pillow's."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    return saved(photo(size=size, seed=seed))


def png(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    return saved(photo(size=size, seed=seed), "PNG")


def segment(marker: int, body: bytes) -> bytes:
    """One JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(width: int, height: int, marker: int = 0xC0, components: int = 1, precision: int = 8) -> bytes:
    """A JPEG frame header."""
    each = b"".join(bytes((number + 1, 0x11, 0)) for number in range(components))
    return segment(marker, struct.pack(">BHHB", precision, height, width, components) + each)


def scan(data: bytes = b"\x55", component: int = 1, last: int = 63) -> bytes:
    """A JPEG scan of one component, with its coefficients up to `last`."""
    return segment(0xDA, bytes((1, component, 0, 0, last, 0))) + data


def chunk(name: bytes, body: bytes = b"") -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG header chunk."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def hand_made_png(*chunks: bytes) -> bytes:
    return PNG_SIGNATURE + b"".join(chunks)


def pixels(width: int, height: int, bytes_each: int = 3) -> bytes:
    """A PNG's data chunk, all black."""
    return chunk(b"IDAT", zlib.compress(bytes(height * (1 + width * bytes_each))))


IEND = chunk(b"IEND")
_FTYP = b"\0\0\0\x18ftyp"


def ordinary() -> Iterator[tuple[str, bytes, str]]:
    """What is accepted, opens in Pillow as it came, and shows the same once it is cleaned: name, bytes, what it is."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    thumbnail = exif.tobytes() + jpeg(seed=9, size=(16, 12))  # a whole JPEG inside the first segment
    yield "baseline", jpeg(), "jpg"
    yield "one pixel", jpeg(size=(1, 1)), "jpg"
    yield "progressive", saved(photo(), progressive=True), "jpg"
    yield "best quality", saved(photo(), optimize=True, quality=100, subsampling=0), "jpg"
    yield "restart markers", saved(photo(), restart_marker_blocks=1), "jpg"
    yield "CMYK", saved(photo("CMYK")), "jpg"
    yield "grey", saved(photo("L")), "jpg"
    yield "EXIF with orientation and thumbnail", saved(photo(), exif=thumbnail), "jpg"
    yield "ICC in several segments", saved(photo(), icc_profile=bytes(200_000)), "jpg"
    yield "comment with an end marker", saved(photo(), comment=b"no end: \xff\xd9\xff\xd8"), "jpg"
    yield "MPO", saved(photo(), "MPO", save_all=True, append_images=[photo(seed=2)]), "jpg"
    yield "motion photo", jpeg() + _FTYP + b"mp42" + bytes(100_000), "jpg"
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000))
    yield "extended XMP", jpeg()[:2] + extended * 5 + jpeg()[2:], "jpg"
    yield "filling before a marker", jpeg()[:2] + b"\xff" * 9 + jpeg()[2:], "jpg"
    yield "JPEG and ZIP at once", jpeg() + b"PK\3\4" + bytes(50), "jpg"
    yield "JPEG with a page in its comment", saved(photo(), comment=b"<script>alert(1)</script>"), "jpg"
    yield "trailing megabytes", jpeg() + b"\xff\xd8\xff\xe0" * 500_000, "jpg"
    yield "arithmetic", JPEG_START + segment(0xCC, b"\0\x10") + frame(8, 8, 0xC9) + scan() + EOI, "jpg"
    yield "PNG", png(), "png"
    yield "PNG of one pixel", png(size=(1, 1)), "png"
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield f"PNG {mode}", saved(photo(mode), "PNG"), "png"
    sixteen_bit = Image.frombytes("I;16", (64, 48), bytes(range(256)) * 24)
    yield "16-bit grey", saved(sixteen_bit, "PNG"), "png"
    yield "16-bit RGB", hand_made_png(header(5, 5, depth=16), pixels(5, 5, 6), IEND), "png"
    yield "interlaced", hand_made_png(header(1, 1, interlace=1), pixels(1, 1), IEND), "png"
    yield "PNG with EXIF", saved(photo(), "PNG", exif=exif), "png"
    yield "PNG with ICC", saved(photo(), "PNG", icc_profile=bytes(10_000)), "png"
    yield "PNG with trailing data", png() + bytes(1_000_000), "png"
    pieces = [chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(bytes(49))]
    yield "PNG in pieces of one byte", hand_made_png(header(16, 1), *pieces, IEND), "png"
    white = Image.new("L", (6_000, 6_000), 255)
    yield "nothing but white", saved(white, "PNG", compress_level=9), "png"


def odd() -> Iterator[tuple[str, bytes, str]]:
    """What is accepted once it is cleaned: what is odd about it goes."""
    bomb = chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(20_000_000)))
    yield "compressed-text bomb", hand_made_png(header(5, 5), bomb, pixels(5, 5), IEND), "png"
    flat = chunk(b"iTXt", b"bomb\0\1\0\0\0" + zlib.compress(bytes(20_000_000)))
    yield "many text bombs", hand_made_png(header(5, 5), flat * 50, pixels(5, 5), IEND), "png"
    late = chunk(b"acTL", bytes(8))
    yield "animation announced too late", hand_made_png(header(5, 5), pixels(5, 5), late, IEND), "png"


def large() -> Iterator[tuple[str, bytes, str]]:
    """What is accepted and takes Pillow a second: as many pixels as it opens, and no more."""
    yield "as many pixels as Pillow opens", JPEG_START + frame(14_351, 12_470) + scan() + EOI, "jpg"
    flat = chunk(b"IDAT", zlib.compress(bytes(12_470 * (1 + 14_351 // 8 + 1)), 9))
    yield "a PNG of as many pixels", hand_made_png(header(14_351, 12_470, 1, 0), flat, IEND), "png"


def refused() -> Iterator[tuple[str, bytes, str, str]]:
    """What is refused: name, bytes, code, and what the words must say."""
    yield from _other_formats()
    yield from _broken_jpegs()
    yield from _broken_pngs()


def _other_formats() -> Iterator[tuple[str, bytes, str, str]]:
    code = "image_not_jpeg_or_png"
    picture = photo()
    for kind, words in (
        ("GIF", "GIF"),
        ("WEBP", "WebP"),
        ("AVIF", "AVIF"),
        ("TIFF", "TIFF"),
        ("BMP", "BMP"),
        ("ICO", "icon"),
        ("JPEG2000", "JPEG 2000"),
        ("PDF", "PDF"),
    ):
        yield kind, saved(picture, kind), code, words
    yield "HEIC", _FTYP + b"heic\0\0\0\0mif1heic" + bytes(900), code, "Most Compatible"
    yield "HEIC by its second brand", _FTYP + b"mif1\0\0\0\0heixmif1" + bytes(900), code, "Most Compatible"
    yield "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(900), code, "JPEG XL"
    yield "JPEG XL, bare", b"\xff\x0a" + bytes(900), code, "JPEG XL"
    yield "video", _FTYP + b"isom\0\0\2\0isomiso2" + bytes(900), code, "video"
    yield "QuickTime", b"\0\0\0\x14ftypqt  " + bytes(900), code, "video"
    yield "camera raw", _FTYP + b"crx \0\0\0\1crx isom" + bytes(900), code, "raw"
    yield "Photoshop", b"8BPS\0\1" + bytes(900), code, "Photoshop"
    yield "ZIP", b"PK\3\4" + bytes(900), code, "archive"
    yield "gzip", b"\x1f\x8b\x08" + bytes(900), code, "archive"
    yield "SVG", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', code, "SVG"
    yield "SVG, bare", b'<svg xmlns="http://www.w3.org/2000/svg"/>', code, "SVG"
    yield "HTML", b"<!DOCTYPE html><html><svg/></html>" + b"x" * 900, code, "web page"
    yield "text", "Grüße\n".encode() * 200, code, "text"
    yield "base64", b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQN", code, "base64"
    yield "data URL", b"data:image/jpeg;base64,/9j/4AAQSkZJRg", code, "base64"
    yield "zeros", bytes(5_000), code, "zeros"
    yield "a few bytes", b"\1\2\3", code, "neither"
    yield "PDF before a JPEG", b"%PDF-1.7\n" + jpeg(), code, "PDF"
    yield "a line end before a JPEG", b"\n" + jpeg(), code, "neither"
    yield "a picture in its start alone", SOI + bytes(900), code, "neither"
    mangled = jpeg().decode("utf-8", "replace").encode()
    yield "a JPEG read as text", mangled, code, "read as text"
    yield "a JPEG written as text", jpeg().decode("latin-1").encode(), code, "read as text"
    yield "a PNG read as text", png().decode("utf-8", "replace").encode(), code, "read as text"
    form = b'------WebKitFormBoundaryX\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + jpeg()
    yield "a form", form, code, "a form"


def _broken_jpegs() -> Iterator[tuple[str, bytes, str, str]]:
    code = "image_unreadable"
    whole = jpeg()
    start = JPEG_START + frame(8, 8)
    yield "nothing", b"", code, "empty"
    yield "half a JPEG", whole[: len(whole) // 2], code, "cut off"
    thumbnail = saved(photo(), exif=b"Exif\0\0" + jpeg(size=(16, 12)))
    yield "cut off after its thumbnail's end", thumbnail[: thumbnail.rindex(b"\xff\xda")], code, "cut off"
    yield "an end marker in a segment alone", start + segment(0xFE, EOI) + scan(), code, "cut off"
    yield "cut off, then another", whole[: len(whole) // 2] + whole, code, "damaged"
    yield "without a header", JPEG_START + scan() + EOI, code, "header"
    yield "without a scan", start + EOI, code, "no picture"
    yield "with an empty scan", start + scan(b"") + EOI, code, "no picture"
    yield "start and end alone", JPEG_START + EOI + bytes(10), code, "no picture"
    yield "lossless", JPEG_START + frame(8, 8, 0xC3, precision=16) + scan() + EOI, code, "rare kind"
    yield "twelve bits", JPEG_START + frame(8, 8, 0xC1, precision=12) + scan() + EOI, code, "rare kind"
    yield "thousands of scans", start + scan(b"\x55" * 99) * 5_000 + EOI, code, "two pictures"
    layers = JPEG_START + frame(8, 8, 0xC2) + scan(last=0) * 101 + EOI
    yield "a hundred and one scans", layers, code, "layers"
    many = JPEG_START + frame(8_000, 8_000, 0xC2) + scan(last=0) * 101 + EOI
    yield "too many scans for its size", many, code, "layers"
    yield "with two headers", start + frame(60_000, 60_000) + scan() + EOI, code, "two headers"
    yield "with another's component", start + scan(component=7) + EOI, code, "is invalid"
    yield "without width", JPEG_START + frame(0, 8) + scan() + EOI, code, "0 pixels"
    yield "without height", JPEG_START + frame(8, 0) + scan() + EOI, code, "0 pixels"
    yield "of five components", JPEG_START + frame(8, 8, components=5) + scan() + EOI, code, "wrong length"
    yield "of no components", JPEG_START + frame(8, 8, components=0) + scan() + EOI, code, "wrong length"
    yield "of two components", JPEG_START + frame(8, 8, components=2) + scan() + EOI, code, "rare kind"
    yield "of one bit", JPEG_START + frame(8, 8, precision=1) + scan() + EOI, code, "rare kind"
    yield "without tables", SOI + frame(8, 8) + scan() + EOI, code, "quantization table"
    yield "without Huffman tables", JPEG_START[:71] + frame(8, 8) + scan() + EOI, code, "Huffman table"
    yield "a segment without length", start + b"\xff\xfe\0\0" + scan() + EOI, code, "no length"
    yield "a segment past the end", start + b"\xff\xfe\xff\xff" + scan() + EOI, code, "cut off"
    yield "a reserved marker", start + b"\xff\x4f\0\2" + scan() + EOI, code, "marker 4F"
    yield "hierarchical", JPEG_START + frame(8, 8, 0xC5) + scan() + EOI, code, "rare kind"
    yield "JPEG-LS", JPEG_START + frame(8, 8, 0xF7) + scan() + EOI, code, "rare kind"
    yield "too many segments", start + b"\xff\xfe\0\2" * 100_000 + scan() + EOI, code, "pieces"
    yield "nothing but filling", SOI + b"\xff" * 200_000, code, "mean nothing"
    yield "too wide", JPEG_START + frame(65_501, 8) + scan() + EOI, "image_too_many_pixels", "65,500"
    bomb = JPEG_START + frame(65_535, 65_535, 0xC2) + scan() + EOI
    yield "JPEG bomb", bomb, "image_too_many_pixels", "65535 × 65535"
    above = JPEG_START + frame(14_351, 12_471) + scan() + EOI
    yield "one row above what Pillow opens", above, "image_too_many_pixels", "178 megapixels"
    phone = JPEG_START + frame(16_320, 12_240, components=3) + scan() + EOI
    yield "a phone's 200 megapixels", phone, "image_too_many_pixels", "fewer megapixels"


def _broken_pngs() -> Iterator[tuple[str, bytes, str, str]]:
    code = "image_unreadable"
    whole = png()
    first, data = header(5, 5), pixels(5, 5)
    bomb = hand_made_png(header(50_000, 50_000), pixels(5, 5), IEND)
    yield "PNG bomb", bomb, "image_too_many_pixels", "50000 × 50000"
    frames = saved(photo(), "PNG", save_all=True, append_images=[photo(seed=1), photo(seed=2)])
    yield "animated PNG", frames, "image_animated", "animated"
    yield "half a PNG", whole[: len(whole) // 2], code, "cut off"
    yield "without its end", whole[:-12], code, "cut off"
    middle = len(whole) // 2
    yield (
        "a byte changed",
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        code,
        "checksum",
    )
    yield "in text mode", whole.replace(b"\r\n", b"\n"), code, "text mode"
    yield "palette missing", hand_made_png(header(5, 5, colour=3), pixels(5, 5, 1), IEND), code, "palette"
    short = chunk(b"PLTE", bytes(4))
    yield "half a palette", hand_made_png(header(5, 5, colour=3), short, data, IEND), code, "palette"
    yield "without data", hand_made_png(first, IEND), code, "too little"
    yield "without enough data", hand_made_png(header(9_000, 9_000), data, IEND), code, "too little"
    yield "data before the header", hand_made_png(data, first, IEND), code, "begin with its header"
    yield "two headers", hand_made_png(first, first, data, IEND), code, "unknown type"
    yield (
        "an unknown part that matters",
        hand_made_png(first, chunk(b"ABCD"), data, IEND),
        code,
        "unknown type",
    )
    between = hand_made_png(first, data, chunk(b"tEXt", b"a\0b"), data, IEND)
    yield "data in two places", between, code, "in pieces"
    yield "of three bits", hand_made_png(header(5, 5, depth=3), data, IEND), code, "is invalid"
    yield "RGB of four bits", hand_made_png(header(5, 5, depth=4), data, IEND), code, "is invalid"
    yield "of unknown colour", hand_made_png(header(5, 5, colour=5), data, IEND), code, "is invalid"
    yield "of unknown interlacing", hand_made_png(header(5, 5, interlace=2), data, IEND), code, "is invalid"
    yield "PNG without width", hand_made_png(header(0, 5), data, IEND), code, "0 pixels"
    yield "a chunk of 4 GB", hand_made_png(first) + b"\xff\xff\xff\xffIDAT" + bytes(99), code, "follow"
    yield "a chunk of 2 GB", hand_made_png(first) + b"\x7f\xff\xff\xffIDAT" + bytes(99), code, "cut off"
    yield "zeros after the header", hand_made_png(first) + bytes(5_000), code, "follow"
    empty = hand_made_png(first, chunk(b"tEXt") * 100_000, data, IEND)
    yield "too many chunks", empty, code, "pieces"
