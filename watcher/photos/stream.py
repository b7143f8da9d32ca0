"""Reads an image while its bytes arrive, in chunks of any length, and collects those that are published.

A parser is a generator. It yields None when it needs the next chunk, and a function when there is work that takes long:
the caller runs it, in a thread if the event loop must not wait, before it goes on.
"""

import re
import zlib
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from watcher.photos.refusals import damaged

_T = TypeVar("_T")
Step = Callable[[], object]
Parser = Generator[Step | None, None, _T]

MAX_FILLING: Final = 4_096
"""Bytes without meaning between two JPEG markers: some cameras align segments, none with more than this."""

# FF00 is a data byte, FFD0 to FFD7 are restarts inside the data, and FF before a marker is filling.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_MARKER_OR_FILLING: Final = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_FILLING: Final = re.compile(rb"\xff+")
_DATA: Final = frozenset({0x00, *range(0xD0, 0xD8)})
"""What behind an FF makes it no marker."""


def pause() -> None:
    """Do nothing: yielded so that the event loop can do something else."""


def run(work: Callable[[], _T]) -> Parser[_T]:
    """Have the caller run `work`, and return its result."""
    results: list[_T] = []
    yield lambda: results.append(work())
    return results[0]


class Stream:
    """The current chunk, the position up to which it is read, and the bytes to publish."""

    def __init__(self) -> None:
        self.chunk = b""
        self.at = 0
        self.published: list[bytes | memoryview] = []

    def publish(self, data: bytes | memoryview) -> None:
        """Add bytes to those that are published."""
        self.published.append(data)

    def take(self, size: int) -> Parser[bytes]:
        """Read `size` bytes; for sizes that may be held in memory."""
        end = self.at + size
        if end <= len(self.chunk):
            taken, self.at = self.chunk[self.at : end], end
            return taken
        parts = bytearray(self.chunk[self.at :])
        while len(parts) < size:
            yield None
            self.at = min(size - len(parts), len(self.chunk))
            parts += memoryview(self.chunk)[: self.at]
        return bytes(parts)

    def parts(self, size: int) -> Generator[memoryview | None, None, None]:
        """Read `size` bytes in as many parts as the chunks give; yields each, and None when it needs the next chunk."""
        while size > 0:
            part = memoryview(self.chunk)[self.at : self.at + size]
            self.at += len(part)
            size -= len(part)
            if part:
                yield part
            if size:
                yield None

    def skip(self, size: int, crc: int = 0) -> Parser[int]:
        """Read `size` bytes and publish none; returns `crc` updated with them."""
        for part in self.parts(size):
            if part is None:
                yield None
            else:
                crc = zlib.crc32(part, crc)
        return crc

    def marker(self) -> Parser[int]:
        """Read up to the next JPEG marker, and return its code; raises InvalidImage if it is too far away."""
        skipped = 0
        while True:
            found = _MARKER.search(self.chunk, self.at)
            end = found.start() if found else self._end()
            skipped += end - self.at
            if skipped > MAX_FILLING:
                raise _filled()
            if found:
                self.at = found.end()
                return found[0][1]
            yield from self._next_from(end)

    def scan(self) -> Parser[tuple[int, int]]:
        """Publish the data of a JPEG scan; returns its length and the code of the marker behind it.

        Filling before that marker goes. Inside the data it stays: decoders differ in what they make of it.
        """
        size = filling = 0
        while True:
            found = _MARKER_OR_FILLING.search(self.chunk, self.at)
            start = found.start() if found else self._end()
            size += self._publish_to(start)
            run_of_ff = _FILLING.match(self.chunk, start) if found else None
            end = run_of_ff.end() if run_of_ff else len(self.chunk)
            if end == len(self.chunk):
                if end - start > MAX_FILLING:
                    raise _filled()
                yield from self._next_from(start)
                continue
            filling += end - start - 1
            if filling > MAX_FILLING:
                raise _filled()
            if (code := self.chunk[end]) not in _DATA:
                self.at = end + 1
                return size, code
            size += self._publish_to(end + 1)

    def _publish_to(self, end: int) -> int:
        """Publish the chunk up to `end`; returns how many bytes these were."""
        size = end - self.at
        if size > 0:
            self.publish(memoryview(self.chunk)[self.at : end])
        self.at = end
        return size

    def _end(self) -> int:
        """Return where the chunk ends, before an FF of which the next chunk says what it is."""
        size = len(self.chunk)
        return size - 1 if size > self.at and self.chunk.endswith(b"\xff") else size

    def _next_from(self, position: int) -> Parser[None]:
        """Go on with the next chunk, and before it what is left of this one from `position`."""
        rest = self.chunk[position:]
        self.at = len(self.chunk)
        yield None
        if rest:
            self.chunk = rest + self.chunk


def _filled() -> Exception:
    return damaged(f"more than {MAX_FILLING:,} bytes in it mean nothing")
