"""The session with the replication slot: the changes, and what each role may see of them."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import errors

from watcher.sandbox.realtime.bindings import Binding, BindingError, Filter
from watcher.sandbox.realtime.wal import Change, Decoder, Row

PUBLICATION = "supabase_realtime"

_FUNCTIONS = Path(__file__).with_name("realtime.sql").read_text()
_POLL_CHANGES = 100
_READ = """
select data from pg_logical_slot_get_binary_changes(
    %s, null, %s, 'proto_version', '1', 'publication_names', %s)
"""
_TABLES = """
select format('%%I.%%I', schemaname, tablename)::regclass::oid from pg_publication_tables
where pubname = %(publication)s
  and %(schema)s::name in ('*', schemaname) and %(table)s::name in ('*', tablename)
"""
_COLUMN = """
select atttypid::regtype::text, has_column_privilege(%(role)s, attrelid, attnum, 'select')
from pg_attribute where attrelid = %(entity)s and attname = %(column)s and attnum > 0 and not attisdropped
"""
_ROLE = "select state, message from pg_temp.problem(format('select %%L::regrole', %s::text))"
_FILTER = """
select state, message from pg_temp.problem(
    format('select pg_temp.passes(%%L, %%L::regtype, null, %%L, false)', %s::text, %s::text, %s::text))
"""
_EVENT = """
select data, rls, key from pg_temp.event(
    %(entity)s, %(action)s, %(committed)s, %(reader)s, %(chosen)s,
    %(names)s, %(texts)s, %(old_names)s, %(old_texts)s)
"""
_PASSES = """
select pg_temp.passes(%(operator)s, atttypid::regtype, %(text)s, %(operand)s, %(negated)s)
from pg_attribute where attrelid = %(entity)s and attname = %(column)s
"""


@dataclass(frozen=True)
class View:
    """A change as one role sees it."""

    data: str
    """The event's data, as JSON."""
    unreadable: bool
    """The role may not read the key, or there is none: the event is sent without a row, whatever the filters."""
    rls: bool
    """Row-level security decides whether the row is visible."""
    key: tuple[str, ...]
    """The columns of the primary key."""


class Stream:
    """A temporary slot and its session. Both end with the connection."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._slot = f"supabase_realtime_replication_slot_{uuid4().hex}"

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator["Stream"]:
        """Connect as the superuser and create the slot; the stream has what is committed from then on."""
        connection = await psycopg.AsyncConnection.connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            options="-c timezone=UTC",
            application_name="realtime_rls",
        )
        try:
            stream = cls(connection)
            await connection.execute(_FUNCTIONS.encode())
            await connection.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput', true)", [stream._slot]
            )
            yield stream
        finally:
            await connection.close()

    async def changes(self) -> tuple[list[Change], bool]:
        """Return the changes that were committed since the last call, and whether the slot had anything at all."""
        cursor = await self._connection.execute(_READ, [self._slot, _POLL_CHANGES, PUBLICATION], binary=True)
        decoder = Decoder()  # each call describes its tables again
        messages = await cursor.fetchall()
        decoded = [decoder.decode(bytes(data)) for (data,) in messages]
        return [change for change in decoded if change is not None], bool(messages)

    async def tables(self, schema: str = "*", table: str = "*") -> frozenset[int]:
        """Return the oids of the published tables of these names."""
        names = {"publication": PUBLICATION, "schema": schema, "table": table}
        cursor = await self._connection.execute(_TABLES, names)
        return frozenset([oid for (oid,) in await cursor.fetchall()])

    async def check(self, binding: Binding, claims: Mapping[str, Any]) -> frozenset[int]:
        """Return the tables of `binding`. Raises `BindingError` with the message of the real service."""
        tables = await self.tables(binding.schema, binding.table)
        unable = "Unable to subscribe to changes with given parameters. "
        if not tables:
            hint = "Please check Realtime is enabled for the given connect parameters: "
            raise BindingError(f"{unable}{hint}{binding}")
        try:
            await self._try(_ROLE, claims["role"])
            for entity in tables:
                for condition in binding.filters:
                    await self._check_filter(entity, claims["role"], condition)
                for column in binding.columns or ():
                    await self._type(entity, claims["role"], column, "select")
        except _Refused as error:
            hint = "An exception happened so please check your connect parameters: "
            raise BindingError(f"{unable}{hint}{binding}. Exception: {error}") from error
        return tables

    async def view(self, change: Change, reader: str, chosen: Sequence[str] | None) -> View:
        """Return a change as the role `reader` sees it, with the `chosen` columns and the key."""
        values = {
            "entity": change.relation.oid,
            "action": change.action,
            "committed": change.committed,
            "reader": reader,
            "chosen": None if chosen is None else list(chosen),
            **_arrays("", change.new),
            **_arrays("old_", change.old),
        }
        cursor = await self._connection.execute(_EVENT, values)
        row = await cursor.fetchone()
        assert row is not None
        data, rls, key = row
        deleted = change.action == "DELETE"
        unreadable = key is None and not deleted
        return View(data, unreadable, rls and not unreadable and not deleted, tuple(key or ()))

    async def passes(self, change: Change, filters: Sequence[Filter]) -> bool:
        """Return whether the new row, or a deleted one, passes all filters."""
        row = change.old if change.new is None else change.new
        assert row is not None
        for condition in filters:
            if condition.column not in row:
                return False
            values = {
                "entity": change.relation.oid,
                "column": condition.column,
                "operator": condition.operator,
                "text": row[condition.column],
                "operand": condition.value,
                "negated": condition.negated,
            }
            cursor = await self._connection.execute(_PASSES, values)
            if await cursor.fetchone() != (True,):
                return False
        return True

    async def _check_filter(self, entity: int, role: str, condition: Filter) -> None:
        """Try a filter with a null value, to see whether Postgres can evaluate it."""
        kind = await self._type(entity, role, condition.column, "filter")
        operator, value = condition.operator, condition.value
        if operator == "is":
            if value not in {"null", "true", "false", "unknown"}:
                raise _Refused("invalid value for is filter: must be null, true, false, or unknown")
            if value != "null" and kind != "boolean":
                raise _Refused(f"is {value} filter requires a boolean column, got {kind}")
        await self._try(_FILTER, operator, kind, value)

    async def _type(self, entity: int, role: str, column: str, use: str) -> str:
        names = {"entity": entity, "role": role, "column": column}
        cursor = await self._connection.execute(_COLUMN, names)
        row = await cursor.fetchone()
        if row is None or not row[1]:
            raise _Refused(f"invalid column for {use} {column}")
        return str(row[0])

    async def _try(self, statement: str, *values: object) -> None:
        """Try a statement. Raises `_Refused` if Postgres refuses it."""
        cursor = await self._connection.execute(statement.encode(), values)
        for state, message in await cursor.fetchall():
            if state is not None:
                raise _Refused(message, state)


class _Refused(Exception):
    """A refusal of Postgres, or of the real service's functions there, with the message of its driver."""

    def __init__(self, message: str, state: str = "P0001") -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", errors.lookup(state).__name__).lower()
        super().__init__(f"ERROR {state} ({name}) {message}")


def _arrays(prefix: str, row: Row | None) -> dict[str, list[str | None] | None]:
    return {
        f"{prefix}names": None if row is None else list(row),
        f"{prefix}texts": None if row is None else list(row.values()),
    }
