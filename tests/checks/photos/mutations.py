"""Damages an image: anywhere, in its parts, or in what the parts say, with checksums that match again."""

import random
import struct
import zlib
from collections.abc import Callable

from tests.support.pictures import PNG_SIGNATURE, chunk

Part = tuple[int, bytes]
"""A JPEG segment: its marker and what follows, headers' length fields left out; for a scan also its data."""


def damaged(image: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the image with one to three damages; `others` are images of the same format to take parts of."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        in_parts = _png_parts if image.startswith(PNG_SIGNATURE) else _jpeg_parts
        way = chance.choice((_bits, _bits, _cut, _bytes, in_parts, in_parts, in_parts, in_parts, in_parts))
        image = way(image, others, chance)
    return image


def _bits(image: bytes, _others: list[bytes], chance: random.Random) -> bytes:
    changed = bytearray(image)
    for _ in range(chance.randint(1, 6)):
        if changed:
            at = chance.randrange(len(changed))
            changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _bytes(image: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Remove, insert, overwrite or repeat a few bytes."""
    at = chance.randrange(len(image) + 1)
    size = chance.choice((1, 2, 4, 30, 600))
    other = chance.choice(others)
    start = chance.randrange(len(other))
    instead = chance.choice(
        (
            b"",
            bytes(size),
            b"\xff" * size,
            chance.randbytes(size),
            image[at : at + size] * 2,
            other[start : start + size],
        )
    )
    return image[:at] + instead + image[at + chance.choice((0, size)) :]


def _cut(image: bytes, _others: list[bytes], chance: random.Random) -> bytes:
    return image[: chance.randrange(len(image))] if chance.random() < 0.5 else image + chance.randbytes(40)


def jpeg_parts(image: bytes) -> list[Part]:
    """Take a whole JPEG apart as far as it is one, without its start marker."""
    parts: list[Part] = []
    at = 2
    while at + 4 <= len(image) and image[at] == 0xFF:
        marker, size = image[at + 1], int.from_bytes(image[at + 2 : at + 4])
        end = at + 2 + size
        if marker == 0xDA:
            while end < len(image) - 1 and not (
                image[end] == 0xFF and image[end + 1] not in {0, *range(0xD0, 0xD8)}
            ):
                end += 1
        parts.append((marker, image[at + 2 : end]))
        at = end
    parts.append((0, image[at:]))  # the end marker, and what is behind it
    return parts


def jpeg_of(parts: list[Part]) -> bytes:
    """Put a JPEG together again."""
    return b"\xff\xd8" + b"".join(bytes((0xFF, marker)) + body if marker else body for marker, body in parts)


def _jpeg_parts(image: bytes, others: list[bytes], chance: random.Random) -> bytes:
    parts = jpeg_parts(image)
    number = chance.randrange(len(parts))
    wanted = [
        one for one, (name, _) in enumerate(parts) if name in {0xC4, 0xDB, 0xDA, 0xC0, 0xC2, 0xE1, 0xEE, 0xDD}
    ]
    if wanted and chance.random() < 0.7:
        number = chance.choice(wanted)
    if not _shuffled(parts, number, chance):
        _jpeg_part(parts, number, jpeg_parts(chance.choice(others)), chance)
    return jpeg_of(parts)


def _shuffled(parts: list[Part], number: int, chance: random.Random) -> bool:
    """Remove, double or move a part; or do nothing and return False."""
    way = chance.randrange(8)
    if way == 0:
        parts.pop(number)
    elif way == 1:
        parts.insert(chance.randrange(len(parts) + 1), parts[number])
    elif way == 2:
        parts.insert(chance.randrange(len(parts)), parts.pop(number))
    return way < 3


def _jpeg_part(parts: list[Part], number: int, other: list[Part], chance: random.Random) -> None:
    marker, body = parts[number]
    ways: list[Callable[[], Part]] = [
        lambda: (
            marker,
            struct.pack(">H", (int.from_bytes(body[:2]) + chance.randint(-9, 9)) % 65_536) + body[2:],
        ),
        lambda: (marker, body[:2] + _bits(body[2:], [], chance)),
        lambda: (marker, body[:2] + _byte(body[2:], chance)),
        lambda: (
            chance.choice((marker ^ 1 << chance.randrange(5), 0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 1)),
            body,
        ),
        lambda: (marker, _resized(body[2:], chance)),
        lambda: chance.choice(other),
    ]
    if marker == 0xDA:
        ways += [lambda: (marker, _damaged_scan(body, chance))] * 3
    parts[number] = chance.choice(ways)()


def _byte(body: bytes, chance: random.Random) -> bytes:
    """Set one byte, of the first few as often as of all others."""
    if not body:
        return body
    at = chance.randrange(min(len(body), chance.choice((8, 20, len(body)))))
    return (
        body[:at]
        + bytes([chance.choice((0, 1, 2, 3, 4, 0x11, 0x22, 63, 64, 255, chance.randrange(256)))])
        + body[at + 1 :]
    )


def _resized(body: bytes, chance: random.Random) -> bytes:
    """Cut or lengthen a segment, so that its length is right again."""
    size = chance.randrange(len(body) + 9)
    changed = body[:size].ljust(size, b"\0")[:65_533]
    return struct.pack(">H", len(changed) + 2) + changed


def _damaged_scan(body: bytes, chance: random.Random) -> bytes:
    start = int.from_bytes(body[:2])
    data = body[start:]
    if not data:
        return body
    at = chance.randrange(len(data))
    size = chance.choice((1, 3, 20))
    with_markers = bytes(
        chance.choice((0xFF, 0, 0xD0, 0xD7, 0xD9, chance.randrange(256))) for _ in range(size)
    )
    instead = chance.choice((b"", bytes(size), chance.randbytes(size), with_markers, b"\xff" * size))
    return body[:start] + data[:at] + instead + data[at + size :]


def png_parts(image: bytes) -> list[tuple[bytes, bytes]]:
    """Take a PNG apart as far as it is one: names and contents."""
    parts = []
    at = 8
    while at + 12 <= len(image):
        size = int.from_bytes(image[at : at + 4])
        parts.append((image[at + 4 : at + 8], image[at + 8 : at + 8 + size]))
        at += 12 + size
    return parts


def _png_parts(image: bytes, others: list[bytes], chance: random.Random) -> bytes:
    parts = png_parts(image)
    if not parts:
        return image
    number = chance.randrange(len(parts))
    name, body = parts[number]
    way = chance.randrange(9)
    if way == 0:
        parts.pop(number)
    elif way == 1:
        parts.insert(chance.randrange(len(parts) + 1), parts[number])
    elif way == 2:
        parts.insert(chance.randrange(len(parts)), parts.pop(number))
    elif way == 3:
        parts.insert(
            chance.randrange(len(parts) + 1), chance.choice(png_parts(chance.choice(others)) or parts)
        )
    elif way == 4:
        parts.insert(chance.randrange(len(parts) + 1), _odd_chunk(chance))
    elif name == b"IDAT" and way < 7:
        parts[number] = (name, _other_rows(body, chance))
    else:
        parts[number] = (name, _changed(body, chance))
    return PNG_SIGNATURE + b"".join(chunk(one, content) for one, content in parts)


def _changed(body: bytes, chance: random.Random) -> bytes:
    size = chance.randrange(len(body) + 4)
    return chance.choice(
        (_bits(body, [], chance), _byte(body, chance), body[:size], body + chance.randbytes(3), b"")
    )


def _other_rows(body: bytes, chance: random.Random) -> bytes:
    """Pack the rows again, after a change to them."""
    try:
        rows = bytearray(zlib.decompress(body))
    except zlib.error:
        return _changed(body, chance)
    if rows and chance.random() < 0.6:
        rows[chance.choice((0, chance.randrange(len(rows))))] = chance.randrange(7)
    else:
        rows = (
            rows[: chance.randrange(len(rows) + 1)]
            if chance.random() < 0.5
            else rows + bytes(chance.randint(1, 200))
        )
    return zlib.compress(bytes(rows), chance.choice((0, 1, 9))) + chance.choice((b"", b"", b"x"))


_KEYS = (
    b"a",
    b"bbox",
    b"interlace",
    b"transparency",
    b"exif",
    b"Raw profile type exif",
    b"XML:com.adobe.xmp",
    b"",
)


def _odd_chunk(chance: random.Random) -> tuple[bytes, bytes]:
    """A chunk on which programs may fail."""
    key = chance.choice(_KEYS)
    bomb = zlib.compress(bytes(chance.choice((10, 2**20, 2**20 + 1, 3 * 2**20))))
    return chance.choice(
        (
            (b"tEXt", key + b"\0" + chance.randbytes(20)), (b"zTXt", key + b"\0" + bytes([chance.choice((0, 0, 1))]) + bomb),
            (b"iTXt", key + b"\0\1\0\0\0" + bomb), (b"iTXt", key + b"\0\0\0\0\0tiff:Orientation=\"3"),
            (b"iCCP", chance.choice((b"n\0\0" + bomb, b"n\0\1" + bomb, b"n", b"n\0", b""))),
            (b"acTL", struct.pack(">II", chance.randrange(3), 0)), (b"fcTL", bytes(chance.choice((26, 9)))),
            (b"fdAT", bytes(chance.choice((2, 9)))), (b"tRNS", bytes(chance.choice((0, 1, 2, 5, 6, 200, 256, 257, 300)))),
            (b"PLTE", bytes(chance.choice((0, 1, 3, 768, 771)))), (b"pHYs", bytes(chance.choice((0, 8, 9)))),
            (b"gAMA", bytes(chance.choice((0, 3, 4)))), (b"cHRM", bytes(chance.choice((0, 31, 32)))), (b"sRGB", b""),
            (b"eXIf", chance.randbytes(9)), (b"IDAT", chance.randbytes(9)), (b"teST", b""), (b"TEST", b""),
        )
    )  # fmt: skip
