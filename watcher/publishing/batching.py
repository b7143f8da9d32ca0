"""Groups fetched images into batches for upload, as they arrive, so that an upload can begin before the last fetch.

Works in memory: it neither fetches nor uploads.
"""

import asyncio
from itertools import accumulate

from watcher.identity import Image

ENOUGH_BYTES = 24 * 2**20
"""A batch costs one of the Hub's requests, which are few; uploading this much takes so long that it hardly matters."""


class Batches:
    """A queue of one row's images: they are added in any order, and each is taken once, in a batch.

    A batch has at least `ENOUGH_BYTES`, unless it is the last, and no image beyond that.
    """

    def __init__(self, images: int) -> None:
        """`images`: how many will be added."""
        self._remaining = images
        self._queue: list[Image] = []
        self._changed = asyncio.Condition()

    async def put(self, image: Image) -> None:
        """Add an image."""
        async with self._changed:
            self._queue.append(image)
            self._changed.notify_all()

    async def take(self) -> list[Image]:
        """Wait for the next batch and return it; empty once all images are taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_ready)
            sizes = accumulate(image.size for image in self._queue)
            count = 1 + sum(size < ENOUGH_BYTES for size in sizes)
            batch, self._queue = self._queue[:count], self._queue[count:]
            if batch:
                self._remaining -= len(batch)
                self._changed.notify_all()  # the rest may be ready now
            return batch

    @property
    def _is_ready(self) -> bool:
        return len(self._queue) == self._remaining or sum(image.size for image in self._queue) >= ENOUGH_BYTES
