"""A project to ask over HTTP: Auth and REST behind the gateway, and a new database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
import psycopg
from starlette.applications import Starlette

from watcher.sandbox import auth, gateway, rest
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.server import HOST, Server


@dataclass(frozen=True)
class Project:
    """A database with Auth and REST behind a gateway."""

    url: str
    keys: Keys
    postgres: Postgres
    database: str
    clients: list[httpx.Client] = field(default_factory=list)

    def sql(self, script: str) -> None:
        """Run a migration as `postgres`, as `supabase db push` would."""
        with psycopg.connect(self.postgres.dsn(self.database, "postgres")) as connection:
            connection.execute(script.encode())

    def ask(self, query: str) -> object:
        """Return the first value of a query of the superuser."""
        with psycopg.connect(self.postgres.dsn(self.database)) as connection:
            row = connection.execute(query.encode()).fetchone()
            return row and row[0]

    def client(self, key: str | None = None, token: str | None = None) -> httpx.Client:
        """Return an HTTP client with `key` (default: the publishable one), in the name of `token`'s owner."""
        key = key or self.keys.publishable
        headers = {"apikey": key, "Authorization": f"Bearer {token or key}"}
        client = httpx.Client(base_url=self.url, headers=headers)
        self.clients.append(client)
        return client

    def service(self) -> httpx.Client:
        """Return an HTTP client that may do everything."""
        return self.client(self.keys.secret)


@contextmanager
def served(postgres: Postgres, *, auto_expose: bool) -> Iterator[Project]:
    """Serve a new database."""
    name, keys = f"test_{uuid4().hex}", Keys()
    postgres.create(name, auto_expose=auto_expose)
    database = Database(postgres.dsn(name, "authenticator"), postgres.dsn(name))
    services = {"auth": auth.routes(database, keys), "rest": rest.routes(database, keys)}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with database:
            yield

    server = Server({"project": (gateway.app(services, keys, lifespan), 0)})
    server.start()
    try:
        project = Project(f"http://{HOST}:{server.ports['project']}", keys, postgres, name)
        yield project
        for client in project.clients:
            client.close()
    finally:
        server.stop()
        postgres.drop(name)
