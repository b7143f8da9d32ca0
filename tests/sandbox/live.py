"""A project to hear from: a sandbox with some tables, and a socket that speaks Phoenix by hand."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.keys import Keys
from watcher.sandbox.realtime import Realtime
from watcher.sandbox.realtime.timing import Timing

NEVER = 4102444800
QUICK = Timing(
    handshake_error=0.05,
    join_error=0.05,
    cold=0.05,
    resubscribe=0.05,
    retry_subscribe=0.1,
    poll_idle=0.02,
    poll_unmatched=0.02,
    retry_first=0.05,
    publication_check=0.1,
)
JOBS = """
create table public.jobs (
    id bigint generated always as identity primary key,
    status text not null default 'pending', payload jsonb, note text, created_at timestamptz default now());
"""
INSERTS = {"event": "INSERT", "schema": "public", "table": "jobs"}
ALL = {"event": "*", "schema": "public", "table": "jobs"}


@dataclass
class Raw:
    """A socket that speaks Phoenix by hand."""

    socket: ClientConnection

    async def send(self, *frame: object) -> None:
        """Send a frame of 2.0.0: join_ref, ref, topic, event, payload."""
        await self.socket.send(json.dumps(frame))

    async def hear(self, seconds: float = 5.0) -> Any:
        """Return the next frame."""
        async with asyncio.timeout(seconds):
            return json.loads(await self.socket.recv())

    async def silent(self, seconds: float = 0.2) -> bool:
        """Say whether no frame comes for a while."""
        try:
            await self.hear(seconds)
        except TimeoutError:
            return True
        return False

    async def join(
        self, *entries: dict[str, Any], ref: str = "1", topic: str = "jobs", **payload: object
    ) -> Any:
        """Join a topic and return the reply."""
        config = {"config": {"postgres_changes": list(entries)}, **payload}
        await self.send(ref, ref, f"realtime:{topic}", "phx_join", config)
        return await self.hear()

    async def subscribe(self, *entries: dict[str, Any], **options: Any) -> None:
        """Join a topic and wait until changes are told."""
        reply = await self.join(*entries, **options)
        assert reply[4]["status"] == "ok"
        assert (await self.hear())[4]["message"] == "Subscribed to PostgreSQL"

    async def closed(self, seconds: float = 5.0) -> int:
        """Return the code by which the socket is closed."""
        try:
            await self.hear(seconds)
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code
        raise AssertionError("a frame came instead")


@dataclass
class Project:
    """A sandbox of one's own, of which Realtime is asked."""

    postgres: Postgres
    name: str
    sandbox: Sandbox

    @property
    def url(self) -> str:
        return f"{self.sandbox.supabase_url}/realtime/v1"

    @property
    def socket_url(self) -> str:
        return f"{self.url.replace('http', 'ws')}/websocket"

    @property
    def keys(self) -> Keys:
        return self.sandbox.keys

    @property
    def realtime(self) -> Realtime:
        return self.sandbox.realtime

    def ask_for(self, action: str, **fields: object) -> Any:
        """Ask for a fault as another process does: over the control port."""
        answer = httpx.post(f"{self.sandbox.control_url}/actions/{action}", json=fields, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sql(self, *statements: str) -> None:
        # A slot reads what is flushed.
        flush = "-c synchronous_commit=on"
        with psycopg.connect(
            self.postgres.dsn(self.name, "postgres"), autocommit=True, options=flush
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def ask(self, query: str) -> Any:
        """Return the value that the superuser asks for."""
        with psycopg.connect(self.postgres.dsn(self.name)) as connection:
            row = connection.execute(query.encode()).fetchone()
            return row and row[0]

    def settle(self, written: str) -> None:
        """Wait until all that was written after a position is polled."""
        deadline = time.monotonic() + 5
        while self._behind(written):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.01)

    async def polled(self, written: str) -> None:
        """Wait for the same, and until what was polled is told."""
        await until(lambda: not self._behind(written))
        await asyncio.sleep(0.1)

    def _behind(self, written: str) -> bool:
        behind = (
            "select exists (select from pg_replication_slots where database = current_database() "
            f"and confirmed_flush_lsn <= '{written}')"
        )
        return bool(self.ask(behind))

    def soon(self, seconds: int) -> int:
        """Return the time, in seconds from now, as a token says it."""
        return int(self.ask("select floor(extract(epoch from now()))::bigint")) + seconds

    def token(self, user: str = "", role: str = "authenticated", exp: int = NEVER) -> str:
        return self.keys.sign({"sub": user, "role": role, "exp": exp})

    @asynccontextmanager
    async def raw(self, key: str | None = None, version: str = "2.0.0") -> AsyncIterator[Raw]:
        async with connect(f"{self.socket_url}?apikey={key or self.keys.secret}&vsn={version}") as socket:
            yield Raw(socket)


@contextmanager
def template(postgres: Postgres, tables: str, *, auto_expose: bool = False) -> Iterator[str]:
    """Make a database with some tables, to copy."""
    name = f"realtime_{uuid4().hex}"
    postgres.create(name, auto_expose=auto_expose)
    with psycopg.connect(postgres.dsn(name, "postgres"), autocommit=True) as connection:
        connection.execute(tables.encode())
    yield name
    postgres.drop(name)


@contextmanager
def running(postgres: Postgres, tables: str, timing: Timing) -> Iterator[Project]:
    """Run a project with a database of its own, copied from the template `tables`."""
    name = f"realtime_{uuid4().hex}"
    postgres.create(name, tables)
    try:
        with Sandbox(postgres=postgres, database=name, timing=timing) as sandbox:
            yield Project(postgres, name, sandbox)
    finally:
        postgres.drop(name)


Start = Callable[[Timing], Project]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for what is not told."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)
