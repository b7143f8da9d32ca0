"""Streams objects from the buckets in Supabase Storage, and puts pictures there."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from httpcore._async.http11 import AsyncHTTP11Connection

from watcher.errors import Outage, Permanent, Refused, Transient, WatcherError
from watcher.process.text import quoted

BUCKET = "identity-images"
SAMPLES = "identity-samples"
"""The bucket of the pictures that trainings make."""
_ABSENT = "00000000-0000-0000-0000-000000000000/none"
BLOCK = 2**18
"""Bytes per block. The upload threads run between two blocks: smaller blocks would make the loop wait for them more often,
larger ones would block the loop for longer."""
TIMEOUT = httpx.Timeout(30, connect=5, pool=None)
"""Of one request, in seconds: Storage may be slow to send the first byte."""

# httpcore 1.0.9, which pyproject.toml pins, reads 64 KiB at a time from a connection and passes each through all of its
# layers: a sixth of the CPU time of an image. There is no public setting.
AsyncHTTP11Connection.READ_NUM_BYTES = BLOCK


class Missing(WatcherError):
    """Storage has no such object, or does not show it yet."""


@dataclass(frozen=True, slots=True)
class Download:
    """An object while it is fetched."""

    blocks: AsyncIterator[bytes]
    size: int | None
    """Bytes, as announced; None if not."""
    etag: str | None


class Storage:
    """The bucket, read with the project's secret key."""

    def __init__(self, client: httpx.AsyncClient, *, url: str, key: str) -> None:
        """`client` must be closed by the caller."""
        self._client = client
        self._objects = f"{url}/storage/v1/object/authenticated/{BUCKET}/"
        self._buckets = f"{url}/storage/v1/object"
        # The bytes as they were uploaded: a proxy must not compress them.
        self._headers = {"apikey": key, "Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}

    @asynccontextmanager
    async def stream(
        self, path: str, *, label: str, past_cache: str | None = None
    ) -> AsyncIterator[Download]:
        """Open an object; `label` names it in errors, such as "Image 3 (beach.jpg)".

        `past_cache`: a text that no request for this object has had before, to get past a cache on the way.
        Raises Missing, Permanent, Transient or Outage.
        """
        url = self._objects + quote(path, safe="/")
        headers, query = self._headers, {}
        if past_cache is not None:
            headers, query = {**headers, "Cache-Control": "no-cache"}, {"version": past_cache}
        try:
            async with self._client.stream("GET", url, headers=headers, params=query or None) as response:
                if response.status_code != httpx.codes.OK:
                    raise _translate(label, response.status_code, await response.aread())
                announced = response.headers.get("Content-Length", "")
                size = int(announced) if announced.isdecimal() else None
                yield Download(_blocks(response), size, response.headers.get("ETag"))
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"{label} could not be fetched: {reason}") from error

    async def check(self) -> None:
        """Look for an object that does not exist: Storage answers so if it would also send others.

        Raises Outage if it refuses the request, and Transient.
        """
        try:
            async with self.stream(_ABSENT, label="The bucket"):
                pass
        except Missing:
            return
        except Refused as refusal:
            raise Outage(refusal.everybody) from refusal

    async def remove(self, keys: Sequence[str], *, bucket: str = BUCKET) -> None:
        """Delete objects, at most 1000; Storage passes over those that it does not find.

        Raises Refused, Outage or Transient.
        """
        await self._change(
            "A photo", "deleted", "DELETE", f"{self._buckets}/{bucket}", json={"prefixes": list(keys)}
        )

    async def put_sample(self, key: str, picture: bytes, *, media_type: str) -> None:
        """Store a picture that a training has made, in place of what is there; raises Refused, Outage or Transient."""
        await self._change(
            "A sample",
            "stored",
            "POST",
            f"{self._buckets}/{SAMPLES}/{quote(key, safe='/')}",
            content=picture,
            headers={"Content-Type": media_type, "x-upsert": "true"},
        )

    async def _change(
        self,
        label: str,
        done: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> None:
        try:
            response = await self._client.request(
                method, url, headers={**self._headers, **(headers or {})}, **request
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Transient(f"{label} could not be {done} in Supabase Storage: {reason}") from error
        if not response.is_success:
            translated = _translate(label, response.status_code, response.content, done=done)
            if isinstance(translated, Outage | Refused | Transient):
                raise translated
            raise Transient(f"{label} could not be {done}: {translated}")


async def _blocks(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the body in blocks; httpx's own chunking would copy each byte four times."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield b"".join(chunks)
            chunks, size = [], 0
    yield b"".join(chunks)


def _translate(label: str, status: int, body: bytes, *, done: str = "fetched") -> WatcherError:
    """Return our error for Storage's: the object could not be `done`.

    Version 1.70 sends most errors as HTTP 400, with the actual status in the body.
    """
    try:
        content: dict[str, Any] = httpx.Response(status, content=body).json()
        actual = int(content.get("statusCode", status))
        message, error = (
            str(content.get("message", "")),
            str(content.get("code") or content.get("error") or ""),
        )
    except (ValueError, AttributeError, TypeError):
        actual, message, error = status, "", ""
    message = quoted(message, otherwise=f"HTTP {actual}").rstrip(".")
    if error in {"NoSuchBucket", "Bucket not found"}:
        return Outage(f"A bucket is missing ({BUCKET} or {SAMPLES}): run `watcher migrate`.")
    if error in {"NoSuchKey", "not_found"}:
        return Missing(message)
    if actual in {401, 402, 403} or error == "InvalidJWT":
        return Refused(
            f"{label} could not be {done}: Supabase Storage refused access to it: {message}.",
            everybody=f"Supabase Storage refused access to images: {message}. Check SUPABASE_SECRET_KEY and the project's "
            "plan.",
            service="storage",
            now=actual == httpx.codes.UNAUTHORIZED or error == "InvalidJWT",
        )
    if error in {"InvalidKey", "InvalidRequest"}:
        return Permanent("path_forbidden", f"{label} has a path that Storage refuses: {message}")
    return Transient(f"{label} could not be {done}: {message}")
