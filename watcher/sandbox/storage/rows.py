"""Rows of storage.buckets and storage.objects: their JSON, and what several routes do with them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from watcher.sandbox.storage import errors
from watcher.sandbox.storage.call import Call, Rows

BUCKET = (
    "id",
    "name",
    "owner",
    "public",
    "file_size_limit",
    "allowed_mime_types",
    "created_at",
    "updated_at",
)
LISTED = ("name", "id", "updated_at", "created_at", "last_accessed_at", "metadata")
OBJECT = (
    *(
        "name",
        "bucket_id",
        "owner",
        "owner_id",
        "version",
        "id",
        "updated_at",
        "created_at",
        "last_accessed_at",
    ),
    *("metadata", "user_metadata"),
)
_NEVER_NULL = {"owner", "owner_id", "version"}
_KEY = re.compile(r"[A-Za-z0-9_/!.*'() &$=@;:+,?-]+")
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)

_INSERT = """
insert into storage.objects (name, owner, owner_id, bucket_id, metadata, user_metadata, version)
values (%(name)s, %(owner)s, %(owner_id)s, %(bucket)s, %(metadata)s, %(user_metadata)s, %(version)s)
"""
_OVERWRITE = """
on conflict (name, bucket_id) do update set
    metadata = excluded.metadata, user_metadata = excluded.user_metadata, version = excluded.version,
    owner = coalesce(excluded.owner, objects.owner), owner_id = coalesce(excluded.owner_id, objects.owner_id)
returning *
"""


@dataclass(frozen=True)
class NewObject:
    """An object to be written; `version` is that of its bytes."""

    bucket: str
    key: str
    owner: str | None
    metadata: Mapping[str, Any]
    user_metadata: Mapping[str, Any] | None
    version: str = "1"

    def values(self) -> dict[str, Any]:
        """Return the columns."""
        return {
            "bucket": self.bucket,
            "name": self.key,
            "version": self.version,
            "owner": self.owner if self.owner and _UUID.fullmatch(self.owner) else None,
            "owner_id": self.owner,
            "metadata": Jsonb(self.metadata),
            "user_metadata": None if self.user_metadata is None else Jsonb(self.user_metadata),
        }


def row_json(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    """Return columns of a row, in that order, as values of JSON."""
    return {name: _json(name, row[name]) for name in columns}


def timestamp(moment: datetime) -> str:
    """Return a time in JavaScript's format: UTC, milliseconds, Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def must_be_valid_key(key: str) -> None:
    """Refuse a key with characters that S3 does not call safe."""
    if not _KEY.fullmatch(key):
        raise errors.invalid_key(key)


async def find_bucket(call: Call, bucket: str) -> dict[str, Any]:
    """Return a bucket's row, whoever the caller is. An unknown bucket is refused."""
    async with call.admin() as rows:
        await rows.execute("select * from storage.buckets where id = %s", [bucket])
        row = await rows.fetchone()
    if row is None:
        raise errors.no_such_bucket()
    return row


async def find_object(rows: Rows, bucket: str, key: str) -> dict[str, Any]:
    """Return an object's row. An object that is not visible in this transaction is refused."""
    must_be_valid_key(key)
    await rows.execute("select * from storage.objects where bucket_id = %s and name = %s", [bucket, key])
    row = await rows.fetchone()
    if row is None:
        raise errors.no_such_key()
    return row


async def insert(rows: Rows, new: NewObject) -> None:
    """Insert an object without returning the row, so that an INSERT policy is enough."""
    await rows.execute(_INSERT, new.values())


async def upsert(rows: Rows, new: NewObject) -> dict[str, Any]:
    """Insert an object, or overwrite the one of that key, and return its row."""
    await rows.execute(_INSERT + _OVERWRITE, new.values())
    row = await rows.fetchone()
    assert row is not None
    return row


async def write(call: Call, new: NewObject) -> dict[str, Any]:
    """Upsert as Storage itself, and delete the bytes of the version that is replaced."""
    async with call.admin() as rows:
        await rows.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [new.key])
        find = (
            "select version from storage.objects where bucket_id = %(bucket)s and name = %(name)s for update"
        )
        await rows.execute(find, new.values())
        previous = await rows.fetchone()
        row = await upsert(rows, new)
    if previous is not None:
        call.service.bytes.delete([previous["version"]])
    return row


def _json(name: str, value: Any) -> Any:
    match value:
        case None:
            return "" if name in _NEVER_NULL else None
        case datetime():
            return timestamp(value)
        case UUID():
            return str(value)
    return value
