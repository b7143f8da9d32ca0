"""Streams a row's photos from the bucket to the spool folder, and checks and cleans them on the way."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from watcher.engine.fair import FairLimit
from watcher.engine.retry import Retry
from watcher.errors import Outage, Permanent, Transient, Wait, WatcherError
from watcher.identity import Identity, Image, StoredObject
from watcher.photos.image_check import Format, ImageCheck
from watcher.photos.refusals import InvalidImage
from watcher.photos.stream import Step, pause
from watcher.process.metrics import BYTES, stage
from watcher.supabase.storage import Download, Missing, Storage

MAX_BYTES = 20 * 2**20
# Seconds. An object may become visible shortly after the row that names it; meanwhile its slot is another row's.
_MISSING_PAUSE, _MISSING_WITHIN = 2.0, 15.0

# The table's own rule, checked again: nothing in a row may make the daemon read outside its user's folder.
_SEGMENT = r"(?![ .])[A-Za-z0-9 ._()+@=-]{1,200}(?<! )"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{1,5}}")

_BYTES_TO_COME = 2**24
"""Another fetch begins while fewer bytes are still to come of those under way: many small photos at the same time, and two
or three large ones. Eight of them would all arrive at the same time, and the way up would be idle until then."""
_PARALLEL_STEPS = 2
"""Threads that unpack PNGs, over all rows: one row's forty can inflate to 24 GB."""


class Photos:
    """Fetches photos, at most `fetches` at the same time over all rows."""

    def __init__(self, storage: Storage, *, fetches: int, retry: Retry, clean: bool = True) -> None:
        self._storage = storage
        self._fetches = FairLimit(fetches, weight=_BYTES_TO_COME)
        self._steps = FairLimit(_PARALLEL_STEPS)
        self._retry = retry
        self.clean = clean
        """Whether photos are published without their metadata."""

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
        stored = identity.objects[number - 1] if identity.objects else _UNKNOWN
        wanted = _Wanted(
            identity.user_id,
            identity.id,
            number,
            path,
            _label(number, path),
            folder / f"image_{number:03}",
            stored,
        )
        try:
            return await self._fetch(wanted)
        except InvalidImage as first:
            # A truncated download looks like an invalid image, so a second one has to confirm it.
            try:
                return await self._fetch(wanted)
            except InvalidImage as second:
                if second.code != first.code:
                    raise Transient(f"{wanted.label} was different in each of two downloads.") from second
                sentence = f"{wanted.label} {second.reason}."
                raise Permanent(second.code, sentence, image=number) from second

    async def _fetch(self, wanted: "_Wanted") -> Image:
        """Fetch the object that the row named when it was claimed; if another one comes, ask once more past a cache."""
        try:
            return await self._find(wanted)
        except _Another:
            try:
                return await self._find(wanted, past_cache=wanted.version)
            except _Another as error:
                raise Transient(
                    f"{wanted.label} is not what was uploaded: a cache in front of Storage still has an earlier file of "
                    "that name, or it was replaced a moment ago."
                ) from error

    async def _find(self, wanted: "_Wanted", past_cache: str | None = None) -> Image:
        try:
            return await self._retry(self._stream, wanted, past_cache)
        except Missing as error:
            raise Wait(
                f"{wanted.label} is not in the bucket yet.",
                seconds=_MISSING_PAUSE,
                within=_MISSING_WITHIN,
                code="image_missing",
                last_words=f"{wanted.label} is not in the bucket; upload it, then try again.",
                image=wanted.number,
            ) from error

    async def _stream(self, wanted: "_Wanted", past_cache: str | None) -> Image:
        label = wanted.label
        try:
            async with self._fetches.held(wanted.user, wanted.row, wanted.stored.size or 0) as turn:
                with stage("fetch"):
                    async with self._storage.stream(
                        wanted.path, label=label, past_cache=past_cache
                    ) as download:
                        size, digest, extension = await self._store(
                            download, wanted, partial(self._fetches.lighten, turn)
                        )
        except Permanent as error:
            raise Permanent(error.code, str(error), image=wanted.number) from error
        except _TooLarge as error:
            sentence = f"{label} is larger than 20 MiB; make it smaller and upload it again."
            raise Permanent("image_too_large", sentence, image=wanted.number) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise Outage(
                    f"No image can be written to the spool folder ({error.strerror}): free space, check its "
                    "permissions, or move it with WATCHER_SPOOL."
                ) from error
            raise Transient(f"{label} could not be written to the spool folder: {error}") from error
        return Image(
            number=wanted.number,
            path=wanted.path,
            file=wanted.file,
            extension=extension,
            size=size,
            sha256=digest,
        )

    async def _store(
        self, download: Download, wanted: "_Wanted", arrived: Callable[[int], None]
    ) -> tuple[int, str, Format]:
        """Write an object to its file; returns size in bytes, SHA-256 in hexadecimal and format of what was written.

        `arrived`: told of the bytes of each block.
        """
        wanted.compare(download.size, download.etag)
        check, output = ImageCheck(clean=self.clean), _Output(wanted.file)
        fetched, counter = 0, BYTES.labels("fetched")
        with output:
            async for block in download.blocks:
                fetched += len(block)
                counter.inc(len(block))
                arrived(len(block))
                if fetched > MAX_BYTES:
                    raise _TooLarge
                for step in check.feed(block):
                    await self._run(step, wanted)
                output.write(check.take())
        wanted.compare(fetched, None)
        return output.size, output.digest, check.finish()

    async def _run(self, step: Step, wanted: "_Wanted") -> None:
        """Do what a check takes long for, away from the event loop."""
        if step is pause:
            await asyncio.sleep(0)
            return
        async with self._steps.held(wanted.user, wanted.row):
            await asyncio.to_thread(step)


