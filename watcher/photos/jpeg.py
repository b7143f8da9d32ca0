"""Checks a JPEG while it streams, and cleans it: what decoding needs is published, and the orientation; nothing else.

The data of the scans is not decoded: whatever is in it, libjpeg makes pixels of it.
"""

import struct
from typing import Final

from watcher.photos import exif
from watcher.photos.jpeg_headers import FRAMES, RARE_FRAMES, Frame, Tables, check_scan, rare, read_frame
from watcher.photos.jpeg_metadata import check_exif, check_metadata
from watcher.photos.refusals import damaged, unreadable
from watcher.photos.stream import Parser, Stream, pause

START: Final = b"\xff\xd8"
MAX_SEGMENTS: Final = 2_000
"""Cameras write up to 31, and 11 scans."""
_MAX_SCANS: Final = 100
_MAX_WORK: Final = 64_000_000 * _MAX_SCANS
"""Scans times pixels: about two seconds for a decoder, which visits every pixel in every scan."""
_PAUSE: Final = 500
_MAX_EXIF: Final = 2**18

_TEM, _SOI, _EOI, _SOS, _DQT, _DNL, _DRI, _COM = 0x01, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE
_DHT, _DAC = 0xC4, 0xCC
_APP0, _APP1, _APP2, _APP13, _APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_TABLES: Final = frozenset({_DQT, _DHT, _DAC, _DRI})
_LEFT_OUT: Final = frozenset({_DNL, _COM, *range(0xE0, 0xF0)})

_JFIF, _ADOBE, _PROFILE = b"JFIF\0", b"Adobe", b"ICC_PROFILE\0"
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JFIF_SIZE, _ADOBE_SIZE = 14, 12


class Jpeg:
    """One JPEG, whose start marker has been read."""

    def __init__(self, stream: Stream, *, clean: bool) -> None:
        """`clean`: the metadata is not published, so that it need not be checked."""
        self._stream = stream
        self._clean = clean
        self._frame: Frame | None = None
        self._tables = Tables()
        self._scans = 0
        self._is_whole = False
        self._exif: bytes | None = None
        self._xmp: bytes | None = None

    def read(self) -> Parser[None]:
        """Read up to the end marker; raises InvalidImage."""
        self._stream.publish(START)
        marker = yield from self._stream.marker()
        for number in range(1, MAX_SEGMENTS + 1):
            if marker == _EOI:
                return self._end()
            marker = (yield from self._segment(marker)) or (yield from self._stream.marker())
            if number % _PAUSE == 0:
                yield pause
        raise damaged(f"it is in more than {MAX_SEGMENTS:,} pieces")

    def _end(self) -> None:
        if not self._scans:
            raise damaged("there is no picture in it")
        self._stream.publish(b"\xff\xd9")

    def _segment(self, marker: int) -> Parser[int | None]:
        """Read one segment; returns the marker behind it where that is known, as behind a scan."""
        if marker == _TEM and self._clean and not self._scans:
            return None  # inside a scan, decoders differ in what they make of it
        if marker in RARE_FRAMES:
            raise rare()
        if marker not in FRAMES | _TABLES | _LEFT_OUT | {_SOS}:
            raise damaged(f"marker {marker:02X} does not belong there")
        size = int.from_bytes((yield from self._stream.take(2))) - 2
        if size < 0:
            raise damaged("one of its parts has no length")
        if marker in _LEFT_OUT and (self._scans or marker in {_DNL, _COM}):
            yield from self._stream.skip(size)
            return None
        body = yield from self._stream.take(size)
        if marker == _SOS:
            return (yield from self._scan(body))
        if marker in _LEFT_OUT:
            self._metadata(marker, body)
        else:
            self._define(marker, body)
        return None

    def _define(self, marker: int, body: bytes) -> None:
        """Read a frame header or tables, and publish them."""
        if marker == _DQT:
            self._tables.read_dqt(body)
        elif marker == _DHT:
            self._tables.read_dht(body)
        elif marker == _DAC:
            self._tables.read_dac(body)
        elif marker == _DRI:
            if len(body) != 2:
                raise damaged("its restart interval has a wrong length")
        elif self._frame:
            raise damaged("it has two headers")
        else:
            self._frame = read_frame(marker, body)
        self._publish(marker, body)

    def _scan(self, body: bytes) -> Parser[int]:
        if self._frame is None:
            raise damaged("its header is missing")
        check_scan(body, self._frame, self._tables)
        if not self._scans:
            self._publish_orientation()
        if self._is_whole:  # libjpeg fails on a scan behind one that had everything
            raise damaged("it has two pictures in one")
        self._is_whole = not self._frame.progressive and body[0] == len(self._frame.components)
        self._scans += 1
        if self._scans > _MAX_SCANS or self._scans * self._frame.pixels > _MAX_WORK:
            raise unreadable(
                f"is stored in more than {self._scans - 1} layers, which takes programs too long; save it as an "
                "ordinary JPG"
            )
        self._publish(_SOS, body)
        size, marker = yield from self._stream.scan()
        if not size:
            raise damaged("there is no picture in it")
        return marker

    def _metadata(self, marker: int, body: bytes) -> None:
        """Publish what of a segment before the first scan decides the colours, and keep what tells the orientation."""
        if not self._clean:
            check_metadata(marker & 15, body)
        if marker == _APP0 and body.startswith(_JFIF) and len(body) >= _JFIF_SIZE:
            # Whether it is there decides how the colours are read. Its last two bytes are the size of a thumbnail.
            self._publish(marker, body[: _JFIF_SIZE - 2] + bytes(2))
        elif marker == _APP14 and body.startswith(_ADOBE) and len(body) >= _ADOBE_SIZE:
            self._publish(marker, body[:_ADOBE_SIZE])
        elif marker == _APP2 and body.startswith(_PROFILE) and len(body) > len(_PROFILE) + 1:
            self._publish(marker, body)
        elif marker == _APP1 and body.startswith(_EXIF):
            self._join_exif(body)
        elif marker == _APP1 and body.startswith(_XMP):
            self._xmp = body[len(_XMP) :]

    def _join_exif(self, body: bytes) -> None:
        """Join several EXIF blocks to one, as Pillow does."""
        if self._exif is None:
            self._exif = body
        elif len(self._exif) < _MAX_EXIF:
            self._exif += body[len(_EXIF) :]

    def _publish_orientation(self) -> None:
        """Publish the orientation, right before the first scan: by then, all that may name it has been read."""
        if self._exif is not None and not self._clean:
            check_exif(self._exif)
        found = exif.orientation(self._exif, self._xmp)
        if found:
            self._publish(_APP1, _EXIF + exif.tiff_with(found))

    def _publish(self, marker: int, body: bytes) -> None:
        self._stream.publish(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)
