"""A sandbox with a database of its own, and a WebSocket on which a test writes Phoenix frames itself."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
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
"""The expiry of a token that does not expire: the year 2100."""
PATIENCE = 30.0
"""Seconds to wait for something that has to happen; only a failure takes as long."""
FOREIGN = Keys("another secret that is at least 32 bytes")
"""The keys of another project."""

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
grant all on public.jobs to service_role;
alter publication supabase_realtime add table public.jobs;
"""
INSERTS = {"event": "INSERT", "schema": "public", "table": "jobs"}
ALL = {**INSERTS, "event": "*"}


@dataclass
class Raw:
    """A WebSocket on which the test writes Phoenix frames itself."""

    socket: ClientConnection

    async def send(self, *frame: object) -> None:
        """Send a frame of protocol 2.0.0: join_ref, ref, topic, event, payload."""
        await self.socket.send(json.dumps(frame))

    async def receive(self, seconds: float = PATIENCE) -> Any:
        """Return the next frame."""
        async with asyncio.timeout(seconds):
            return json.loads(await self.socket.recv())

    async def silent(self) -> bool:
        """Return whether no frame comes for a moment."""
        try:
            await self.receive(0.2)
        except TimeoutError:
            return True
        return False

    async def join(
        self, *entries: dict[str, Any], ref: str = "1", topic: str = "jobs", **payload: object
    ) -> Any:
        """Join a topic and return the reply."""
        config = {"config": {"postgres_changes": list(entries)}, **payload}
        await self.send(ref, ref, f"realtime:{topic}", "phx_join", config)
        return await self.receive()

    async def subscribe(self, *entries: dict[str, Any], **options: Any) -> None:
        """Join a topic and wait until its changes are sent."""
        reply = await self.join(*entries, **options)
        assert reply[4]["status"] == "ok"
        assert (await self.receive())[4]["message"] == "Subscribed to PostgreSQL"

    async def closed(self) -> int:
        """Return the code with which the socket is closed."""
        try:
            await self.receive()
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code
        raise AssertionError("a frame came instead")


@dataclass(frozen=True)
class Project:
    """A sandbox with a database of its own."""

    postgres: Postgres
    database: str
    sandbox: Sandbox
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.sandbox.supabase_url

    @property
    def realtime_url(self) -> str:
        return f"{self.url}/realtime/v1"

    @property
    def socket_url(self) -> str:
        return f"{self.realtime_url.replace('http', 'ws')}/websocket"

    @property
    def keys(self) -> Keys:
        return self.sandbox.keys

    @property
    def realtime(self) -> Realtime:
        return self.sandbox.realtime

    def sql(self, *statements: str) -> None:
        """Run statements as `postgres`, each in a transaction of its own."""
        with psycopg.connect(self.sandbox.db_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def ask(self, query: str) -> Any:
        """Return the first value of a query that the superuser runs."""
        with psycopg.connect(self.sandbox.admin_db_url) as connection:
            row = connection.execute(query.encode()).fetchone()
            return row and row[0]

    def control(self, action: str, **fields: object) -> Any:
        """Call an action over the control port, as another process does."""
        answer = httpx.post(f"{self.sandbox.control_url}/actions/{action}", json=fields, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def token(self, user: str = "", role: str = "authenticated", exp: int = NEVER, **claims: object) -> str:
        """Return a token of this project."""
        return self.keys.sign({"sub": user, "role": role, "exp": exp, **claims})

    def in_seconds(self, seconds: int) -> int:
        """Return an expiry so many seconds from now, rounded down."""
        return int(self.ask("select floor(extract(epoch from now()))::bigint")) + seconds

    def headers(self, key: str | None = None, token: str | None = None) -> dict[str, str]:
        """Return what a client sends: `key` (default: the publishable one), and `token` or else the key again."""
        key = key or self.keys.publishable
        return {"apikey": key, "authorization": f"Bearer {token or key}"}

    def http(self, service: str, key: str | None = None, token: str | None = None) -> httpx.Client:
        """Return an HTTP client of one service, which is closed with the project."""
        url, headers = f"{self.url}/{service}/v1", self.headers(key, token)
        self.clients.append(httpx.Client(base_url=url, headers=headers, timeout=PATIENCE))
        return self.clients[-1]

    def position(self) -> str:
        """Return how far the write-ahead log has got."""
        return str(self.ask("select pg_current_wal_lsn()"))

    def settle(self, position: str) -> None:
        """Wait until all changes after `position` are polled and sent."""
        self.wait_polled(position)
        # Realtime polls again only after it has sent what it polled before.
        self.wait_poll()

    def wait_poll(self) -> None:
        """Wait for a poll that begins from now on."""
        self.wait_polled(str(self.ask("select pg_logical_emit_message(true, 'test', '')")))

    def wait_polled(self, position: str) -> None:
        """Wait until all changes after `position` are polled."""
        behind = (
            "select exists (select from pg_replication_slots where database = current_database() "
            "and confirmed_flush_lsn <= %s::pg_lsn)"
        )
        with psycopg.connect(self.sandbox.admin_db_url, autocommit=True) as connection:
            wait_until(lambda: connection.execute(behind, [position]).fetchone() == (False,))

    @asynccontextmanager
    async def raw(self, key: str | None = None, version: str = "2.0.0") -> AsyncIterator[Raw]:
        async with connect(f"{self.socket_url}?apikey={key or self.keys.secret}&vsn={version}") as socket:
            yield Raw(socket)


@contextmanager
def template(postgres: Postgres, tables: str, *, auto_expose: bool = False) -> Iterator[str]:
    """Make a database with some tables, to copy."""
    name = f"template_{uuid4().hex}"
    postgres.create(name, auto_expose=auto_expose)
    with psycopg.connect(postgres.dsn(name, "postgres"), autocommit=True) as connection:
        connection.execute(tables.encode())
    yield name
    postgres.drop(name)


@contextmanager
def running(
    postgres: Postgres, copied: str | None = None, *, timing: Timing = QUICK, auto_expose: bool = False
) -> Iterator[Project]:
    """Run a sandbox on a new database: a copy of the template `copied`, or that of a new Supabase project."""
    name = f"test_{uuid4().hex}"
    postgres.create(name, copied, auto_expose=auto_expose)
    try:
        with Sandbox(postgres=postgres, database=name, timing=timing) as sandbox:
            project = Project(postgres, name, sandbox)
            # The thread in which actions run lives as long as the sandbox: it must not be a test that starts it.
            project.control("hub_reset")
            yield project
            for client in project.clients:
                client.close()
    finally:
        postgres.drop(name)


Start = Callable[[Timing], Project]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, where there is no event loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)
