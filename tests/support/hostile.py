"""Files that phones, editors, broken uploads and people with bad intentions produce, beside those in pictures.py.

Each comes with the verdict that it must get: `jpg` or `png`, published as it is; or a code, and what the words must say.
"""

import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.support.pictures import (
    EOI,
    IEND,
    JPEG_START,
    PNG_SIGNATURE,
    SOI,
    chunk,
    frame,
    hand_made_png,
    header,
    jpeg,
    photo,
    pixels,
    png,
    saved,
    scan,
    segment,
)

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_START = JPEG_START + frame(8, 8)
_NOISE = random.Random(5).randbytes(4_000)
_VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + _NOISE


def ordinary() -> Iterator[tuple[str, bytes, str]]:
    """What is accepted and opens everywhere: name, bytes, what it is."""
    yield from _ordinary_jpegs()
    yield from _ordinary_pngs()


def odd() -> Iterator[tuple[str, bytes, str]]:
    """What is accepted once it is cleaned: what is odd about it goes."""
    whole = jpeg()
    quantization = whole.index(b"\xff\xdb")
    yield "garbage between two segments", whole[:quantization] + b"\0garbage\0" + whole[quantization:], "jpg"
    yield "height said twice", _START + scan() + segment(0xDC, b"\0\x08") + EOI, "jpg"
    yield "lone markers", _START + b"\xff\x01" * 500 + scan() + EOI, "jpg"
    yield (
        "thousands of restarts",
        _START + segment(0xDD, b"\0\1") + scan(b"U\xff\xd0U\xff\xd1" * 50_000) + EOI,
        "jpg",
    )
    yield "filled data", _START + scan(b"U\xff\xff\xff\x00U") + EOI, "jpg"
    yield "cut off, and closed by a repair program", whole[: len(whole) * 3 // 4] + EOI, "jpg"
    bomb = chunk(b"iCCP", b"bomb\0\0" + zlib.compress(bytes(20_000_000)))
    yield "profile bomb", hand_made_png(header(5, 5), bomb, pixels(5, 5), IEND), "png"
    yield "many small chunks", hand_made_png(header(5, 5), chunk(b"tEXt") * 19_000, pixels(5, 5), IEND), "png"
    yield (
        "an end with something in it",
        hand_made_png(header(5, 5), pixels(5, 5), chunk(b"IEND", b"x")),
        "png",
    )
    yield "animated behind its end", png() + chunk(b"acTL", bytes(8)) + chunk(b"fcTL", bytes(26)), "png"


def refused() -> Iterator[tuple[str, bytes, str, str]]:
    """What is refused: name, bytes, code, and what the words must say."""
    for name, content, words in _other_formats():
        yield name, content, "image_not_jpeg_or_png", words
    for name, content, words in (*_broken_jpegs(), *_broken_pngs()):
        yield name, content, "image_unreadable", words
    many = "image_too_many_pixels"
    yield "JPEG of 251 megapixels", JPEG_START + frame(25_100, 10_000) + scan() + EOI, many, "25100 × 10000"
    yield "PNG of 251 megapixels", hand_made_png(header(25_100, 10_000)), many, "25100 × 10000"
    yield "arithmetic bomb", JPEG_START + frame(65_535, 65_535, 0xCA) + scan() + EOI, many, "65535"
    yield "the largest PNG", hand_made_png(header(2**31 - 1, 2**31 - 1)), many, "2147483647"
    yield "a PNG that is all width", hand_made_png(header(2**32 - 1, 1, 1, 0)), many, "4294967295"
    yield "a PNG of 800 MB", hand_made_png(header(10_000, 10_000, 16, 6), pixels(5, 5), IEND), many, "600 MB"
    first, data, moving = header(5, 5), pixels(5, 5), "image_animated"
    one_frame = chunk(b"acTL", b"\0\0\0\1" + bytes(4))
    yield "animated, of one frame", hand_made_png(first, one_frame, data, IEND), moving, "still"
    comments = chunk(b"tEXt", b"a\0b") * 9
    yield "animated, said late", hand_made_png(first, comments, one_frame, data, IEND), moving, "still"


def a_phones_photo() -> bytes:
    """A JPEG with all that phones put in: previews with ends of their own, maps, proofs, and a video behind it."""
    preview = jpeg(seed=8, size=(32, 24))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x927C] = 6, "Phone", b"Apple iOS\0" + EOI + preview
    whole = saved(photo(), "MPO", exif=exif.tobytes() + preview, save_all=True, append_images=[photo(seed=4)])
    parts = [
        segment(0xE0, b"JFXX\0\x10" + preview),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta GCamera:MotionPhoto='1'/>"),
        segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(9)),
        segment(0xE2, b"FPXR\0" + preview),
        segment(0xEB, b"JP" + struct.pack(">HI", 1, 1) + b"\0\0\0\x20jumbc2pa" + EOI * 20),
        segment(0xED, b"Photoshop 3.0\x008BIM" + preview),
        segment(0xFE, preview),
    ]
    return whole[:2] + b"".join(parts) + whole[2:] + _VIDEO + b"SEFH" + bytes(20) + b"SEFT"


