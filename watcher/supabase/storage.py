"""Objects streamed out of the bucket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from httpcore._async.http11 import AsyncHTTP11Connection

from watcher.errors import Outage, Permanent, Transient, WatcherError

BUCKET = "identity-images"
BLOCK = 2**18
"""Bytes of one block. After each the uploads' threads have their turn, so with smaller ones the loop would mostly wait for
them; larger ones would keep the loop waiting."""
TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
"""Of one request: a bucket may take its time before the first byte."""

# httpcore 1.0.9, which pyproject.toml pins, takes 64 KiB off a connection at a time, and for each goes through all of its
# layers: a sixth of the CPU that an image costs. There is no public way to set it.
AsyncHTTP11Connection.READ_NUM_BYTES = BLOCK


class Missing(WatcherError):
    """Storage knows no such object, or not yet."""


class Storage:
    """The bucket, read with the project's secret key."""

    def __init__(self, client: httpx.AsyncClient, *, url: str, key: str) -> None:
        """`client` is closed by whoever made it."""
        self._client = client
        self._objects = f"{url}/storage/v1/object/authenticated/{BUCKET}/"
        # Bytes as they were uploaded, not as a proxy would like to send them.
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}

    @asynccontextmanager
    async def stream(self, path: str, *, called: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an object, and yield its blocks; errors call it `called`, as "Image 3 (beach.jpg)".

        Raises Missing, Permanent, Transient or Outage.
        """
        url = self._objects + quote(path, safe="/")
        try:
            async with self._client.stream("GET", url, headers=self._headers) as response:
                if response.status_code != httpx.codes.OK:
                    raise _translate(called, response.status_code, await response.aread())
                yield _blocks(response)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"{called} could not be fetched: {reason}") from error


async def _blocks(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body in blocks; httpx itself would copy each byte four times for that."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield b"".join(chunks)
            chunks, size = [], 0
    yield b"".join(chunks)


def _translate(called: str, status: int, body: bytes) -> WatcherError:
    """Return our error for Storage's. Version 1.70 answers most with HTTP 400 and the status that is meant inside."""
    try:
        answer: dict[str, Any] = httpx.Response(status, content=body).json()
        meant = int(answer.get("statusCode", status))
        message, error = str(answer.get("message", "")), str(answer.get("code") or answer.get("error") or "")
    except (ValueError, AttributeError, TypeError):
        meant, message, error = status, "", ""
    if error in {"NoSuchBucket", "Bucket not found"}:
        return Outage(f"The bucket {BUCKET} is missing: run `watcher migrate`.")
    if error in {"NoSuchKey", "not_found"}:
        return Missing(message)
    if meant in {401, 402, 403} or error == "InvalidJWT":
        return Outage(f"Supabase Storage refuses to hand out images: {message or status}")
    if error in {"InvalidKey", "InvalidRequest"}:
        return Permanent("path_forbidden", f"{called} has a path that Storage refuses: {message or status}")
    return Transient(f"{called} could not be fetched just now: {message or status}")
