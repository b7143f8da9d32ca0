"""Alternatives: job queues with their own database on the same server, and their own worker process.

Each runs an empty job per row, with its default settings.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import pgqueuer
import procrastinate
import psycopg
from pgqueuer.db import AsyncpgDriver, PsycopgDriver, SyncPsycopgDriver
from pgqueuer.models import Job
from pgqueuer.ports.driver import Driver
from pgqueuer.queries import Queries, SyncQueries
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from watcher.settings.settings import environment

ROOT = Path(__file__).parents[1]
PGQUEUER_DRIVER = "asyncpg" if find_spec("asyncpg") else "psycopg"

# The workers connect to the database that libpq's environment variables name.
app = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def _nothing() -> None:
    pass


nothing = app.task(name="nothing")(_nothing)


class Rival:
    """A queue in a new database on the server of the connection string `server`."""

    name: str
    waits: str
    """A query for the seconds from insertion to claim of each row inserted since `since`."""

    def __init__(self, server: str) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"create database {self.name}".encode())
        self.dsn = make_conninfo(server, dbname=self.name)
        self._opened = ExitStack()
        self.database = self._opened.enter_context(psycopg.connect(self.dsn, autocommit=True))
        self.install()

    def install(self) -> None:
        """Create its tables."""
        raise NotImplementedError

    def insert(self, count: int = 1) -> None:
        """Insert rows, in one transaction."""
        raise NotImplementedError

    def command(self, slots: int | None) -> Sequence[str]:
        """The arguments with which Python runs its worker."""
        raise NotImplementedError

    @contextmanager
    def working(self, slots: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
        """Run its worker, with `slots` rows at a time where it has such a setting."""
        given = conninfo_to_dict(self.dsn)
        libpq = {f"PG{name.upper()}": str(given[name]) for name in ("host", "port", "user", "password")}
        with (
            NamedTemporaryFile() as log,
            subprocess.Popen(
                [sys.executable, *self.command(slots)],
                env=environment(**libpq, PGDATABASE=self.name),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                yield process
            except BaseException:
                print(Path(log.name).read_text()[-2000:], file=sys.stderr)
                raise
            finally:
                process.kill()

    def one(self, query: str, **parameters: Any) -> Any:
        """The single value that a query returns."""
        [(value,)] = self.database.execute(query.encode(), parameters).fetchall()
        return value

    def waited(self, since: object) -> list[float]:
        """Seconds from insertion to claim of each row inserted since a time of the database's clock."""
        return [float(seconds) for (seconds,) in self.database.execute(self.waits.encode(), {"since": since})]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class Procrastinate(Rival):
    """Times are those of the start of the transaction."""

    name = "procrastinate"
    waits = """
        select extract(epoch from started.at - deferred.at)
        from procrastinate_events deferred join procrastinate_events started using (job_id)
        where deferred.type = 'deferred' and started.type = 'started' and deferred.at >= %(since)s
    """

    def install(self) -> None:
        connector = procrastinate.SyncPsycopgConnector(conninfo=self.dsn)
        self._opened.enter_context(app.replace_connector(connector))
        self._opened.enter_context(app.open())
        app.schema_manager.apply_schema()

    def insert(self, count: int = 1) -> None:
        nothing.batch_defer(*[{}] * count)

    def command(self, slots: int | None) -> Sequence[str]:
        concurrency = () if slots is None else ("--concurrency", str(slots))
        return "-m", "procrastinate", "--app", "bench.rivals.app", "worker", *concurrency


class PgQueuer(Rival):
    """Times are those of the start of the transaction."""

    name = "pgqueuer"
    waits = """
        select extract(epoch from picked.created - queued.created)
        from pgqueuer_log queued join pgqueuer_log picked using (job_id)
        where queued.status = 'queued' and picked.status = 'picked' and queued.created >= %(since)s
    """

    def install(self) -> None:
        async def install() -> None:
            async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
                await Queries(PsycopgDriver(connection)).install()

        asyncio.run(install())
        self._queries = SyncQueries(SyncPsycopgDriver(self.database))

    def insert(self, count: int = 1) -> None:
        self._queries.enqueue(["nothing"] * count, [None] * count, [0] * count)

    def command(self, slots: int | None) -> Sequence[str]:
        assert slots is None, "It has no such setting."
        # The same as `pgq run`, whose --log-level does not work with typer 0.29.2.
        return "-c", "import uvloop; from bench import rivals; uvloop.run(rivals.serve_pgqueuer())"


class Listen(Rival):
    """LISTEN, NOTIFY and one UPDATE: the lowest latency that Postgres allows."""

    name = "listen"
    waits = """
        select extract(epoch from claimed_at - inserted_at)
        from jobs where claimed_at is not null and inserted_at >= %(since)s
    """

    def install(self) -> None:
        self.database.execute("""
            create table jobs (
                id bigint generated always as identity primary key,
                inserted_at timestamptz not null default clock_timestamp(),
                claimed_at timestamptz
            );
            create index on jobs (id) where claimed_at is null;
            create function notify_jobs() returns trigger language plpgsql as $$
            begin perform pg_notify('jobs', ''); return null; end $$;
            create trigger notify_jobs after insert on jobs for each statement execute function notify_jobs();
        """)

    def insert(self, count: int = 1) -> None:
        self.database.execute("insert into jobs select from generate_series(1, %s)", [count])

    def command(self, slots: int | None) -> Sequence[str]:
        assert slots is None, "It claims one row at a time."
        return "-c", "from bench import rivals; rivals.serve_listen()"


async def serve_pgqueuer() -> None:
    @asynccontextmanager
    async def worker() -> AsyncIterator[pgqueuer.PgQueuer]:
        async with _connected() as connection:
            worker = pgqueuer.PgQueuer(connection)

            async def nothing(job: Job) -> None:
                pass

            worker.entrypoint("nothing")(nothing)
            yield worker

    await pgqueuer.run(worker)


@asynccontextmanager
async def _connected() -> AsyncIterator[Driver]:
    """A connection with asyncpg if it is installed, else with psycopg, as `pgq` does."""
    if PGQUEUER_DRIVER == "asyncpg":
        import asyncpg

        connection = await asyncpg.connect()
        try:
            yield AsyncpgDriver(connection)
        finally:
            await connection.close()
    else:
        async with await psycopg.AsyncConnection.connect(autocommit=True) as connection:
            yield PsycopgDriver(connection)


def serve_listen() -> None:
    claim = """
        update jobs set claimed_at = clock_timestamp() where id = (
            select id from jobs where claimed_at is null order by id limit 1 for update skip locked
        )
    """
    with psycopg.connect(autocommit=True) as connection:
        connection.execute("listen jobs")
        while True:
            while connection.execute(claim).rowcount:
                pass
            for _ in connection.notifies(stop_after=1):
                pass