def _ordinary_jpegs() -> Iterator[tuple[str, bytes, str]]:
    whole = jpeg()
    four = saved(photo("CMYK"))
    adobe = four.index(b"Adobe") + len(b"Adobe") + 6  # where it says how the colours are meant
    yield "YCCK", four[:adobe] + b"\2" + four[adobe + 1 :], "jpg"
    three = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    yield "RGB as it is", whole[:2] + three + whole[2:], "jpg"
    yield "a phone's photo", a_phones_photo(), "jpg"
    start = JPEG_START + frame(8, 8, 0xCA)
    yield "arithmetic and progressive", start + scan(last=0) + EOI, "jpg"
    layers = JPEG_START + frame(8, 8, 0xC2) + (scan(last=0) + segment(0xFE, EOI * 9)) * 100 + EOI
    yield "comments between scans", layers, "jpg"
    yield "progressive, with restarts", saved(photo(), progressive=True, restart_marker_blocks=2), "jpg"
    yield "grey and progressive", saved(photo("L"), progressive=True), "jpg"
    for sampling in range(3):
        yield f"subsampling {sampling}", saved(photo(), subsampling=sampling), "jpg"
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"orientation {turn}", saved(photo(), exif=exif), "jpg"
    yield "tall", jpeg(size=(1, 5_000)), "jpg"
    yield "wide", jpeg(size=(60_000, 1)), "jpg"
    yield "a gain map behind it", whole + jpeg(3), "jpg"
    yield "a video behind it", whole + _VIDEO, "jpg"
    yield "a PNG behind it", whole + png(), "jpg"
    yield "a GIF behind it", whole + b"GIF89a" + _NOISE, "jpg"
    yield "an archive behind it", whole + b"Rar!\x1a\7\0" + _NOISE, "jpg"
    yield "a program behind it", whole + b"MZ" + _NOISE, "jpg"
    yield "a script behind it", whole + b"<?php system($_GET[0]); ?>", "jpg"
    yield "padded with zeros", whole + bytes(4_096), "jpg"
    yield "padded with ones", whole + b"\xff" * 4_096, "jpg"
    yield "half of itself behind it", whole + whole[: len(whole) // 2], "jpg"
    yield "a GIF in its comment", whole[:2] + segment(0xFE, b"GIF89a" + _NOISE) + whole[2:], "jpg"


def _ordinary_pngs() -> Iterator[tuple[str, bytes, str]]:
    for colour, depths in _DEPTHS.items():
        for depth in depths:
            for interlace in (0, 1):
                name = f"PNG of type {colour} in {depth} bits{', interlaced' * interlace}"
                yield name, drawn(colour, depth, interlace), "png"
    first, data = header(5, 5), pixels(5, 5)
    told = (
        chunk(b"gAMA", struct.pack(">I", 45455)),
        chunk(b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000])),
        chunk(b"sBIT", b"\x08\x08\x08"),
        chunk(b"sRGB", b"\0"),
        chunk(b"pHYs", struct.pack(">IIB", 5669, 5669, 1)),
        chunk(b"tIME", struct.pack(">HBBBBB", 2026, 11, 22, 1, 2, 3)),
        chunk(b"bKGD", bytes(6)),
        chunk(b"tRNS", bytes(6)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta/>"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"<script>alert(1)</script>")),
        chunk(b"iDOT", bytes(28)),  # of screenshots on a Mac or an iPhone
        chunk(b"prVW", _NOISE * 100),
        chunk(b"caBX", b"jumbc2pa" + IEND),
        chunk(b"cICP", b"\x01\x0d\0\1"),
    )
    yield "PNG that says all about itself", hand_made_png(first, *told, data, IEND), "png"
    empty = chunk(b"IDAT")
    yield "PNG with empty pieces", hand_made_png(first, empty, data, empty, empty, IEND), "png"
    yield "PNG that ends with its comments", hand_made_png(first, data, *told[5:6], told[8], IEND), "png"
    yield "PNG with an archive behind it", png() + b"PK\3\4" + _NOISE, "png"
    yield "PNG with a JPEG behind it", png() + jpeg(), "png"
    yield "PNG with another behind it", png() + png(2), "png"
    yield "PNG with a page in it", png()[:-12] + chunk(b"tEXt", b"a\0<html><script>") + IEND, "png"


