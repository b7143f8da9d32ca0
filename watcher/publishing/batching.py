"""Groups fetched images into batches for upload, as they arrive, so that an upload can begin before the last fetch.

Works in memory: it neither fetches nor uploads.
"""

import asyncio
import math

from watcher.identity import Image

MAX_IMAGES = 5
"""The most images in a batch: as many as the Hub's client sends in parallel."""

_LARGE_BYTES = 2**24
"""From this size on, an upload takes so long that one more request hardly matters."""


class Batches:
    """A queue of one row's images: they are added in any order, and each is taken once, in a batch.

    Small batches start earlier, but each costs a request, so there are at most two batches for every five images. A
    batch of fewer than five must have at least `_LARGE_BYTES`, unless it is the last.
    """

    def __init__(self, images: int) -> None:
        """`images`: how many will be added."""
        self._remaining = images
        self._batches_left = 2 * math.ceil(images / MAX_IMAGES)
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
            batch, self._queue = self._queue[:MAX_IMAGES], self._queue[MAX_IMAGES:]
            if batch:
                self._remaining -= len(batch)
                self._batches_left -= 1
                self._changed.notify_all()  # the rest may be ready now
            return batch

    @property
    def _is_ready(self) -> bool:
        count = len(self._queue)
        if count == self._remaining or count >= MAX_IMAGES:
            return True
        # A batch may be small only if batches of this size would still be enough for the rest.
        is_large = sum(image.size for image in self._queue) >= _LARGE_BYTES
        return is_large and count * self._batches_left >= self._remaining
