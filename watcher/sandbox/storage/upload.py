"""Uploads, as a form or a raw body: first the permission, then the bytes, then the row.

The permission is tested with an INSERT that is rolled back, before the body is read. After the bytes are stored, the row
is written by Storage itself. Nothing is locked in between: as on the real service, concurrent uploads can exceed a limit
that a policy enforces by counting objects.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from psycopg import errors as pg
from starlette.requests import Request
from starlette.responses import Response

from watcher.sandbox.storage import errors, tokens
from watcher.sandbox.storage import rows as objects
from watcher.sandbox.storage.bytes import Stored
from watcher.sandbox.storage.call import SIZE_LIMIT, Call, Rows
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.form import Form

Transaction = Callable[[], AbstractAsyncContextManager[Rows]]

_SIGNED_SECONDS = 2 * 60 * 60
_NAME_BYTES = 255


@dataclass(frozen=True)
class Declared:
    """What the client declares about an object before its bytes are read; it is not checked."""

    mime_type: str
    cache_control: str
    user_metadata: Mapping[str, Any] | None
    chunks: AsyncIterator[bytes]
    limited: bool = True
    """Whether more bytes than the limit are refused; of a raw body only the Content-Length is looked at."""


async def create(call: Call) -> Response:
    """Upload a new object, or with `x-upsert` overwrite one."""
    row = await _upload(call, call.transaction, call.owner, overwrite=_upsert(call.request))
    return Json({"Key": f"{call.bucket}/{call.key}", "Id": str(row["id"])})


async def update(call: Call) -> Response:
    """Upload an object, or overwrite one."""
    row = await _upload(call, call.transaction, call.owner, overwrite=True)
    return Json({"Key": f"{call.bucket}/{call.key}", "Id": str(row["id"])})


async def sign(call: Call) -> Response:
    """Sign a URL for an upload that the caller may make now."""
    overwrite = _upsert(call.request)
    metadata = {"mimetype": call.request.headers.get("content-type")}
    new = objects.NewObject(call.bucket, call.key, call.owner, metadata, None)
    await permitted(call.transaction, new, overwrite=overwrite)
    path = f"{call.bucket}/{call.key}"
    token = await tokens.sign(call, path, "upload", _SIGNED_SECONDS, owner=call.owner, upsert=overwrite)
    return Json({"url": f"/object/upload/sign/{path}?token={token}", "token": token})


async def signed(call: Call) -> Response:
    """Upload an object with a signed URL; the permission was tested when it was signed."""
    claims = tokens.verify(call, "upload")
    await _upload(call, call.admin, claims.get("owner"), overwrite=bool(claims.get("upsert")))
    return Json({"Key": f"{call.bucket}/{call.key}"})


async def permitted(transaction: Transaction, new: objects.NewObject, *, overwrite: bool) -> None:
    """Test whether policies allow this row, and roll back. It is refused if not, or if it exists."""
    try:
        async with transaction() as rows, rows.connection.transaction(force_rollback=True):
            if overwrite:
                await objects.upsert(rows, new)
            else:
                await objects.insert(rows, new)
    except pg.UniqueViolation as error:
        raise errors.exists("KeyAlreadyExists") from error


def metadata(stored: Stored, mime_type: str, cache_control: str) -> dict[str, Any]:
    """Return the metadata column of storage.objects."""
    return {
        "eTag": stored.etag,
        "size": stored.size,
        "mimetype": mime_type,
        "cacheControl": cache_control,
        "lastModified": objects.timestamp(stored.modified),
        "contentLength": stored.size,
        "httpStatusCode": 200,
    }


def metadata_header(request: Request) -> Mapping[str, Any] | None:
    """Return the user's metadata in the header x-metadata; None without it."""
    return _user_metadata(base64.b64decode(request.headers.get("x-metadata", "")))


async def _upload(
    call: Call, transaction: Transaction, owner: str | None, *, overwrite: bool
) -> dict[str, Any]:
    body = call.request.stream()
    try:
        return await _store(call, body, transaction, owner, overwrite=overwrite)
    except Exception:
        # A client that is still sending would get a broken pipe instead of the answer.
        async for _ in body:
            pass
        raise


async def _store(
    call: Call, body: AsyncIterator[bytes], transaction: Transaction, owner: str | None, *, overwrite: bool
) -> dict[str, Any]:
    bucket = await objects.find_bucket(call, call.bucket)
    limit = min(bucket["file_size_limit"] or SIZE_LIMIT, SIZE_LIMIT)
    declared = await _declared(call.request, body, bucket["allowed_mime_types"], limit)
    objects.must_be_valid_key(call.key)
    announced = {"mimetype": declared.mime_type, "contentLength": _content_length(call.request)}
    new = objects.NewObject(call.bucket, call.key, owner, announced, declared.user_metadata)
    await permitted(transaction, new, overwrite=overwrite)

    version = str(uuid4())
    if {".", ".."} & set(call.key.split("/")):
        raise errors.invalid_key(
            f"stub/stub/{call.bucket}/{call.key}/{version}", " contains dot path segment"
        )
    if any(len(part.encode()) > _NAME_BYTES for part in call.key.split("/")):
        raise errors.internal()  # the file system's limit, of which the real one says no more
    stored = await call.service.bytes.write(version, declared.chunks, limit if declared.limited else None)
    found = metadata(stored, declared.mime_type, declared.cache_control)
    user_metadata = declared.user_metadata or {}
    try:
        return await objects.write(
            call, replace(new, version=version, metadata=found, user_metadata=user_metadata)
        )
    except BaseException:
        call.service.bytes.delete([version])
        raise


async def _declared(
    request: Request, body: AsyncIterator[bytes], allowed: list[str] | None, limit: int
) -> Declared:
    """Read what precedes the bytes. A type that the bucket does not allow is refused."""
    content_type = request.headers.get("content-type", "application/octet-stream")
    if not content_type.startswith("multipart/form-data"):
        must_be_allowed(content_type, allowed)
        if (_content_length(request) or 0) > limit:
            raise errors.too_large()
        cache_control = request.headers.get("cache-control", "no-cache")
        return Declared(content_type, cache_control, metadata_header(request), body, limited=False)
    form = Form(content_type, body)
    await form.open()
    must_be_allowed(form.mime_type, allowed)
    seconds = form.fields.get("cacheControl")
    cache_control = f"max-age={seconds}" if seconds else "no-cache"
    return Declared(
        form.mime_type, cache_control, _user_metadata(form.fields.get("metadata", "")), form.chunks()
    )


def must_be_allowed(mime_type: str, allowed: list[str] | None) -> None:
    """Refuse a declared type that the bucket does not allow."""
    kind = mime_type.partition("/")[0]
    if allowed and mime_type not in allowed and f"{kind}/*" not in allowed:
        raise errors.invalid_mime_type(mime_type)


def _user_metadata(text: str | bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _content_length(request: Request) -> int | None:
    length = request.headers.get("content-length")
    return None if length is None else int(length)


def _upsert(request: Request) -> bool:
    return request.headers.get("x-upsert") == "true"
