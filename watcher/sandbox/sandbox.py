"""A Supabase project and a Hub on this machine: one database, the services, and faults in front of them."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from starlette.applications import Starlette
from starlette.types import ASGIApp

from watcher.sandbox import gateway, rest
from watcher.sandbox.auth import Auth
from watcher.sandbox.database import Database
from watcher.sandbox.faults import Faults
from watcher.sandbox.hub import Hub, User
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.realtime import Realtime
from watcher.sandbox.realtime.timing import Timing
from watcher.sandbox.server import HOST, Server, check_free
from watcher.sandbox.storage import Storage


class Sandbox:
    """A Supabase project and a Hub, from `start` to `stop`; it can be started again.

    In the folder `data`, database, objects and repos are kept; without it they are deleted. `postgres`, if given, must be
    running and is not stopped; `database` is one of its databases, used as it is, or None for a new one that is dropped.
    Ports are on loopback; 0 picks a free one. `timing` is Realtime's, by default that of the real one. Migrations of the
    app are not applied.
    """

    auth: Auth
    """Has settings and a mailbox; set by `start`."""
    realtime: Realtime
    """Has faults of its own; set by `start`."""
    storage: Storage
    """Has faults of its own; set by `start`."""
    hub: Hub
    """Has faults of its own; set by `start`."""

    hub_user = "sandbox"
    hub_token = "hf_sandbox"  # noqa: S105 - valid for this sandbox only

    def __init__(
        self,
        data: Path | None = None,
        postgres: Postgres | None = None,
        database: str | None = None,
        *,
        supabase_port: int = 0,
        hub_port: int = 0,
        control_port: int = 0,
        timing: Timing | None = None,
    ) -> None:
        self.keys = Keys()
        self.faults = Faults()
        self._data = data
        self._given = postgres
        self._postgres = postgres or Postgres(data)
        self._named = database
        self._database = database or "postgres"
        self._folder: Path | None = None
        self._ports = {"supabase": supabase_port, "hub": hub_port, "control": control_port}
        self._timing = timing
        self._server: Server | None = None

    def start(self) -> None:
        """Return when all services answer. Raises `PostgresError`, and `OSError` for a port that is taken."""
        check_free(self._ports)  # at once, and not after Postgres has started
        try:
            self._postgres.start()
            self._prepare()
            self._serve()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, and delete what is not kept."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._given is None:
            self._postgres.stop()
            return
        if self._folder is not None and self._data is None:
            shutil.rmtree(self._folder)
            self._folder = None
        if self._named is None:
            self._given.drop(self._database)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def supabase_url(self) -> str:
        """The project's URL."""
        return self._url("supabase")

    @property
    def hub_url(self) -> str:
        """The Hub's URL."""
        return self._url("hub")

    @property
    def control_url(self) -> str:
        """The URL at which another process can ask for faults."""
        return self._url("control")

    @property
    def db_url(self) -> str:
        """The database's URL for the role `postgres`, which is no superuser, as on Supabase."""
        return self._postgres.dsn(self._database, "postgres")

    @property
    def admin_db_url(self) -> str:
        """The database's URL for the superuser."""
        return self._postgres.dsn(self._database)

    def settings(self) -> dict[str, str]:
        """Return the environment variables with which a program uses this sandbox."""
        return {
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.keys.secret,
            "SUPABASE_PUBLISHABLE_KEY": self.keys.publishable,
            "SUPABASE_DB_URL": self.db_url,
            "HF_ENDPOINT": self.hub_url,
            "HF_TOKEN": self.hub_token,
            "HF_NAMESPACE": self.hub_user,
        }

    def _url(self, name: str) -> str:
        assert self._server is not None, "the sandbox is not running"
        return f"http://{HOST}:{self._server.ports[name]}"

    def _prepare(self) -> None:
        """Prepare the database and the folder."""
        if self._given is None:
            self._postgres.bootstrap(self._database)
        elif self._named is None:
            self._database = f"sandbox_{uuid4().hex}"
            self._given.create(self._database)
        self._folder = self._data or self._postgres.folder / f"sandbox-{uuid4().hex}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def _serve(self) -> None:
        assert self._folder is not None
        dsn = self._postgres.dsn(self._database, "authenticator")
        database = Database(dsn, self.admin_db_url)
        self.auth = Auth(database, self.keys)
        self.realtime = Realtime(database, self.keys, self._timing)
        self.storage = Storage(database, self.keys, self._folder / "objects")
        self.hub = Hub(self._folder / "hub", {self.hub_token: User(self.hub_user)})

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with database:
                yield
                await self.realtime.close()

        services = {
            "auth": self.auth.routes(),
            "rest": rest.routes(database, self.keys),
            "storage": self.storage.routes(),
            "realtime": self.realtime.routes(),
        }
        project = gateway.app(services, self.keys, lifespan)
        apps: dict[str, ASGIApp] = {
            "supabase": self.faults.wrap(project, gateway.service_of),
            "hub": self.faults.wrap(self.hub.app, "hub"),
            "control": self.faults.control_app(self.auth.mailbox.routes()),
        }
        self._register_actions()
        self._server = Server({name: (app, self._ports[name]) for name, app in apps.items()})
        self._server.start()

    def _register_actions(self) -> None:
        """Register the services' own faults with the control port."""
        actions: dict[str, Callable[..., object]] = {
            **self.auth.actions,
            **self.hub.actions,
            **self._postgres.actions,
            **self.realtime.actions,
            **self.storage.actions,
        }
        for name, action in actions.items():
            self.faults.register(name, action)
