"""PostgREST 14.5 as a frontend and the daemon use it: tables and functions of the exposed schemas over HTTP.

Left out: embedding, aggregates, full-text operators, CSV, PUT, OpenAPI.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from urllib.parse import urlencode

import psycopg
from psycopg.sql import Composed
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.database import Cursor, Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.rest import sql as rest_sql
from watcher.sandbox.rest.catalog import find_function, find_table
from watcher.sandbox.rest.errors import (
    RestError,
    from_postgres,
    invalid_body,
    not_single,
    out_of_range,
    unknown_column,
)
from watcher.sandbox.rest.query import Query
from watcher.sandbox.rest.request import Asked, arguments, objects

_MAX_ROWS = 1000
_HOISTED = {"statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation"}


@dataclass(frozen=True)
class Result:
    """What a statement answered: rows in all if counted, rows answered, the body."""

    total: int | None
    rows: int
    body: str


def _range(query: Query, result: Result) -> str:
    total = "*" if result.total is None else str(result.total)
    if result.rows == 0 or result.total == 0:
        return f"*/{total}"
    return f"{query.offset}-{query.offset + result.rows - 1}/{total}"


def _read_status(query: Query, result: Result) -> int:
    if result.total is None:
        return 200
    if query.offset > result.total:
        raise out_of_range(
            f"An offset of {query.offset} was requested, but there are only {result.total} rows."
        )
    return 206 if result.rows < result.total else 200


class Rest:
    """The exposed schemas of one database."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def serve(self, request: Request) -> Response:
        """Serve /{table} and /rpc/{function}."""
        anonymous = True
        try:
            asked = Asked(request, self._keys)
            anonymous = asked.caller.role == "anon"
            return await self._handler(request)(asked)
        except RestError as error:
            return error.response()
        except psycopg.Error as error:
            return from_postgres(error, anonymous=anonymous).response()
        except TimeoutError:
            return RestError(
                504, "PGRST003", "Timed out acquiring connection from connection pool."
            ).response()

    def _handler(self, request: Request) -> Callable[[Asked], Awaitable[Response]]:
        if "function" in request.path_params:
            if request.method not in {"GET", "HEAD", "POST"}:
                message = f"Cannot use the {request.method} method on RPC"
                raise RestError(405, "PGRST101", message)
            return self._call
        match request.method:
            case "GET" | "HEAD":
                return self._read
            case "POST":
                return self._insert
            case "PATCH":
                return self._update
            case "DELETE":
                return self._delete
        raise RestError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")

    async def _read(self, asked: Asked) -> Response:
        name = asked.request.path_params["table"]
        query = asked.query(name)
        query.limit = min(query.limit if query.limit is not None else _MAX_ROWS, _MAX_ROWS)
        async with self._transaction(asked, read_only=True) as cursor:
            table = await find_table(cursor, asked.schema, name)
            statement = rest_sql.read(table, query, count=asked.count, single=asked.single)
            result = await _run(cursor, statement)
        status = _read_status(query, result)
        if asked.single and result.rows != 1:
            raise not_single(result.rows)
        where = urlencode(asked.request.query_params.multi_items())
        location = f"/{name}?{where}" if where else f"/{name}"
        return asked.answer(
            status, result.body, _range(query, result), "count", "handling", **{"content-location": location}
        )

    async def _insert(self, asked: Asked) -> Response:
        name = asked.request.path_params["table"]
        query = asked.query(name)
        body, given = await objects(asked.request)
        keys = list(dict.fromkeys(key for one in given for key in one))
        if query.columns is None and any(set(one) != set(keys) for one in given):
            raise invalid_body("All object keys must match")
        columns = keys if query.columns is None else query.columns
        resolution = asked.preferences.get("resolution")
        async with self._transaction(asked) as cursor:
            table = await find_table(cursor, asked.schema, name)
            for column in columns:
                if column not in table.columns:
                    raise unknown_column(name, column)
            statement = rest_sql.insert(
                table,
                query,
                columns,
                body if given else "[]",
                returning=asked.returning,
                single=asked.single,
                resolution=resolution,
                defaults=asked.preferences.get("missing") == "default",
            )
            result = await self._write(cursor, asked, statement)
            await cursor.execute(rest_sql.INSERTED)
            row = await cursor.fetchone()
        merged = resolution == "merge-duplicates" and row == (0,)
        total = f"*/{result.rows if asked.count else '*'}"
        body_or_none = result.body if asked.returning else None
        return asked.answer(
            200 if merged else 201,
            body_or_none,
            total,
            "resolution",
            "missing",
            "return",
            "count",
            "handling",
        )

    async def _update(self, asked: Asked) -> Response:
        name = asked.request.path_params["table"]
        query = asked.query(name)
        if not query.conditions:
            raise RestError(400, "21000", "UPDATE requires a WHERE clause")
        body, given = await objects(asked.request)
        if len(given) > 1:
            raise invalid_body("All object keys must match")
        columns = list(given[0]) if given and query.columns is None else query.columns or []
        async with self._transaction(asked) as cursor:
            table = await find_table(cursor, asked.schema, name)
            for column in columns:
                if column not in table.columns:
                    raise unknown_column(name, column)
            statement = rest_sql.update(
                table, query, columns, body, returning=asked.returning, single=asked.single
            )
            result = await self._write(cursor, asked, statement)
        rows = f"0-{result.rows - 1}" if result.rows else "*"
        total = f"{rows}/{result.rows if asked.count else '*'}"
        return self._changed(asked, result, total)

    async def _delete(self, asked: Asked) -> Response:
        name = asked.request.path_params["table"]
        query = asked.query(name)
        if not query.conditions:
            raise RestError(400, "21000", "DELETE requires a WHERE clause")
        async with self._transaction(asked) as cursor:
            table = await find_table(cursor, asked.schema, name)
            statement = rest_sql.delete(table, query, returning=asked.returning, single=asked.single)
            result = await self._write(cursor, asked, statement)
        return self._changed(asked, result, f"*/{result.rows if asked.count else '*'}")

    async def _call(self, asked: Asked) -> Response:
        name = asked.request.path_params["function"]
        query = asked.query(name, call=asked.reads)
        body: str | None = None
        given = set(query.arguments)
        if not asked.reads:
            body, given = await arguments(asked.request)
        async with self._transaction(asked, read_only=asked.reads) as cursor:
            function = await find_function(cursor, asked.schema, name, given, posted=not asked.reads)
            await self._prepare(cursor, function.settings, read_only=function.stable)
            if function.returns_set:
                query.limit = min(query.limit if query.limit is not None else _MAX_ROWS, _MAX_ROWS)
            statement = rest_sql.call(function, query, given, body, count=asked.count, single=asked.single)
            result = await _run(cursor, statement)
            if function.returns_set:
                self._check(asked, result)
        status = _read_status(query, result)
        if function.returns_nothing:
            return asked.answer(204, None, "*/*", "handling")
        return asked.answer(status, result.body, _range(query, result), "count", "handling")

    async def _prepare(self, cursor: Cursor, settings: Mapping[str, str], *, read_only: bool) -> None:
        """Make the transaction what the function wants it to be."""
        if read_only:
            await cursor.execute("set transaction read only")
        for name, value in settings.items():
            if name in _HOISTED:
                await cursor.execute("select set_config(%s, %s, true)", [name, value])

    async def _write(self, cursor: Cursor, asked: Asked, statement: Composed) -> Result:
        """Run a statement that changes rows; what must not be is refused while it can still be undone."""
        result = await _run(cursor, statement)
        self._check(asked, result)
        return result

    def _check(self, asked: Asked, result: Result) -> None:
        most = asked.preferences.get("max-affected")
        if most and asked.preferences.get("handling") == "strict" and result.rows > int(most):
            raise RestError(
                400,
                "PGRST124",
                "Query result exceeds max-affected preference constraint",
                details=f"The query affects {result.rows} rows",
            )
        if asked.single and result.rows != 1 and (asked.returning or "function" in asked.request.path_params):
            raise not_single(result.rows)

    def _changed(self, asked: Asked, result: Result, content_range: str) -> Response:
        applied = ("return", "count", "handling", "max-affected")
        if asked.returning:
            return asked.answer(200, result.body, content_range, *applied)
        return asked.answer(204, None, content_range, *applied)

    def _transaction(self, asked: Asked, *, read_only: bool = False) -> AbstractAsyncContextManager[Cursor]:
        return self._database.transaction(
            asked.caller, read_only=read_only, schema=asked.schema, settings=asked.settings()
        )


async def _run(cursor: Cursor, statement: Composed) -> Result:
    await cursor.execute(statement)
    row = await cursor.fetchone()
    assert row is not None
    return Result(*row)


async def _nowhere(_: Request) -> Response:
    return RestError(404, "PGRST125", "Invalid path specified in request URL").response()


def routes(database: Database, keys: Keys) -> list[BaseRoute]:
    """Return PostgREST's routes, without the gateway's prefix."""
    rest = Rest(database, keys)
    methods = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"]
    return [
        Route("/rpc/{function}", rest.serve, methods=methods),
        Route("/{table}", rest.serve, methods=methods),
        Route("/{path:path}", _nowhere, methods=methods),
    ]
