"""Listings of a bucket, folder by folder; a folder is what precedes a slash in a key."""

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any, Self

from psycopg import sql
from starlette.responses import Response

from watcher.sandbox.storage import errors
from watcher.sandbox.storage.body import Field, read
from watcher.sandbox.storage.call import Call
from watcher.sandbox.storage.errors import Json
from watcher.sandbox.storage.rows import LISTED, row_json, timestamp

ORDERS = {"asc": sql.SQL("asc"), "desc": sql.SQL("desc")}
ORDER = Field(str, choices=tuple(ORDERS))
_SORTABLE = ("name", "updated_at", "created_at", "last_accessed_at")

# A folder's name ends with its slash, by which it is sorted among the files. `fold` is how names are compared. Its
# time is that of its oldest object.
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
        (select distinct on ({fold}(folder)) folder, null, {began}, {began}, null, null, {fold}(folder)
         from found where folder is not null order by {fold}(folder), name)
    )
    select * from entries
""")
_BEGAN = sql.SQL("min(created_at) over (partition by folder)")
_NO_TIME = sql.SQL("null::timestamptz")
_FOLDED = _ENTRIES.format(fold=sql.SQL("lower"), delimiter=sql.Literal("/"), began=_NO_TIME)
_PAGE = sql.SQL("{entries} order by {places} limit %(limit)s offset %(offset)s")
_PAGE_AFTER = sql.SQL("""{entries}
    where %(after)s = '' or place collate "C" {later} %(after)s
    order by place collate "C" {order} limit %(limit)s""")
_PAGE_AFTER_TIME = sql.SQL("""{entries}
    where %(after)s = '' or (date_trunc('milliseconds', {column}), name collate "C")
        {later} (coalesce(nullif(%(time)s, '')::timestamptz, 'epoch'), %(after)s)
    order by date_trunc('milliseconds', {column}) {order}, name collate "C" {order} limit %(limit)s""")


@dataclass(frozen=True)
class _Cursor:
    """Where the previous page ended, and how it was sorted; that is what `nextCursor` holds."""

    order: str | None
    column: str | None
    name: str = ""
    time: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise `StorageError` for what is no cursor."""
        try:
            lines = base64.b64decode(text).decode().split("\n")
            parts = {name: value for name, value in (line.split(":", 1) for line in lines) if name in "loca"}
            return cls(parts.get("o"), parts.get("c"), parts["l"], parts.get("a", ""))
        except (binascii.Error, UnicodeDecodeError, KeyError, ValueError) as error:
            message = "Invalid Parameter continuation token"
            raise errors.StorageError(400, "InvalidParameter", message) from error

    def __str__(self) -> str:
        """Return the cursor as it is sent."""
        parts = {"l": self.name, "o": self.order, "c": self.column, "a": self.time}
        text = "\n".join(f"{name}:{value}" for name, value in parts.items() if value)
        return base64.b64encode(text.encode()).decode()


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
    column, order = by.get("column", "name"), ORDERS[by.get("order", "asc")]
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
        "sortBy": _sort_by("name", "updated_at", "created_at"),
    }
    body = await read(call.request, fields)
    prefix, limit = body.get("prefix", ""), min(body.get("limit", 1000), 1000)
    by = body.get("sortBy", {})
    before = _Cursor.parse(body["cursor"]) if body.get("cursor") else _Cursor(None, None)
    sort = _Cursor(before.order or by.get("order"), before.column or by.get("column"))
    delimiter = "/" if body.get("with_delimiter") else "\n"  # which no key has
    page = _page_after(sort, delimiter)
    values = {"bucket": call.bucket, "start": prefix, "limit": limit + 1}
    async with call.transaction() as rows:
        await rows.execute(page, {**values, "after": before.name, "time": before.time})
        entries = await rows.fetchall()
    more = len(entries) > limit
    del entries[limit:]
    listed = [
        {**({"key": _relative(row["name"], prefix)} if delimiter == "/" else {}), **row_json(row, LISTED)}
        for row in entries
    ]
    answer: dict[str, Any] = {"hasNext": more}
    if more:
        last = entries[-1]
        time = timestamp(last[sort.column]) if sort.column not in {None, "name"} else ""
        answer["nextCursor"] = str(replace(sort, name=last["name"], time=time))
        answer["nextCursorKey"] = last["name"]
    answer["folders"] = [entry for entry in listed if entry["id"] is None]
    answer["objects"] = [entry for entry in listed if entry["id"] is not None]
    return Json(answer)


def _page_after(sort: _Cursor, delimiter: str) -> sql.Composed:
    """Return the statement of one page."""
    by_time = sort.column not in {None, "name"}
    order = sort.order if sort.order in ORDERS else "asc"
    return (_PAGE_AFTER_TIME if by_time else _PAGE_AFTER).format(
        entries=_ENTRIES.format(
            fold=sql.SQL(""), delimiter=sql.Literal(delimiter), began=_BEGAN if by_time else _NO_TIME
        ),
        later=sql.SQL(">" if order == "asc" else "<"),
        order=ORDERS[order or "asc"],
        column=sql.Identifier(sort.column or "name"),
    )


def _sort_by(*columns: str) -> Field:
    return Field(dict, fields={"column": Field(str, required=True, choices=columns), "order": ORDER})


def _relative(name: str, prefix: str) -> str:
    return name[len(prefix) :].rstrip("/")
