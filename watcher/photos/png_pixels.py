"""Whether the data of a PNG inflates to exactly the rows that its header promises, each with a filter that exists."""

import zlib
from collections.abc import Iterator
from typing import Final

from watcher.photos.refusals import InvalidImage, damaged
from watcher.photos.stream import Step

CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
_WHOLE: Final = ((0, 0, 1, 1),)
_FILTERS: Final = bytes(range(5))

_MAX_BYTES: Final = 600 * 10**6
_STEP: Final = 2**20
_ENOUGH: Final = 2**18
"""Compressed bytes that are worth a change of threads."""


class Pixels:
    """The data of one PNG. Each step inflates a MiB at most."""

    def __init__(self, width: int, height: int, depth: int, colour: int, *, interlaced: bool) -> None:
        """Raise InvalidImage if the rows have more than 600 MB."""
        bits = depth * CHANNELS[colour]
        # Rows and bytes of a row in each pass; the first byte of a row names its filter.
        passes = [
            (-(-(height - top) // down), 1 + -(-columns * bits // 8))
            for left, top, across, down in (_ADAM7 if interlaced else _WHOLE)
            if (columns := -(-(width - left) // across)) > 0 and height > top
        ]
        self._passes = iter(passes)
        self._size = sum(rows * row for rows, row in passes)
        if self._size > _MAX_BYTES:
            raise InvalidImage(
                "image_too_many_pixels",
                f"has {width} × {height} pixels of {bits} bits, more than {_MAX_BYTES // 10**6} MB; make it smaller, or "
                "save it with 8 bits a colour",
            )
        self._inflater = zlib.decompressobj()
        self._held = bytearray()
        self._inflated = 0
        self._next_row = self._pass_end = self._row = 0

    def feed(self, part: memoryview) -> Iterator[Step]:
        """Add compressed bytes, and yield the work that there is; raises InvalidImage."""
        self._held += part
        if len(self._held) >= _ENOUGH:
            yield from self._inflate()

    def finish(self) -> Iterator[Step]:
        """Inflate the rest, and raise InvalidImage unless all rows are there."""
        yield from self._inflate()
        if not self._inflater.eof:
            raise damaged("some of its picture is missing")

    def _inflate(self) -> Iterator[Step]:
        data, self._held = bytes(self._held), bytearray()
        going = True

        def step() -> None:
            nonlocal data, going
            data, going = self._step(data)

        while going:
            yield step

    def _step(self, data: bytes) -> tuple[bytes, bool]:
        """Inflate a MiB; returns the compressed bytes that are left, and whether there may be more in them."""
        try:
            rows = self._inflater.decompress(data, _STEP)
        except zlib.error:
            raise damaged("its picture cannot be unpacked") from None
        self._check_filters(rows)
        self._inflated += len(rows)
        if self._inflated > self._size or self._inflater.unused_data:
            raise damaged("there is more in it than its picture")
        if self._inflater.eof and self._inflated < self._size:
            raise damaged("there is too little in it for a picture of its size")
        return self._inflater.unconsumed_tail, len(rows) == _STEP

    def _check_filters(self, rows: bytes) -> None:
        """Raise InvalidImage if a row among these bytes begins with an unknown filter."""
        start, end = self._inflated, self._inflated + len(rows)
        while self._next_row < end:
            if self._next_row == self._pass_end:
                count, self._row = next(self._passes, (0, 1))
                if not count:
                    return  # there are more bytes than rows
                self._pass_end += count * self._row
            stop = min(end, self._pass_end)
            filters = rows[self._next_row - start : stop - start : self._row]
            if filters.translate(None, _FILTERS):
                raise damaged("its rows are invalid")
            self._next_row += len(filters) * self._row
