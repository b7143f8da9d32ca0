"""An identity's images, streamed from the bucket into the spool and judged on the way."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from httpcore._async.http11 import AsyncHTTP11Connection

from watcher.errors import Outage, Permanent, Transient, WatcherError
from watcher.identity import Identity, Image
from watcher.metrics import BYTES, stage
from watcher.retry import Retry
from watcher.structure import Judge, UnfitError

BUCKET = "identity-images"
MAX_BYTES = 20 * 2**20
_BLOCK = 2**18
"""Bytes that are judged, hashed and written at a time: few enough not to keep the loop waiting. After each of these steps
the uploads' threads have their turn, so with smaller ones the loop would mostly wait for them."""
# httpcore 1.0.9 takes 64 KiB off a connection at a time, and for each goes through all of its layers: a sixth of the CPU
# that an image costs. There is no public way to set it.
AsyncHTTP11Connection.READ_NUM_BYTES = _BLOCK

# What the table accepts, checked again: nothing in a row may make us read outside of its user's folder.
_SEGMENT = r"(?![ .])[A-Za-z0-9 ._()+@=-]+(?<! )"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT}){{1,5}}")


class Images:
    """Fetches images, as many at the same time as `fetches` allows, over all rows."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        url: str,
        key: str,
        fetches: int,
        retry: Retry,
        missing_for: float = 15,
        missing_pause: float = 1,
    ) -> None:
        """`client` is closed by whoever made it; `key` is the project's secret key.

        An object may become visible a little after the row that names it, so a missing one is looked for during
        `missing_for` seconds, with pauses of `missing_pause` seconds.
        """
        self._client = client
        self._objects = f"{url}/storage/v1/object/authenticated/{BUCKET}/"
        # Bytes as they were uploaded, not as a proxy would like to send them.
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        self._places = asyncio.Semaphore(fetches)
        self._retry = retry
        self._missing_for = missing_for
        self._missing_pause = missing_pause

    def check(self, identity: Identity) -> None:
        """Raise Permanent unless the row names 3 to 40 objects of its user's own folder, each once.

        To be asked before anything is fetched, so that of a row that is not in order nothing is read at all.
        """
        paths = identity.image_paths
        if not 3 <= len(paths) <= 40 or len(set(paths)) < len(paths):
            raise Permanent("path_forbidden", "The row does not name 3 to 40 images, each of them once.")
        for number in range(1, len(paths) + 1):
            _own(identity, number)

    async def fetch(self, identity: Identity, number: int, folder: Path) -> Image:
        """Fetch image `number` (from 1) into `folder`; raises Permanent, Transient or Outage."""
        path = _own(identity, number)
        try:
            return await self._fetch(number, path, folder)
        except UnfitError as first:
            # A download that ended early looks like a bad image, so a verdict takes two.
            try:
                return await self._fetch(number, path, folder)
            except UnfitError as second:
                if second.code != first.code:
                    raise Transient(f"{_in_words(number, path)} came in differently each time.") from second
                raise Permanent(second.code, f"{_in_words(number, path)} {second.words}.") from second

    async def _fetch(self, number: int, path: str, folder: Path) -> Image:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._missing_for
        while True:
            try:
                return await self._retry(self._stream, number, path, folder)
            except _Missing as error:
                if loop.time() >= give_up:
                    raise Permanent(
                        "image_missing",
                        f"{_in_words(number, path)} is not in the bucket; upload it, then try again.",
                    ) from error
                await asyncio.sleep(self._missing_pause)

    async def _stream(self, number: int, path: str, folder: Path) -> Image:
        url = self._objects + quote(path, safe="/")
        try:
            async with self._places:
                with stage("fetch"):
                    async with self._client.stream("GET", url, headers=self._headers) as response:
                        if response.status_code != httpx.codes.OK:
                            raise _translate(number, path, response.status_code, await response.aread())
                        file, size, digest, kind = await _spool(response, folder / f"image_{number:03}")
        except httpx.HTTPError as error:
            raise Transient(
                f"{_in_words(number, path)} could not be fetched: {str(error) or type(error).__name__}"
            ) from error
        except _TooLarge as error:
            raise Permanent(
                "image_too_large",
                f"{_in_words(number, path)} is larger than 20 MiB; make it smaller and upload it again.",
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
                raise Outage(f"The spool folder cannot take an image: {error.strerror}.") from error
            raise Transient(f"{_in_words(number, path)} could not be spooled: {error}") from error
        return Image(number=number, path=path, file=file, extension=kind, size=size, sha256=digest)


class _Missing(WatcherError):
    """Storage knows no such object, or not yet."""


class _TooLarge(Exception):
    """More bytes than an image may have."""


def _own(identity: Identity, number: int) -> str:
    """Return the path of an image; raises Permanent unless it lies in the folder of the row's user."""
    path = identity.image_paths[number - 1]
    if not path.startswith(f"{identity.user_id}/") or not _PATH.fullmatch(path) or len(path) > 512:
        raise Permanent("path_forbidden", f"{_in_words(number, path)} lies outside the user's own folder.")
    return path


async def _spool(response: httpx.Response, file: Path) -> tuple[Path, int, str, Any]:
    digest, judge, size, fetched = hashlib.sha256(), Judge(), 0, BYTES.labels("fetched")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as spooled:
        async for block in _blocks(response):
            size += len(block)
            fetched.inc(len(block))
            if size > MAX_BYTES:
                raise _TooLarge
            judge.feed(block)
            digest.update(block)
            spooled.write(block)
    return file, size, digest.hexdigest(), judge.finish()


async def _blocks(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body in blocks; httpx itself would copy each byte four times for that."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            yield b"".join(chunks)
            chunks, size = [], 0
    yield b"".join(chunks)


def _translate(number: int, path: str, status: int, body: bytes) -> WatcherError:
    """Storage 1.70 answers most errors with HTTP 400 and the status that is meant inside."""
    try:
        answer: dict[str, Any] = httpx.Response(status, content=body).json()
        meant = int(answer.get("statusCode", status))
        message, error = str(answer.get("message", "")), str(answer.get("code") or answer.get("error") or "")
    except (ValueError, AttributeError, TypeError):
        meant, message, error = status, "", ""
    if error in {"NoSuchBucket", "Bucket not found"}:
        return Outage(f"The bucket {BUCKET} is missing: run `watcher migrate`.")
    if error in {"NoSuchKey", "not_found"}:
        return _Missing(message)
    if meant in {401, 402, 403} or error == "InvalidJWT":
        return Outage(f"Supabase Storage refuses to hand out images: {message or status}")
    if error in {"InvalidKey", "InvalidRequest"}:
        return Permanent(
            "path_forbidden",
            f"{_in_words(number, path)} has a path that Storage refuses: {message or status}",
        )
    return Transient(f"{_in_words(number, path)} could not be fetched just now: {message or status}")


def _in_words(number: int, path: str) -> str:
    return f"Image {number} ({re.sub(r'[^A-Za-z0-9 ._()+@=-]', '?', path.rsplit('/', 1)[-1])[:80]})"
