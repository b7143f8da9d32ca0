"""A request to Storage: its caller, its operation, and its transactions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jwt
import psycopg
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from watcher.sandbox.database import Database
from watcher.sandbox.keys import Caller, Keys
from watcher.sandbox.storage import errors
from watcher.sandbox.storage.bytes import Bytes
from watcher.sandbox.storage.knobs import Knobs
from watcher.sandbox.storage.partial import Uploads

Rows = psycopg.AsyncCursor[dict[str, Any]]

SIZE_LIMIT = 50 * 1024 * 1024
"""The most bytes of an object in any bucket (the CLI's default)."""

# Storage's own time-outs, instead of those of the caller's role.
_TIMEOUTS = {"statement_timeout": "30s", "lock_timeout": "0"}
_ALLOW_DELETE = "select set_config('storage.allow_delete_query', 'true', true)"


@dataclass(frozen=True)
class Service:
    """What all routes use."""

    database: Database
    keys: Keys
    bytes: Bytes
    uploads: Uploads
    knobs: Knobs


class Auth(Enum):
    """What a route requires of the Authorization header."""

    REQUIRED = "a valid token"
    OPTIONAL = "a valid token; without one, only public buckets are visible"
    NONE = "nothing: the URL is public, or has a token of its own"


@dataclass(frozen=True)
class Call:
    """A request whose token was checked."""

    request: Request
    service: Service
    operation: str
    caller: Caller
    authenticated: bool

    @property
    def bucket(self) -> str:
        """The bucket in the path."""
        return str(self.request.path_params["bucket"])

    @property
    def key(self) -> str:
        """The object's key in the path, with any `//`."""
        return str(self.request.path_params["key"])

    @property
    def owner(self) -> str | None:
        """The user's id."""
        sub = self.caller.claims.get("sub")
        return None if sub is None else str(sub)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Rows]:
        """Open a transaction as the caller."""
        settings = {"storage.operation": self.operation, "storage.allow_delete_query": "true", **_TIMEOUTS}
        async with self.service.database.transaction(self.caller, settings=settings) as cursor:
            yield cursor.connection.cursor(row_factory=dict_row)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Rows]:
        """Open a transaction as Storage itself, to which no policy applies."""
        async with self.service.database.admin() as cursor:
            await cursor.execute(_ALLOW_DELETE)
            yield cursor.connection.cursor(row_factory=dict_row)


Handler = Callable[[Call], Awaitable[Response]]


def endpoint(
    service: Service, operation: str, auth: Auth, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    """Return a Starlette endpoint that checks the token as `auth` requires, and answers errors as Storage does."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(_authenticated(request, service, operation, auth))
        except errors.StorageError as refusal:
            return refusal.response()
        except psycopg.Error as error:
            return errors.of_postgres(error).response()
        except TimeoutError:
            return errors.database_timeout().response()
        except OSError:
            return errors.internal().response()

    return answer


def _authenticated(request: Request, service: Service, operation: str, auth: Auth) -> Call:
    if auth is Auth.NONE:
        return Call(request, service, operation, Caller(), authenticated=False)
    header = request.headers.get("authorization")
    if header is None and auth is Auth.REQUIRED:
        raise errors.invalid_request("headers must have required property 'authorization'")
    token = (header or "").removeprefix("Bearer").strip()
    try:
        claims: dict[str, Any] = service.keys.verify(token)
    except jwt.PyJWTError as error:
        if auth is Auth.REQUIRED:
            raise errors.not_authenticated(error, operation) from error
        return Call(request, service, operation, Caller(), authenticated=False)
    return Call(request, service, operation, Caller.of(claims), authenticated=True)
