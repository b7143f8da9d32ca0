"""Streams a row's photos from the bucket to the spool folder, and checks them on the way."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from watcher.engine.retry import Retry
from watcher.errors import Outage, Permanent, Transient, Wait
from watcher.identity import Identity, Image
from watcher.photos.image_check import Format, ImageCheck, InvalidImage
from watcher.process.metrics import BYTES, stage
from watcher.supabase.storage import Missing, Storage

MAX_BYTES = 20 * 2**20
# Seconds. An object may become visible shortly after the row that names it; meanwhile its slot is another row's.
_MISSING_PAUSE, _MISSING_WITHIN = 2.0, 15.0

# The table's own rule, checked again: nothing in a row may make the daemon read outside its user's folder.
_SEGMENT = r"(?![ .])[A-Za-z0-9 ._()+@=-]+(?<! )"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{1,5}}")


class Photos:
    """Fetches photos, at most `fetches` at the same time over all rows."""

    def __init__(self, storage: Storage, *, fetches: int, retry: Retry) -> None:
        self._storage = storage
        self._fetches = asyncio.Semaphore(fetches)
        self._retry = retry

    def check(self, identity: Identity) -> None:
        """Raise Permanent unless the row names 3 to 40 objects in its user's own folder, each once.

        To be called before the first fetch, so that nothing is read for a row with an invalid path.
        """
        paths = identity.image_paths
        if not 3 <= len(paths) <= 40 or len(set(paths)) < len(paths):
            raise Permanent("path_forbidden", "The row does not name 3 to 40 images, each of them once.")
        for number in range(1, len(paths) + 1):
            _checked_path(identity, number)

    async def fetch(self, identity: Identity, number: int, folder: Path) -> Image:
        """Fetch image `number` (from 1) into `folder`; raises Permanent, Transient, Wait or Outage."""
        path = _checked_path(identity, number)
        label = _label(number, path)
        try:
            return await self._fetch(number, path, folder)
        except InvalidImage as first:
            # A truncated download looks like an invalid image, so a second one has to confirm it.
            try:
                return await self._fetch(number, path, folder)
            except InvalidImage as second:
                if second.code != first.code:
                    raise Transient(f"{label} was different in each of two downloads.") from second
                raise Permanent(second.code, f"{label} {second.reason}.") from second

    async def _fetch(self, number: int, path: str, folder: Path) -> Image:
        try:
            return await self._retry(self._stream, number, path, folder)
        except Missing as error:
            label = _label(number, path)
            raise Wait(
                f"{label} is not in the bucket yet.",
                seconds=_MISSING_PAUSE,
                within=_MISSING_WITHIN,
                code="image_missing",
                last_words=f"{label} is not in the bucket; upload it, then try again.",
            ) from error

    async def _stream(self, number: int, path: str, folder: Path) -> Image:
        label, file = _label(number, path), folder / f"image_{number:03}"
        try:
            async with self._fetches:
                with stage("fetch"):
                    async with self._storage.stream(path, label=label) as blocks:
                        size, digest, extension = await _store(blocks, file)
        except _TooLarge as error:
            raise Permanent(
                "image_too_large", f"{label} is larger than 20 MiB; make it smaller and upload it again."
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise Outage(
                    f"No image can be written to the spool folder ({error.strerror}): free space, check its "
                    "permissions, or move it with WATCHER_SPOOL."
                ) from error
            raise Transient(f"{label} could not be written to the spool folder: {error}") from error
        return Image(number=number, path=path, file=file, extension=extension, size=size, sha256=digest)


class _TooLarge(Exception):
    """The image has more than MAX_BYTES."""


def _checked_path(identity: Identity, number: int) -> str:
    """Return the path of an image; raises Permanent unless it is in the folder of the row's user."""
    path = identity.image_paths[number - 1]
    if not path.startswith(f"{identity.user_id}/") or not _PATH.fullmatch(path) or len(path) > 512:
        raise Permanent("path_forbidden", f"{_label(number, path)} is not in the user's own folder.")
    return path


async def _store(blocks: AsyncIterator[bytes], file: Path) -> tuple[int, str, Format]:
    """Write the blocks to a file; returns its size in bytes, its SHA-256 in hexadecimal and its format."""
    digest, check, size, fetched = hashlib.sha256(), ImageCheck(), 0, BYTES.labels("fetched")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        async for block in blocks:
            size += len(block)
            fetched.inc(len(block))
            if size > MAX_BYTES:
                raise _TooLarge
            check.feed(block)
            digest.update(block)
            output.write(block)
    return size, digest.hexdigest(), check.finish()


def _label(number: int, path: str) -> str:
    """Name the image for people, such as "Image 3 (beach.jpg)"; unusual characters of the path become "?"."""
    return f"Image {number} ({re.sub(r'[^A-Za-z0-9 ._()+@=-]', '?', path.rsplit('/', 1)[-1])[:80]})"
