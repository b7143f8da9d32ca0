"""Resumable uploads (TUS 1.0.0), as tus-js-client makes them: created, with their first bytes or without, and appended to.

Whoever creates one or appends to it must be allowed to upload that object, so one that was uploaded meanwhile is not
replaced. Refusals are plain text with their own status, except those of a token. Uploads do not expire here. The sandbox
does not imitate concatenation, deferred lengths, termination and signed resumable uploads.
"""

import base64
import binascii
import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from watcher.sandbox.storage import errors
from watcher.sandbox.storage import rows as objects
from watcher.sandbox.storage.call import SIZE_LIMIT, Call, Handler
from watcher.sandbox.storage.partial import Refusal, Upload
from watcher.sandbox.storage.upload import metadata, must_be_allowed, permitted

_VERSION = "1.0.0"
_PATH = "/storage/v1/upload/resumable"  # the gateway's, which clients see
_BYTES = "application/offset+octet-stream"
_HEADERS = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "Authorization, Content-Type, Location, Tus-Extension, Tus-Max-Size, Tus-Resumable,"
    " Tus-Version, Upload-Concat, Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset,"
    " X-HTTP-Method-Override, X-Requested-With, X-Forwarded-Host, X-Forwarded-Proto, Forwarded,",
    "tus-resumable": _VERSION,
}


def _plain(handler: Handler) -> Handler:
    """Answer refusals as the TUS server does, once the request is read: a client that still sends would not see them."""

    async def answer(call: Call) -> Response:
        try:
            if call.request.headers.get("tus-resumable") != _VERSION:
                raise Refusal(412, "Tus-Resumable Required\n")
            return await handler(call)
        except Refusal as refusal:
            status, text = refusal.status, str(refusal)
        except errors.StorageError as refusal:
            status, text = int(refusal.body["statusCode"]), refusal.body["message"]
        except psycopg.Error as error:
            refused = errors.of_postgres(error).body
            status, text = int(refused["statusCode"]), refused["message"]
        with suppress(RuntimeError):  # it was read to its end
            async for _ in call.request.stream():
                pass
        return PlainTextResponse(text, status, {**_HEADERS, "content-type": "text/plain;charset=UTF-8"})

    return answer


@_plain
async def create(call: Call) -> Response:
    """Begin an upload, with its first bytes if there are any."""
    upload = _declared(call)
    if not upload.bucket or not upload.key:
        raise Refusal(400, "Upload-Metadata needs bucketName and objectName\n")
    objects.must_be_valid_key(upload.key)
    bucket = await objects.find_bucket(call, upload.bucket)
    if upload.length > min(bucket["file_size_limit"] or SIZE_LIMIT, SIZE_LIMIT):
        raise Refusal(413, "Maximum size exceeded\n")
    await _must_be_permitted(call, upload)
    must_be_allowed(upload.metadata.get("contentType", ""), bucket["allowed_mime_types"])
    call.service.uploads.create(upload)
    location = f"{call.request.url.scheme}://{call.request.url.netloc}{_PATH}/{upload.id}"
    headers = {"location": location, "content-type": "text/plain;charset=UTF-8"}
    if call.request.headers.get("content-type") == _BYTES:
        headers |= await _append(call, upload)
    return StreamingResponse(iter(()), 201, {**_HEADERS, **headers})


@_plain
async def append(call: Call) -> Response:
    """Append bytes where the ones before end."""
    offset = call.request.headers.get("upload-offset", "")
    if not offset.isdecimal():
        raise Refusal(403, "Upload-Offset header required\n")
    if call.request.headers.get("content-type") != _BYTES:
        raise Refusal(403, "Content-Type header required\n")
    upload = call.service.uploads.find(call.request.path_params["upload"])
    await _must_be_permitted(call, upload)
    if int(offset) != call.service.uploads.offset(upload):
        raise Refusal(409, "Upload-Offset conflict\n")
    return Response(status_code=204, headers={**_HEADERS, **await _append(call, upload)})


@_plain
async def show(call: Call) -> Response:
    """Say how many bytes are here, to anybody who knows the URL."""
    upload = call.service.uploads.find(call.request.path_params["upload"])
    call.service.uploads.interrupt(upload)
    at = {"upload-offset": str(call.service.uploads.offset(upload)), "upload-length": str(upload.length)}
    described = {"upload-metadata": upload.header, "cache-control": "no-store"}
    return Response(headers={**_HEADERS, **at, **described})


def _declared(call: Call) -> Upload:
    length, header = (call.request.headers.get(f"upload-{name}", "") for name in ("length", "metadata"))
    if not length.isdecimal():
        raise Refusal(400, "Upload-Length or Upload-Defer-Length header required\n")
    try:
        pairs = [pair.strip().partition(" ") for pair in header.split(",")]
        given = {name: base64.b64decode(value, validate=True).decode() for name, _, value in pairs}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refusal(400, "Upload-Metadata is invalid\n") from error
    bucket, key = given.get("bucketName", ""), given.get("objectName", "")
    return Upload(str(uuid4()), bucket, key, int(length), given, header)


async def _must_be_permitted(call: Call, upload: Upload) -> None:
    new = objects.NewObject(upload.bucket, upload.key, call.owner, {}, None)
    await permitted(call.transaction, new, overwrite=_overwrites(call))


async def _append(call: Call, upload: Upload) -> dict[str, str]:
    """Append the request's bytes, store the object if they were the last, and return the headers that say so."""
    uploads = call.service.uploads
    await uploads.append(upload, call.request.stream())
    offset = uploads.offset(upload)
    if offset == upload.length:
        await _complete(call, upload)
        return {"upload-offset": str(offset), "tus-complete": "1"}
    return {"upload-offset": str(offset)}


async def _complete(call: Call, upload: Upload) -> None:
    path, given = call.service.uploads.path(upload), upload.metadata
    stored = call.service.bytes.adopt(upload.version, path)
    seconds = given.get("cacheControl", "")
    cache_control = f"max-age={seconds}" if seconds.isdecimal() else "no-cache"
    found: dict[str, Any] = metadata(stored, given.get("contentType", ""), cache_control)
    own: dict[str, Any] = {}
    with suppress(ValueError):
        own = json.loads(given.get("metadata", ""))
    new = objects.NewObject(upload.bucket, upload.key, call.owner, found, own, upload.version)
    try:
        await objects.write(call, new)
    except BaseException:
        call.service.bytes.delete([upload.version])
        raise


def _overwrites(call: Call) -> bool:
    return call.request.headers.get("x-upsert") == "true"