class _TooLarge(Exception):
    """The image has more than MAX_BYTES."""


class _Another(WatcherError):
    """What Storage sends is not the object that the claim named."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An image to fetch."""

    user: str
    row: str
    number: int
    path: str
    label: str
    file: Path
    """Where it is written."""
    stored: StoredObject

    @property
    def version(self) -> str:
        """A text that is another one for each upload of this path, as far as that is known."""
        return self.stored.version or self.stored.etag or ""

    def compare(self, size: int | None, etag: str | None) -> None:
        """Raise _Another if size or ETag of what comes are known and differ from those of the object."""
        named, found = (self.stored.size, _bare(self.stored.etag)), (size, _bare(etag))
        if any(None not in pair and pair[0] != pair[1] for pair in zip(named, found, strict=True)):
            raise _Another(f"{self.label}: {found} instead of {named}")


_UNKNOWN = StoredObject(None, None, None)


def _bare(etag: str | None) -> str | None:
    """Return an ETag without quotes, and without the mark that a proxy adds to it."""
    return etag.removeprefix("W/").strip('"') if etag else None


class _Output:
    """The file that an image is written to, hashed on the way."""

    def __init__(self, file: Path) -> None:
        self._digest = hashlib.sha256()
        self.size = 0
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, parts: list[bytes | memoryview]) -> None:
        """Add bytes."""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.size += len(data)
        self._digest.update(data)
        self._file.write(data)


def _checked_path(identity: Identity, number: int) -> str:
    """Return the path of an image; raises Permanent unless it is in the folder of the row's user."""
    path = identity.image_paths[number - 1]
    if not path.startswith(f"{identity.user_id}/") or not _PATH.fullmatch(path) or len(path) > 512:
        sentence = f"{_label(number, path)} is not in the user's own folder."
        raise Permanent("path_forbidden", sentence, image=number)
    return path


def _label(number: int, path: str) -> str:
    """Name the image for people, such as "Image 3 (beach.jpg)"; unusual characters of the path become "?"."""
    return f"Image {number} ({re.sub(r'[^A-Za-z0-9 ._()+@=-]', '?', path.rsplit('/', 1)[-1])[:80]})"
