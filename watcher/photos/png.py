"""Checks a PNG while it streams, and cleans it: its picture and what decides its colours are published, nothing else.

The picture is inflated to see that all of it is there, in threads, and thrown away.
"""

import struct
import zlib
from typing import Final

from watcher.photos import exif
from watcher.photos.png_metadata import MAX_HELD, READ, Metadata
from watcher.photos.png_pixels import Pixels
from watcher.photos.refusals import InvalidImage, check_size, damaged
from watcher.photos.stream import Parser, Stream, pause

START: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 20_000
"""Programs write up to 400."""
_PAUSE: Final = 500
_DEPTHS: Final = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
_PALETTED: Final = 3


class Png:
    """One PNG, whose signature has been read."""

    def __init__(self, stream: Stream, *, clean: bool) -> None:
        """`clean`: the metadata is not published, so that it need not be checked."""
        self._stream = stream
        self._clean = clean
        self._told: int | None = None  # the orientation that has been published
        self._data_began = self._data_ended = False

    def read(self) -> Parser[None]:
        """Read up to the end chunk; raises InvalidImage."""
        yield from self._header()
        for number in range(1, MAX_CHUNKS + 1):
            size, name = yield from self._head()
            if name == b"IEND":
                return (yield from self._end(size))
            yield from self._chunk(size, name)
            if number % _PAUSE == 0:
                yield pause
        raise damaged(f"it is in more than {MAX_CHUNKS:,} pieces")

    def _header(self) -> Parser[None]:
        size, name = yield from self._head()
        if (size, name) != (13, b"IHDR"):
            raise damaged("it does not begin with its header")
        header = yield from self._stream.take(13)
        yield from self._checksum(zlib.crc32(header, zlib.crc32(name)))
        width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
        if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
            raise damaged("its header is invalid")
        check_size(width, height)
        self._colour = colour
        self._pixels = Pixels(width, height, depth, colour, interlaced=bool(interlace))
        self._metadata = Metadata(colour, clean=self._clean)
        self._stream.publish(START)
        self._publish(name, header)

    def _chunk(self, size: int, name: bytes) -> Parser[None]:
        """Read one chunk that is neither the first nor the last."""
        if name == b"IDAT":
            return (yield from self._data(size))
        self._data_ended |= self._data_began
        if name == b"acTL" and not self._data_began:
            raise InvalidImage(
                "image_animated", "is an animated PNG; save one still picture of it as JPG or PNG"
            )
        if name[:1].isupper() and name != b"PLTE":
            raise damaged("it has a required part of an unknown type")
        held = min(size, MAX_HELD) if name in READ else 0
        body = yield from self._stream.take(held)
        crc = yield from self._stream.skip(size - held, zlib.crc32(body, zlib.crc32(name)))
        yield from self._checksum(crc)
        if name in READ:
            kept = yield from self._metadata.read(name, body, size)
            if kept is not None:
                self._publish(name, kept)

    def _data(self, size: int) -> Parser[None]:
        """Read and publish a chunk of the picture."""
        if self._data_ended:
            raise damaged("its picture is in pieces")
        if not self._data_began:
            if self._colour == _PALETTED and not self._metadata.has_palette:
                raise damaged("its palette is missing")
            self._data_began = True
            self._publish_orientation()
        self._stream.publish(struct.pack(">I4s", size, b"IDAT"))
        crc = zlib.crc32(b"IDAT")
        for part in self._stream.parts(size):
            if part is None:
                yield None
            else:
                crc = zlib.crc32(part, crc)
                self._stream.publish(part)
                yield from self._pixels.feed(part)
        yield from self._checksum(crc)
        self._stream.publish(struct.pack(">I", crc))

    def _end(self, size: int) -> Parser[None]:
        crc = yield from self._stream.skip(size, zlib.crc32(b"IEND"))
        yield from self._checksum(crc)
        if not self._data_began:
            raise damaged("there is too little in it for a picture of its size")
        yield from self._pixels.finish()
        self._publish_orientation()
        self._publish(b"IEND", b"")

    def _publish_orientation(self) -> None:
        """Publish the orientation, if it has not been: before the picture where it is known, else behind it."""
        found = self._metadata.orientation
        if found and found != self._told:
            self._publish(b"eXIf", exif.tiff_with(found))
            self._told = found

    def _publish(self, name: bytes, body: bytes) -> None:
        crc = zlib.crc32(body, zlib.crc32(name))
        self._stream.publish(struct.pack(">I4s", len(body), name) + body + struct.pack(">I", crc))

    def _head(self) -> Parser[tuple[int, bytes]]:
        head = yield from self._stream.take(8)
        size, name = int.from_bytes(head[:4]), head[4:]
        if size >= 1 << 31 or not name.isalpha():
            raise damaged("its parts do not follow each other")
        return size, name

    def _checksum(self, crc: int) -> Parser[None]:
        stored = yield from self._stream.take(4)
        if int.from_bytes(stored) != crc:
            raise damaged("a checksum in it does not match")
