"""Listings of a bucket, folder by folder; a folder is what precedes a slash in a key."""

import base64
import binascii
from typing import Any

from psycopg import sql
from starlette.responses import Response

from watcher.sandbox.storage import errors
from watcher.sandbox.storage.body import Field, read
from watcher.sandbox.storage.call import Call
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.rows import LISTED, row_json

_ORDERS = {"asc": sql.SQL("asc"), "desc": sql.SQL("desc")}
_ORDER = Field(str, choices=tuple(_ORDERS))
_SORTABLE = ("name", "updated_at", "created_at", "last_accessed_at")

# A folder's name ends with its slash, by which it is sorted among the files. `fold` is how names are compared.
_ENTRIES = sql.SQL("""
    with found as (
        select *, case when strpos(rest, {delimiter}) > 0
                  then left(name, length(name) - length(rest) + strpos(rest, {delimiter})) end as folder
        from storage.objects, substr(name, length(%(start)s) + 1) as rest
        where bucket_id = %(bucket)s and starts_with({fold}(name), {fold}(%(start)s))
    ), entries as (
        select name, id, updated_at, created_at, last_accessed_at, metadata, {fold}(name) as place
        from found where folder is null
        union all
        (select distinct on ({fold}(folder)) folder, null, null, null, null, null, {fold}(folder)
         from found where folder is not null order by {fold}(folder), name)
    )
    select * from entries
""")
_FOLDED = _ENTRIES.format(fold=sql.SQL("lower"), delimiter=sql.Literal("/"))
_PAGE = sql.SQL("{entries} order by {places} limit %(limit)s offset %(offset)s")
_PAGE_AFTER = sql.SQL("""{entries}
    where %(after)s = '' or place collate "C" {later} %(after)s
    order by place collate "C" {order} limit %(limit)s""")


async def v1(call: Call) -> Response:
    """List a folder, ignoring case; an unknown bucket, or a folder that is not visible, is empty."""
    fields = {
        "prefix": Field(str, required=True),
        "limit": Field(int, minimum=1),
        "offset": Field(int, minimum=0),
        "search": Field(str),
        "sortBy": _sort_by(*_SORTABLE),
    }
    body = await read(call.request, fields)
    prefix = body["prefix"]
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    by = body.get("sortBy", {})
    column, order = by.get("column", "name"), _ORDERS[by.get("order", "asc")]
    if column == "name":
        places = sql.SQL('place collate "C" {}').format(order)
    else:  # folders have no times, and come first
        files_last = sql.SQL('id is not null, case when id is null then place end collate "C" {0}, {1} {0}')
        places = files_last.format(order, sql.Identifier(column))
    values = {
        "bucket": call.bucket,
        "start": prefix + body.get("search", ""),
        "limit": min(body.get("limit", 100), 1500),
        "offset": body.get("offset", 0),
    }
    async with call.transaction() as rows:
        await rows.execute(_PAGE.format(entries=_FOLDED, places=places), values)
        entries = await rows.fetchall()
    return Json([{**row_json(row, LISTED), "name": _relative(row["name"], prefix)} for row in entries])


async def v2(call: Call) -> Response:
    """List keys with a prefix, sorted, page by page; with a delimiter, only the folders and files of one level."""
    fields = {
        "prefix": Field(str),
        "limit": Field(int, minimum=1),
        "cursor": Field(str),
        "with_delimiter": Field(bool),
        "sortBy": _sort_by("name"),
    }
    body = await read(call.request, fields)
    prefix, limit = body.get("prefix", ""), min(body.get("limit", 1000), 1000)
    order, after = _cursor(body["cursor"]) if "cursor" in body else ("asc", "")
    order = body.get("sortBy", {}).get("order", order)
    delimiter = "/" if body.get("with_delimiter") else "\n"  # which no key has
    page = _PAGE_AFTER.format(
        entries=_ENTRIES.format(fold=sql.SQL(""), delimiter=sql.Literal(delimiter)),
        later=sql.SQL(">" if order == "asc" else "<"),
        order=_ORDERS[order],
    )
    async with call.transaction() as rows:
        await rows.execute(page, {"bucket": call.bucket, "start": prefix, "after": after, "limit": limit + 1})
        entries = await rows.fetchall()
    more = len(entries) > limit
    del entries[limit:]
    listed = [
        {**({"key": _relative(row["name"], prefix)} if delimiter == "/" else {}), **row_json(row, LISTED)}
        for row in entries
    ]
    body = {
        "hasNext": more,
        "folders": [entry for entry in listed if entry["id"] is None],
        "objects": [entry for entry in listed if entry["id"] is not None],
    }
    if more:
        body["nextCursor"] = base64.b64encode(f"l:{entries[-1]['name']}\no:{order}".encode()).decode()
    return Json(body)


def _sort_by(*columns: str) -> Field:
    return Field(dict, fields={"column": Field(str, required=True, choices=columns), "order": _ORDER})


def _relative(name: str, prefix: str) -> str:
    return name[len(prefix) :].rstrip("/")


def _cursor(text: str) -> tuple[str, str]:
    """Return the order and the last name of the previous page."""
    try:
        parts: dict[str, Any] = dict(
            line.split(":", 1) for line in base64.b64decode(text).decode().split("\n")
        )
        return parts.get("o", "asc"), parts["l"]
    except (binascii.Error, UnicodeDecodeError, KeyError, ValueError) as error:
        message = "Invalid Parameter continuation token"
        raise errors.StorageError(400, "InvalidParameter", message) from error
