"""Buckets: create, show, list, change, empty, delete. By default no policy allows a user any of it."""

import re
from collections.abc import Mapping
from typing import Any

from psycopg import errors as pg
from psycopg import sql
from starlette.responses import Response

from watcher.sandbox.storage import errors
from watcher.sandbox.storage.body import Field, read, read_query
from watcher.sandbox.storage.call import SIZE_LIMIT, Call
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.list import ORDER, ORDERS
from watcher.sandbox.storage.rows import BUCKET, find_bucket, row_json

_NAME = re.compile(r"[A-Za-z0-9_!.*'() &$=@;:+,?-]{1,100}")
_MIME_TYPE = re.compile(r"[a-zA-Z0-9\-+.]+/[a-zA-Z0-9\-+.]+(;\s*charset=[a-zA-Z0-9\-]+)?|.*\*")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(gb|mb|kb|b)", re.IGNORECASE)
_UNITS = {"gb": 1e9, "mb": 1e6, "kb": 1e3, "b": 1}  # decimal units: 20MB is less than 20 MiB
_LIMITS = {
    "public": Field(bool),
    "file_size_limit": Field(object, nullable=True),
    "allowed_mime_types": Field(list, nullable=True),
}


_LISTING = {
    "limit": Field(int, minimum=1),
    "offset": Field(int, minimum=0),
    "sortColumn": Field(str, choices=("id", "name", "created_at", "updated_at")),
    "sortOrder": ORDER,
    "search": Field(str),
}


async def create(call: Call) -> Response:
    """Create a bucket."""
    body = await read(call.request, {"name": Field(str, required=True), "id": Field(str), **_LIMITS})
    name = body["name"]
    if name != name.strip() or not _NAME.fullmatch(name):
        raise errors.invalid_bucket_name()
    row = {
        "id": body.get("id") or name,
        "name": name,
        "public": False,
        "owner_id": call.owner,
        **_limits(body),
    }
    insert = sql.SQL("insert into storage.buckets ({}) values ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Placeholder, row))
    )
    try:
        async with call.transaction() as rows:
            await rows.execute(insert, row)
    except pg.UniqueViolation as error:
        raise errors.exists("BucketAlreadyExists") from error
    return Json({"name": name})


async def show(call: Call) -> Response:
    """Show one bucket."""
    return Json(row_json(await _visible(call), BUCKET))


async def list_all(call: Call) -> Response:
    """List the buckets that are visible to the caller; in order of their creation if the query says none."""
    columns = (*BUCKET[:4], "type", *BUCKET[4:])
    asked = read_query(call.request, _LISTING)
    statement = sql.SQL("""
        select * from storage.buckets where strpos(lower(name), lower(%(search)s)) > 0 or %(search)s = ''
        order by {} {}, id limit %(limit)s offset %(offset)s
    """).format(sql.Identifier(asked.get("sortColumn", "created_at")), ORDERS[asked.get("sortOrder", "asc")])
    page = {name: asked.get(name) for name in ("limit", "offset")}
    async with call.transaction() as rows:
        await rows.execute(statement, {"search": asked.get("search", ""), **page})
        return Json([row_json(row, columns) for row in await rows.fetchall()])


async def update(call: Call) -> Response:
    """Change whether a bucket is public, and its limits."""
    changes = _limits(await read(call.request, _LIMITS))
    if not changes:
        raise errors.invalid_request("body must have required property 'public'")
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in changes
    )
    statement = sql.SQL("update storage.buckets set {} where id = %(bucket)s").format(assignments)
    async with call.transaction() as rows:
        await rows.execute(statement, {**changes, "bucket": call.bucket})
        if rows.rowcount == 0:
            raise errors.no_such_bucket()
    return Json({"message": "Successfully updated"})


async def empty(call: Call) -> Response:
    """Delete all objects of a bucket; at once, where the real service says within an hour."""
    if call.caller.role != "service_role":
        raise errors.invalid_role()
    await _visible(call)
    async with call.admin() as rows:
        await rows.execute(
            "delete from storage.objects where bucket_id = %s returning version", [call.bucket]
        )
        deleted = await rows.fetchall()
    call.service.bytes.delete(row["version"] for row in deleted)
    return Json({"message": "Empty bucket has been queued. Completion may take up to an hour."})


async def delete(call: Call) -> Response:
    """Delete a bucket that is empty."""
    await find_bucket(call, call.bucket)
    async with call.admin() as rows:
        await rows.execute("select from storage.objects where bucket_id = %s limit 1", [call.bucket])
        if rows.rowcount:
            raise errors.bucket_not_empty()
    async with call.transaction() as rows:
        await rows.execute("delete from storage.buckets where id = %s", [call.bucket])
        if rows.rowcount == 0:
            raise errors.no_such_bucket()
    return Json({"message": "Successfully deleted"})


async def _visible(call: Call) -> dict[str, Any]:
    async with call.transaction() as rows:
        await rows.execute("select * from storage.buckets where id = %s", [call.bucket])
        row = await rows.fetchone()
    if row is None:
        raise errors.no_such_bucket()
    return row


def _limits(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that `body` sets, checked."""
    row = {name: body[name] for name in _LIMITS if name in body}
    if row.get("file_size_limit") is not None:
        row["file_size_limit"] = _size(row["file_size_limit"])
    for mime_type in row.get("allowed_mime_types") or ():
        if not _MIME_TYPE.fullmatch(mime_type):
            raise errors.invalid_mime_type(mime_type)
    return row


def _size(value: object) -> int:
    """Return a limit in bytes, given as a number or as text with a unit."""
    match = _SIZE.fullmatch(str(value))
    if match:
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    elif isinstance(value, int | str) and str(value).isdecimal():
        size = int(value)
    else:
        sentence = "Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B"
        raise errors.StorageError(400, "InvalidRequest", sentence)
    if size > SIZE_LIMIT:
        raise errors.too_large()
    return size
