"""Images handed on as they come: as many as there are by then, so that no way stands idle while some wait."""

import asyncio
import math

from watcher.identity import Image

LARGEST = 5
"""Images that go up together: as many as the Hub's client sends at once."""

_WORTH_IT = 2**24
"""Bytes on whose way a request more is not noticed."""


class Batches:
    """Takes the images of one row in any order, and gives them out once each.

    Small batches begin early and end early, but each costs a request. There are at most two for every five images.
    A batch of fewer than five has to be large in bytes, unless it is the last.
    """

    def __init__(self, images: int) -> None:
        """`images`: how many will come."""
        self._left = images
        self._allowed = 2 * math.ceil(images / LARGEST)
        self._waiting: list[Image] = []
        self._news = asyncio.Condition()

    async def put(self, image: Image) -> None:
        """Add an image."""
        async with self._news:
            self._waiting.append(image)
            self._news.notify_all()

    async def take(self) -> list[Image]:
        """Return the next batch, once enough have come; empty when none is left."""
        async with self._news:
            await self._news.wait_for(lambda: self._enough)
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            if batch:
                self._left -= len(batch)
                self._allowed -= 1
                self._news.notify_all()  # for others it may be enough now
            return batch

    @property
    def _enough(self) -> bool:
        count = len(self._waiting)
        if count == self._left or count >= LARGEST:
            return True
        return count * self._allowed >= self._left and sum(image.size for image in self._waiting) >= _WORTH_IT
