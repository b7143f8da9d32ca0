"""Downloads of objects or of one range, streamed from the disk, and the routes that need only the row."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from watcher.sandbox.storage import errors, tokens
from watcher.sandbox.storage.bytes import modified
from watcher.sandbox.storage.call import Call
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.rows import find_bucket, find_object, timestamp

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def download(call: Call) -> Response:
    """Send an object that is visible to the caller."""
    return _bytes(call, await _readable(call))


async def public(call: Call) -> Response:
    """Send an object of a public bucket to anybody."""
    return _bytes(call, await _public(call))


async def signed(call: Call) -> Response:
    """Send an object to a caller with a signed URL."""
    claims = tokens.verify(call, "download")
    _refuse_hidden(call)
    async with call.admin() as rows:
        row = await find_object(rows, call.bucket, call.key)
    expires = format_datetime(datetime.fromtimestamp(claims["exp"], UTC), usegmt=True)
    return _bytes(call, row, expires)


async def head(call: Call) -> Response:
    """Answer with the headers of a download, from the row, whether the bytes exist or not."""
    return _head(await _readable(call))


async def head_public(call: Call) -> Response:
    """Do what `head` does for an object of a public bucket."""
    return _head(await _public(call))


async def info(call: Call) -> Response:
    """Describe an object that is visible to the caller."""
    return _info(await _readable(call))


async def info_public(call: Call) -> Response:
    """Describe an object of a public bucket."""
    return _info(await _public(call))


async def _readable(call: Call) -> dict[str, Any]:
    """Return an object's row, if it is visible to the caller; without a valid token only public buckets are."""
    bucket = await find_bucket(call, call.bucket)
    if bucket["public"]:
        return await _public(call)
    if not call.authenticated:
        raise errors.no_such_bucket()
    _refuse_hidden(call)
    async with call.transaction() as rows:
        return await find_object(rows, call.bucket, call.key)


async def _public(call: Call) -> dict[str, Any]:
    bucket = await find_bucket(call, call.bucket)
    if not bucket["public"]:
        raise errors.no_such_bucket()
    _refuse_hidden(call)
    async with call.admin() as rows:
        return await find_object(rows, call.bucket, call.key)


def _refuse_hidden(call: Call) -> None:
    """Refuse an object that a fault hides."""
    if call.service.knobs.hidden(call.bucket, call.key):
        raise errors.no_such_key()


def _bytes(call: Call, row: Mapping[str, Any], expires: str | None = None) -> Response:
    """Answer with the bytes of `row`. Raises FileNotFoundError if they are missing."""
    path = call.service.bytes.path(row["version"])
    size = path.stat().st_size
    headers = _headers(row["metadata"], modified(path))
    if expires is not None:
        headers["expires"] = expires
        headers.pop("cache-control", None)
    name = call.request.query_params.get("download")
    if name is not None:
        quoted = quote(name, safe="!'()*")  # as JavaScript's encodeURIComponent
        parameters = f" filename={quoted}; filename*=UTF-8''{quoted}" if name else ""
        headers["content-disposition"] = f"attachment;{parameters}"
    if call.request.headers.get("if-none-match") == headers.get("etag"):
        return Response(status_code=304, headers={**headers, "content-length": "0"})
    status, start, length = 200, 0, size
    asked = call.request.headers.get("range")
    if asked:
        start, length = _range(asked, size)
        status, headers["content-range"] = 206, f"bytes {start}-{start + length - 1}/{size}"
    headers["content-length"] = str(length)
    chunks = call.service.bytes.read(row["version"], start, length)
    return StreamingResponse(chunks, status, headers)


def _head(row: Mapping[str, Any]) -> Response:
    known = row["metadata"]
    headers = _headers(known, datetime.fromisoformat(known["lastModified"]))
    return Response(headers={**headers, "content-length": str(known["contentLength"])})


def _info(row: Mapping[str, Any]) -> Response:
    known = row["metadata"] or {}
    body = {
        "id": str(row["id"]),
        "name": row["name"],
        "version": row["version"],
        "bucket_id": row["bucket_id"],
        "size": known.get("size"),
        "content_type": known.get("mimetype"),
        "cache_control": known.get("cacheControl"),
        "etag": known.get("eTag"),
        "metadata": row["user_metadata"],
        "last_modified": timestamp(row["updated_at"]),
        "created_at": timestamp(row["created_at"]),
    }
    headers = _headers(known, row["updated_at"])
    return Json(body, headers={name: headers[name] for name in ("etag", "last-modified", "cache-control")})


def _headers(known: Mapping[str, Any], last_modified: datetime) -> dict[str, str]:
    return {
        "accept-ranges": "bytes",
        "content-type": known["mimetype"],
        "etag": known["eTag"],
        "x-robots-tag": "none",
        "last-modified": format_datetime(last_modified.astimezone(UTC), usegmt=True),
        "cache-control": known["cacheControl"],
    }


def _range(asked: str, size: int) -> tuple[int, int]:
    """Return the start and the length of a range; several ranges are refused like an invalid one."""
    match = _RANGE.fullmatch(asked)
    if not match or not any(match.groups()) or size == 0:
        raise errors.invalid_range()
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise errors.invalid_range()
        return size - length, length
    start, end = int(match[1]), int(match[2] or size - 1)
    if start >= size or end < start:
        raise errors.invalid_range()
    return start, min(end, size - 1) - start + 1
