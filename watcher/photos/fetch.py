"""A row's photos, streamed from the bucket into the spool and checked on the way."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from watcher.engine.retry import Retry
from watcher.errors import Outage, Permanent, Transient
from watcher.identity import Identity, Image
from watcher.photos.image_check import ImageCheck, Kind, UnfitError
from watcher.process.metrics import BYTES, stage
from watcher.supabase.storage import Missing, Storage

MAX_BYTES = 20 * 2**20

# What the table accepts, checked again: nothing in a row may make us read outside of its user's folder.
_SEGMENT = r"(?![ .])[A-Za-z0-9 ._()+@=-]+(?<! )"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{1,5}}")


class Photos:
    """Fetches photos, as many at the same time as `fetches` allows, over all rows."""

    def __init__(
        self,
        storage: Storage,
        *,
        fetches: int,
        retry: Retry,
        missing_for: float = 15,
        missing_pause: float = 1,
    ) -> None:
        """An object may become visible a little after the row that names it.

        So a missing one is looked for during `missing_for` seconds, with pauses of `missing_pause` seconds.
        """
        self._storage = storage
        self._places = asyncio.Semaphore(fetches)
        self._retry = retry
        self._missing_for = missing_for
        self._missing_pause = missing_pause

    def check(self, identity: Identity) -> None:
        """Raise Permanent unless the row names 3 to 40 objects of its user's own folder, each once.

        Called before anything is fetched, so that of a row that is not in order nothing is read at all.
        """
        paths = identity.image_paths
        if not 3 <= len(paths) <= 40 or len(set(paths)) < len(paths):
            raise Permanent("path_forbidden", "The row does not name 3 to 40 images, each of them once.")
        for number in range(1, len(paths) + 1):
            _own(identity, number)

    async def fetch(self, identity: Identity, number: int, folder: Path) -> Image:
        """Fetch image `number` (from 1) into `folder`; raises Permanent, Transient or Outage."""
        path = _own(identity, number)
        called = _called(number, path)
        try:
            return await self._fetch(number, path, folder)
        except UnfitError as first:
            # A download that ended early looks like a bad image, so a verdict takes two.
            try:
                return await self._fetch(number, path, folder)
            except UnfitError as second:
                if second.code != first.code:
                    raise Transient(f"{called} was different in each of two downloads.") from second
                raise Permanent(second.code, f"{called} {second.words}.") from second

    async def _fetch(self, number: int, path: str, folder: Path) -> Image:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._missing_for
        while True:
            try:
                return await self._retry(self._stream, number, path, folder)
            except Missing as error:
                if loop.time() >= give_up:
                    raise Permanent(
                        "image_missing",
                        f"{_called(number, path)} is not in the bucket; upload it, then try again.",
                    ) from error
                await asyncio.sleep(self._missing_pause)

    async def _stream(self, number: int, path: str, folder: Path) -> Image:
        called, file = _called(number, path), folder / f"image_{number:03}"
        try:
            async with self._places:
                with stage("fetch"):
                    async with self._storage.stream(path, called=called) as blocks:
                        size, digest, kind = await _spool(blocks, file)
        except _TooLarge as error:
            raise Permanent(
                "image_too_large", f"{called} is larger than 20 MiB; make it smaller and upload it again."
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise Outage(f"The spool folder cannot take an image: {error.strerror}.") from error
            raise Transient(f"{called} could not be spooled: {error}") from error
        return Image(number=number, path=path, file=file, extension=kind, size=size, sha256=digest)


class _TooLarge(Exception):
    """More bytes than an image may have."""


def _own(identity: Identity, number: int) -> str:
    """Return the path of an image; raises Permanent unless it lies in the folder of the row's user."""
    path = identity.image_paths[number - 1]
    if not path.startswith(f"{identity.user_id}/") or not _PATH.fullmatch(path) or len(path) > 512:
        raise Permanent("path_forbidden", f"{_called(number, path)} lies outside the user's own folder.")
    return path


async def _spool(blocks: AsyncIterator[bytes], file: Path) -> tuple[int, str, Kind]:
    """Write the blocks to a file; returns its size in bytes, its SHA-256 and what it is."""
    digest, check, size, fetched = hashlib.sha256(), ImageCheck(), 0, BYTES.labels("fetched")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as spooled:
        async for block in blocks:
            size += len(block)
            fetched.inc(len(block))
            if size > MAX_BYTES:
                raise _TooLarge
            check.feed(block)
            digest.update(block)
            spooled.write(block)
    return size, digest.hexdigest(), check.finish()


def _called(number: int, path: str) -> str:
    """Return what a person calls the image: "Image 3 (beach.jpg)", whatever the path holds."""
    return f"Image {number} ({re.sub(r'[^A-Za-z0-9 ._()+@=-]', '?', path.rsplit('/', 1)[-1])[:80]})"
