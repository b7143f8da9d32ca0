"""The services' access to Postgres: one transaction per request, with the role and claims of its caller."""

import json
import sys
from asyncio import Semaphore, timeout
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from psycopg import AsyncConnection, AsyncCursor, OperationalError
from psycopg.pq import TransactionStatus

from watcher.sandbox.keys import Caller

Cursor = AsyncCursor[tuple[Any, ...]]
Connection = AsyncConnection[tuple[Any, ...]]

_ACQUIRE_SECONDS = 10.0
# Only statements with `prepare=True` are prepared, which read nothing but the system catalogue: a migration may change a
# table that a prepared statement uses. Psycopg prepares others after so many executions, so the number is out of reach;
# None would disable `prepare=True` as well.
_NEVER = sys.maxsize
# Psycopg caches the text of this many statements to count their executions, and a request's body is part of the text.
# Three are prepared.
_CACHED_STATEMENTS = 4
# In this order and in one statement, as in PostgREST. A role's own settings (such as statement_timeout) apply only to
# a session of that role, so they are copied, without those that only a superuser may set. Reading pg_settings takes
# 0.7 ms and is skipped for a role without settings, as the daemon's.
_ENTER = """
select set_config('search_path', %(search_path)s, true),
       (select case when rolconfig is not null then (
            select count(set_config(known.name, substr(own.line, strpos(own.line, '=') + 1), true))
              from unnest(rolconfig) own (line)
              join pg_settings known on known.name = split_part(own.line, '=', 1)
             where known.context = 'user' and known.name <> 'search_path') end
          from pg_roles where rolname = %(role)s),
       set_config('role', %(role)s, true),
       set_config('request.jwt.claims', %(claims)s, true),
       (select count(set_config(key, value, true)) from json_each_text(%(settings)s))
"""


class Pool:
    """At most `size` connections to one URL, opened when needed.

    psycopg_pool does not fit: while Postgres is down it makes callers wait, and it reconnects with a growing back-off.
    The sandbox has to fail at once, and to work again at once.
    """

    def __init__(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._free = Semaphore(size)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def transaction(self, *, read_only: bool | None = None) -> AsyncIterator[Cursor]:
        """Open a transaction, which is committed unless an exception leaves the block.

        Raises `psycopg.OperationalError` if Postgres is down, `TimeoutError` after waiting 10 s for a connection.
        """
        async with timeout(_ACQUIRE_SECONDS):
            await self._free.acquire()
        try:
            async with AsyncExitStack() as stack:
                connection = await self._begin(stack, read_only=read_only)
                yield await stack.enter_async_context(connection.cursor())
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _begin(self, stack: AsyncExitStack, *, read_only: bool | None) -> Connection:
        """Return a connection in a transaction; `stack` ends both.

        An idle connection is tested with BEGIN, so that a failure loses nothing. Its socket does not show that the
        back-end is about to terminate.
        """
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._begin_on(connection, stack, read_only=read_only)
            except OperationalError:  # closed while it was idle
                continue
        connection = await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=_NEVER)
        connection.prepared_max = _CACHED_STATEMENTS
        return await self._begin_on(connection, stack, read_only=read_only)

    async def _begin_on(
        self, connection: Connection, stack: AsyncExitStack, *, read_only: bool | None
    ) -> Connection:
        stack.push_async_callback(self._put_back, connection)
        await connection.set_read_only(read_only)
        await stack.enter_async_context(connection.transaction())
        return connection

    async def _put_back(self, connection: Connection) -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()


class Database:
    """One project's database, used as the API's login role and as the superuser."""

    def __init__(self, dsn: str, admin_dsn: str, *, size: int = 20) -> None:
        """Take the URLs for the role `authenticator` and for the superuser, and how many connections each may have."""
        self.admin_dsn = admin_dsn
        self._callers = Pool(dsn, size)
        self._admins = Pool(admin_dsn, size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all idle connections; a later transaction opens new ones."""
        await self._callers.close()
        await self._admins.close()

    @asynccontextmanager
    async def transaction(
        self,
        caller: Caller,
        *,
        read_only: bool = False,
        schema: str = "public",
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Cursor]:
        """Open a transaction as `caller`, which is committed unless an exception leaves the block.

        `settings` are further settings of the transaction (`request.method`, `storage.operation`). Raises
        `psycopg.Error` (22023: the role does not exist) and what `Pool.transaction` raises.
        """
        entering = {
            "search_path": f'"{schema}", "public", "extensions"',
            "role": caller.role,
            "claims": json.dumps(caller.claims),
            "settings": json.dumps(settings or {}),
        }
        async with self._callers.transaction(read_only=read_only) as cursor:
            await cursor.execute(_ENTER, entering, prepare=True)
            yield cursor

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Cursor]:
        """Open a transaction as the superuser, for what the real services do with their own admin roles."""
        async with self._admins.transaction() as cursor:
            yield cursor
