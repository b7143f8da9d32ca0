"""How the services reach Postgres: one transaction per request, with its caller's role and claims."""

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
# Only what says `prepare=True` is prepared, and reads nothing but the system catalogue: a migration may change
# a user's table under a prepared statement. A threshold of None would forbid `prepare=True` as well, so it is a
# number of executions that no statement reaches.
_NEVER = sys.maxsize
# Psycopg keeps the texts of so many statements, if only to count them, and bodies are part of the text. Three
# are to be prepared.
_KEPT = 4
# In this order, and in one statement, as PostgREST does. A role's own settings (a statement_timeout, say)
# count only for a session of that role, so they are copied; those only a superuser may set are left out.
# Looking into pg_settings takes 0.7 ms, which the daemon's role, having none, need not pay.
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

    Written here because a stand-in has to answer at once while Postgres is away, and again at once when it is
    back; psycopg_pool lets callers wait and reconnects ever more seldom.
    """

    def __init__(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._free = Semaphore(size)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def transaction(self, *, read_only: bool | None = None) -> AsyncIterator[Cursor]:
        """Open a transaction, committed at the end unless an exception leaves it.

        Raises `psycopg.OperationalError` if Postgres is away, `TimeoutError` after 10 s of queueing.
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
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().close()

    async def _begin(self, stack: AsyncExitStack, *, read_only: bool | None) -> Connection:
        """Return a connection in a transaction, both of them `stack`'s to end.

        Whether an idle one still lives is seen by its BEGIN, which nothing is lost with. Its socket would not tell
        of a back-end that was told to end and is about to.
        """
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._begin_on(connection, stack, read_only=read_only)
            except OperationalError:  # closed while it lay here
                continue
        connection = await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=_NEVER)
        connection.prepared_max = _KEPT
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
    """One project's database, seen as the API's login role and as the superuser."""

    def __init__(self, dsn: str, admin_dsn: str, *, size: int = 20) -> None:
        """`dsn` is that of role `authenticator`; `size` connections at most, of each kind."""
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
        """Open a transaction as `caller`, committed at the end unless an exception leaves it.

        `settings` are further transaction settings (`request.method`, `storage.operation`). Raises what
        Postgres says (`psycopg.Error`; 22023: no such role) and what `Pool.transaction` raises.
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
        """Open a transaction as the superuser, for what the real services do as their own admin role."""
        async with self._admins.transaction() as cursor:
            yield cursor
