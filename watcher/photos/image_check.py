"""Checks a JPEG or PNG while its bytes are streamed, and cleans it. Opens no file, and decodes no pixel.

What passes opens in Pillow at its defaults, as in the programs that train on it. What is published are the same pixels
without anything that tells of place, time, camera or person; or, if so configured, the bytes as they came. Only the
current chunk is held in memory, and of a PNG three MiB more. The time is linear in the image's length; that of a PNG also in
what its data inflates to.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from watcher.photos import jpeg, png
from watcher.photos.file_types import SIGNATURE_BYTES, describe
from watcher.photos.jpeg import Jpeg
from watcher.photos.png import Png
from watcher.photos.refusals import InvalidImage, cut_off, damaged, unreadable
from watcher.photos.stream import Parser, Step, Stream

Format = Literal["jpg", "png"]

_JPEG = jpeg.START + b"\xff"


class ImageCheck:
    """Checks one image, chunk by chunk. Not to be used further once a method has raised."""

    def __init__(self, *, clean: bool = True) -> None:
        """`clean`: publish no metadata; else every byte as it comes."""
        self._clean = clean
        self._stream = Stream()
        self._parser = _image(self._stream, clean=clean)
        self._format: Format | None = None
        self._came: list[bytes | memoryview] = []
        next(self._parser)

    def feed(self, chunk: bytes) -> Iterator[Step]:
        """Check the next bytes, of any number; yields work that takes long, to be run before the next is asked for.

        Raises InvalidImage as soon as the image is known to be invalid, as the work does.
        """
        if not self._clean:
            self._came.append(chunk)
        if self._format:
            return  # behind the end, where phones append a video
        self._stream.chunk = chunk
        self._stream.at = 0
        try:
            while (step := next(self._parser)) is not None:
                yield step
        except StopIteration as end:
            self._format = end.value

    def take(self) -> list[bytes | memoryview]:
        """Return the bytes to publish that have come since the last call."""
        taken = self._stream.published if self._clean else self._came
        self._stream.published, self._came = [], []
        return taken

    def finish(self) -> Format:
        """Return the format once all bytes are fed; raises InvalidImage if the image is incomplete."""
        if self._format is None:
            self._parser.throw(cut_off())
        assert self._format
        return self._format


def _image(stream: Stream, *, clean: bool) -> Parser[Format]:
    """Detect the format from the first bytes, and check the rest accordingly."""
    start = b""
    try:
        while len(start) < len(png.START):
            yield None
            start += stream.chunk
    except InvalidImage:  # from `finish`: there are no more bytes
        if not start:
            raise unreadable("is empty; upload it again") from None
        if start in {_JPEG[: len(start)], png.START[: len(start)]} or start.startswith(_JPEG):
            raise
        raise _other_format(start) from None
    stream.chunk, stream.at = start, 0
    if start.startswith(_JPEG):
        stream.at = len(jpeg.START)
        yield from Jpeg(stream, clean=clean).read()
        return "jpg"
    if start.startswith(png.START):
        stream.at = len(png.START)
        yield from Png(stream, clean=clean).read()
        return "png"
    with suppress(InvalidImage):
        while len(start) < SIGNATURE_BYTES:
            yield None
            start += stream.chunk
    raise _other_format(start)


def _other_format(start: bytes) -> InvalidImage:
    if start[1:4] == b"PNG":
        return damaged("it is a PNG whose first bytes were changed, as by a transfer in text mode")
    return InvalidImage("image_not_jpeg_or_png", describe(start))