def drawn(colour: int, depth: int, interlace: int, width: int = 13, height: int = 11) -> bytes:
    """A PNG with the right number of bytes for every kind of pixel, in one pass or in Adam7's seven."""
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    raw = b""
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            raw += (b"\0" + bytes(-(-columns * depth * _CHANNELS[colour] // 8))) * rows
    palette = [chunk(b"PLTE", bytes(3 * 2 ** min(depth, 4)))] if colour == 3 else []
    data = chunk(b"IDAT", zlib.compress(raw))
    return hand_made_png(header(width, height, depth, colour, interlace), *palette, data, IEND)


def _other_formats() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and words of what is neither a JPEG nor a PNG, whatever else it is."""
    yield "HEIC burst", b"\0\0\0\x1cftyphevc\0\0\0\0mif1hevcmsf1" + _NOISE, "Most Compatible"
    yield "HEIC of ten bits", b"\0\0\0\x18ftypheix\0\0\0\0mif1heix" + _NOISE, "Most Compatible"
    yield "HEIC of another phone", b"\0\0\0\x24ftypmif1\0\0\0\0mif1miafMiHBheic" + _NOISE, "Most Compatible"
    yield "moving AVIF", b"\0\0\0\x1cftypavis\0\0\0\0avismsf1miaf" + _NOISE, "AVIF"
    yield "AVIF by its second brand", b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf" + _NOISE, "AVIF"
    frames = [photo(seed=1), photo(seed=2)]
    yield "moving WebP", saved(photo(), "WEBP", save_all=True, append_images=frames), "WebP"
    yield "WebP without loss", saved(photo(), "WEBP", lossless=True), "WebP"
    yield "moving GIF", saved(photo("P"), "GIF", save_all=True, append_images=frames), "GIF"
    yield "GIF and JPEG at once", b"GIF89a" + struct.pack("<HH", 0xFFD8, 0xFFE0) + jpeg(), "GIF"
    yield "TIFF the other way round", b"MM\0*\0\0\0\x08" + _NOISE, "TIFF"
    yield "raw of a Panasonic", b"IIU\0\x18\0\0\0" + _NOISE, "raw"
    yield "raw of a Fuji", b"FUJIFILMCCD-RAW 0201" + jpeg(), "raw"
    yield "PDF after a blank line", b"\r\n%PDF-1.4\n" + jpeg(), "PDF"
    yield "video before a JPEG", _VIDEO + jpeg(), "video"
    yield "3GP", b"\0\0\0\x18ftyp3gp4" + _NOISE, "video"
    yield "QuickTime without a type", b"\0\0\x02\0moov\0\0\0\x6cmvhd" + _NOISE, "video"
    yield "WebM", b"\x1aE\xdf\xa3\x9fB\x86\x81\1" + _NOISE, "video"
    yield "AVI", b"RIFF\0\0\1\0AVI LIST" + _NOISE, "video"
    yield "ZIP and JPEG at once", b"PK\3\4" + jpeg(), "archive"
    yield "an empty ZIP", b"PK\5\6" + bytes(18), "archive"
    yield "RAR", b"Rar!\x1a\7\1\0" + _NOISE, "archive"
    yield "7-Zip", b"7z\xbc\xaf\x27\x1c" + _NOISE, "archive"
    yield "a gzipped JPEG", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + zlib.compress(jpeg()), "archive"
    yield "SVG with a prologue", b"\xef\xbb\xbf<?xml version='1.0'?><!-- x --><!DOCTYPE svg><svg/>", "SVG"
    yield "SVG with a script", b"  <SVG onload='alert(1)'><script/></SVG>", "SVG"
    yield "a page with a mark before it", b"\xef\xbb\xbf \n<HTML><body>" + jpeg(), "web page"
    yield "a page that is a script", b"<script>fetch('//x')</script>" + jpeg(), "web page"
    yield "an error of the bucket", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "text"
    yield "an error in JSON", b'{"statusCode":"404","error":"not_found","message":"Object not found"}', "text"
    yield "a form", b"------WebKitFormBoundaryX\r\nContent-Type: image/jpeg\r\n\r\n" + b"x" * 600, "a form"
    yield "text in Chinese", "照片在哪里？\n".encode() * 90, "text"
    yield "a PNG in base64", b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", "base64"
    yield "a PNG as a URL", b"data:image/png;base64,iVBORw0KGgo", "base64"
    yield "a photo in hexadecimal", jpeg().hex().encode(), "text"
    yield "one zero", b"\0", "zeros"
    yield "a megabyte of zeros", bytes(1_000_000), "zeros"
    for name, start in {
        "noise": b"\x93" + _NOISE[:99], "text in UTF-16": b"\xff\xfe" + "photo".encode("utf-16-le"),
        "MNG": b"\x8aMNG\r\n\x1a\n", "JNG": b"\x8bJNG\r\n\x1a\n", "icons of a Mac": b"icns\0\0\1\0", "QOI": b"qoif\0\0\0\1",
        "PPM": b"P6\n8 8\n255\n\0", "EXR": b"v/1\1\2\0\0\0", "GIMP": b"gimp xcf v011\0", "DjVu": b"AT&TFORM\0\0\1\0DJVU",
        "DICOM": bytes(128) + b"DICM\2\0", "program of Windows": b"MZ\x90\0\3\0", "program of Linux": b"\x7fELF\2\1\1\0",
        "SQLite": b"SQLite format 3\0", "sound": b"ID3\4\0\0\0\0\0\0", "AppleDouble": b"\0\5\x16\7\0\2\0\0",
        "JPEG without its first byte": jpeg()[1:], "JPEG without its first two": jpeg()[2:],
        "JPEG after a zero": b"\0" + jpeg(),
        "PNG after a space": b" " + png() + bytes(600),
        "JPEG of 16-bit units": bytes(2) + jpeg()[::-1], "a start marker and a PNG": SOI + png(),
    }.items():  # fmt: skip
        yield name, start + _NOISE[:900], "neither a JPG nor a PNG"


def _broken_jpegs() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and words."""
    whole, other = jpeg(), jpeg(7)
    half, scans = len(whole) // 2, whole.rindex(b"\xff\xda")
    sof = whole.index(b"\xff\xc0")
    yield "JPEG of two bytes", b"\xff\xd8", "cut off"
    yield "JPEG of three bytes", b"\xff\xd8\xff", "cut off"
    yield "without its last byte", whole[:-1], "cut off"
    yield "without its end", whole[:-2], "cut off"
    yield "without its end, but a video behind it", whole[:-2] + _VIDEO.replace(b"\xff", b"\xfe"), "cut off"
    yield "cut off, the rest zeros", whole[:half] + bytes(len(whole) - half), "cut off"
    yield "cut off, the rest ones", whole[:half] + b"\xff" * (len(whole) - half), "cut off"
    yield "cut off, many ones behind it", whole[:half] + b"\xff" * 5_000, "mean nothing"
    yield "cut off in its data, then another", whole[: scans + 99] + other, "marker D8"
    yield "cut off before its data, and closed", whole[:scans] + EOI, "no picture"
    yield "closed before its data", whole[:scans] + EOI + whole[scans:], "no picture"
    yield "begun twice", JPEG_START + whole, "marker D8"
    yield "a part of length 1", _START + b"\xff\xfe\0\1" + scan() + EOI, "no length"
    yield (
        "a part that swallows the header",
        JPEG_START + b"\xff\xe0\0\x0f" + frame(8, 8) + scan() + EOI,
        "header",
    )
    yield "a part that swallows the end", whole[:2] + b"\xff\xfe\xff\xff" + whole[2:], "cut off"
    yield "a header longer than it says", whole[: sof + 3] + b"\x08" + whole[sof + 4 :], "wrong length"
    yield "a header of 64 KB", JPEG_START + b"\xff\xc0\xff\xff" + bytes(70_000) + EOI, "wrong length"
    miscounted = frame(8, 8).replace(b"\1\1\x11", b"\3\1\x11")
    yield "a header that counts wrongly", JPEG_START + miscounted + scan() + EOI, "is invalid"
    unsampled = frame(8, 8).replace(b"\1\x11", b"\1\0")
    yield "a header that samples nothing", JPEG_START + unsampled + scan() + EOI, "is invalid"
    yield "a scan of no components", _START + segment(0xDA, bytes(4)) + b"U" + EOI, "wrong length"
    yield (
        "a scan that counts wrongly",
        _START + segment(0xDA, bytes((2, 1, 0, 0, 63, 0))) + b"U" + EOI,
        "is invalid",
    )
    yield "a scan of 64 KB", _START + b"\xff\xda\xff\xff" + bytes(70_000) + EOI, "wrong length"
    yield (
        "a height that comes late",
        JPEG_START + frame(8, 0) + scan() + segment(0xDC, b"\0\x08") + EOI,
        "0 pixels",
    )
    for marker in (0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
        yield f"frame {marker:02X}", JPEG_START + frame(8, 8, marker) + scan() + EOI, "rare kind"
    for marker in (0x02, 0xBF, 0xC8, 0xD8, 0xDF, 0xF0, 0xFD):
        yield f"marker {marker:02X}", _START + segment(marker, b"x") + scan() + EOI, f"marker {marker:02X}"
    yield "tables alone", JPEG_START + whole[whole.index(b"\xff\xdb") : sof] + EOI, "no picture"
    yield "a thumbnail alone, cut off", JPEG_START + segment(0xE1, b"Exif\0\0" + whole), "cut off"


def _broken_pngs() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and words."""
    whole, first, data = png(), header(5, 5), pixels(5, 5)
    yield "PNG of one byte", whole[:1], "cut off"
    yield "a signature alone", PNG_SIGNATURE, "cut off"
    yield "a signature and a JPEG", PNG_SIGNATURE + jpeg(), "damaged"
    yield "PNG without its last byte", whole[:-1], "cut off"
    yield "PNG cut off, the rest zeros", whole[: len(whole) // 2] + bytes(len(whole)), "damaged"
    yield "PNG without its end, a video behind it", whole[:-12] + _VIDEO, "damaged"
    yield "PNG through a mail of seven bits", bytes(byte & 0x7F for byte in whole), "transfer in text mode"
    for name, part in {
        "header": first,
        "data": data,
        "end": IEND,
        "comment": chunk(b"tEXt", b"a\0b"),
    }.items():
        wrong = part[:-1] + bytes([part[-1] ^ 1])
        parts = {"header": first, "comment": b"", "data": data, "end": IEND} | {name: wrong}
        yield f"PNG with a wrong checksum in its {name}", hand_made_png(*parts.values()), "checksum"
    for by in (1, -1):
        lying = struct.pack(">I", len(data) - 12 + by) + data[4:]
        yield f"PNG whose data is {-by:+} long", hand_made_png(first, lying, IEND), "checksum"
    yield (
        "a header of 14 bytes",
        hand_made_png(chunk(b"IHDR", bytes(14)), data, IEND),
        "begin with its header",
    )
    yield "a header of none", hand_made_png(chunk(b"IHDR"), data, IEND), "begin with its header"
    yield (
        "an app's own PNG",
        hand_made_png(chunk(b"CgBI", bytes(4)), first, data, IEND),
        "begin with its header",
    )
    for place, name in enumerate(("compression", "filter")):
        body = bytearray(first[8:-4])
        body[10 + place] = 1
        yield f"an unknown {name}", hand_made_png(chunk(b"IHDR", bytes(body)), data, IEND), "is invalid"
    yield "a part whose name is no name", hand_made_png(first, chunk(b"ID4T", b"x"), data, IEND), "follow"
    yield "a part of NULs", hand_made_png(first, chunk(bytes(4), b"x"), data, IEND), "follow"
    yield "data by another name", hand_made_png(first, chunk(b"IDAt", data[8:-4]), IEND), "unknown type"
    yield "the end before the data", hand_made_png(first, IEND, data), "too little"
    yield "empty data", hand_made_png(first, chunk(b"IDAT") * 9, IEND), "is missing"
    blown = chunk(b"IDAT", zlib.compress(bytes(20_000_000)))
    yield "more data than pixels", hand_made_png(first, blown, IEND), "more in it"
    yield "a byte behind its data", hand_made_png(first, _longer(data), IEND), "more in it"
    rows = chunk(b"IDAT", zlib.compress(b"\5" + bytes(79)))
    yield "a filter that does not exist", hand_made_png(first, rows, IEND), "rows are invalid"
    yield "data that is no data", hand_made_png(first, chunk(b"IDAT", b"x" * 30), IEND), "unpacked"
    yield "a row too few", hand_made_png(header(5, 6), data, IEND), "too little"
    adler = chunk(b"IDAT", data[8:-5] + bytes([data[-5] ^ 1]))
    yield "a wrong sum of its data", hand_made_png(first, adler, IEND), "unpacked"
    cut = chunk(b"IDAT", data[8:-6])
    yield "data without its end", hand_made_png(first, cut, IEND), "is missing"
    paletted, entry = header(5, 5, colour=3), chunk(b"PLTE", bytes(3))
    yield "a palette behind the data", hand_made_png(paletted, pixels(5, 5, 1), entry, IEND), "palette"
    yield "an empty palette", hand_made_png(paletted, chunk(b"PLTE"), pixels(5, 5, 1), IEND), "palette"
    wide = chunk(b"PLTE", bytes(3 * 257))
    yield "a palette of 257", hand_made_png(paletted, wide, pixels(5, 5, 1), IEND), "palette"
    yield "millions of parts", hand_made_png(first, chunk(b"tEXt") * 200_000), "pieces"


def _longer(data: bytes) -> bytes:
    """A data chunk with a byte behind its stream."""
    return chunk(b"IDAT", data[8:-4] + b"x")
