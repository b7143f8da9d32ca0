"""PostgREST 14.5, as far as a frontend and the daemon use it: tables and functions of the exposed schemas over HTTP.

What it does not imitate is in `watcher.sandbox.absent`.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from urllib.parse import urlencode

import psycopg
from psycopg.sql import Composed
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.absent import Absent
from watcher.sandbox.database import Cursor, Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.rest import sql as rest_sql
from watcher.sandbox.rest.catalog import find_function, find_table
from watcher.sandbox.rest.errors import (
    RestError,
    absent,
    from_postgres,
    invalid_body,
    not_single,
    unknown_column,
)
from watcher.sandbox.rest.request import RestRequest, arguments, objects
from watcher.sandbox.rest.result import Result, content_range_of, planned_rows, read_status, run

_MAX_ROWS = 1000
# A function's own settings that have to apply from the start of the transaction.
_HOISTED = {"statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation"}


class Rest:
    """The exposed schemas of one database."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys

    async def serve(self, http: Request) -> Response:
        """Serve /{table} and /rpc/{function}."""
        anonymous = True
        try:
            request = RestRequest(http, self._keys)
            anonymous = request.caller.role == "anon"
            return await self._handler(http)(request)
        except RestError as error:
            return error.response()
        except psycopg.Error as error:
            return from_postgres(error, anonymous=anonymous).response()
        except TimeoutError:
            return RestError(
                504, "PGRST003", "Timed out acquiring connection from connection pool."
            ).response()

    def _handler(self, request: Request) -> Callable[[RestRequest], Awaitable[Response]]:
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
            case "PUT":
                raise absent(Absent.REST_PUT)
        raise RestError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")

    async def _read(self, request: RestRequest) -> Response:
        name = request.http.path_params["table"]
        query = request.query()
        query.limit = min(query.limit if query.limit is not None else _MAX_ROWS, _MAX_ROWS)
        async with self._transaction(request, read_only=True) as cursor:
            table = await find_table(cursor, request.schema, name)
            estimating = request.count == "estimated"
            most = _MAX_ROWS + 1 if estimating else None
            counted = rest_sql.matching(table, query, limit=most) if request.counts else None
            result = await run(cursor, rest_sql.read(table, query, _form(request), counted=counted))
            if request.count == "planned" or (estimating and (result.total or 0) > _MAX_ROWS):
                planned = await planned_rows(cursor, rest_sql.matching(table, query))
                result = replace(result, total=max(planned, result.total or 0))
        status = read_status(query, result)
        if request.single and result.rows != 1:
            raise not_single(result.rows)
        where = urlencode(request.http.query_params.multi_items())
        location = f"/{name}?{where}" if where else f"/{name}"
        return request.answer(
            status,
            result.body,
            content_range_of(query, result),
            "count",
            "handling",
            **{"content-location": location},
        )

    async def _insert(self, request: RestRequest) -> Response:
        name = request.http.path_params["table"]
        query = request.query()
        body, given = await objects(request.http)
        keys = list(dict.fromkeys(key for one in given for key in one))
        if query.columns is None and any(set(one) != set(keys) for one in given):
            raise invalid_body("All object keys must match")
        columns = keys if query.columns is None else query.columns
        resolution = request.preferences.get("resolution")
        async with self._transaction(request) as cursor:
            table = await find_table(cursor, request.schema, name)
            for column in columns:
                if column not in table.columns:
                    raise unknown_column(name, column)
            statement = rest_sql.insert(
                table,
                query,
                columns,
                body if given else "[]",
                _form(request),
                returning=request.returning,
                resolution=resolution,
                defaults=request.preferences.get("missing") == "default",
            )
            result = await self._write(cursor, request, statement)
            await cursor.execute(rest_sql.INSERTED)
            row = await cursor.fetchone()
        merged = resolution == "merge-duplicates" and row == (0,)
        total = f"*/{result.rows if request.counts else '*'}"
        body_or_none = result.body if request.returning else None
        return request.answer(
            200 if merged else 201,
            body_or_none,
            total,
            "resolution",
            "missing",
            "return",
            "count",
            "handling",
        )

    async def _update(self, request: RestRequest) -> Response:
        name = request.http.path_params["table"]
        query = request.query()
        if not query.conditions:
            raise RestError(400, "21000", "UPDATE requires a WHERE clause")
        body, given = await objects(request.http)
        if len(given) > 1:
            raise invalid_body("All object keys must match")
        columns = list(given[0]) if given and query.columns is None else query.columns or []
        async with self._transaction(request) as cursor:
            table = await find_table(cursor, request.schema, name)
            for column in columns:
                if column not in table.columns:
                    raise unknown_column(name, column)
            statement = rest_sql.update(
                table,
                query,
                columns,
                body,
                _form(request),
                returning=request.returning,
                defaults=request.preferences.get("missing") == "default",
            )
            result = await self._write(cursor, request, statement)
        rows = f"0-{result.rows - 1}" if result.rows else "*"
        total = f"{rows}/{result.rows if request.counts else '*'}"
        return self._changed(request, result, total)

    async def _delete(self, request: RestRequest) -> Response:
        name = request.http.path_params["table"]
        query = request.query()
        if not query.conditions:
            raise RestError(400, "21000", "DELETE requires a WHERE clause")
        async with self._transaction(request) as cursor:
            table = await find_table(cursor, request.schema, name)
            statement = rest_sql.delete(table, query, _form(request), returning=request.returning)
            result = await self._write(cursor, request, statement)
        return self._changed(request, result, f"*/{result.rows if request.counts else '*'}")

    async def _call(self, request: RestRequest) -> Response:
        name = request.http.path_params["function"]
        query = request.query(call=request.reads)
        kind: str | None = None
        body: str | bytes | None = None
        given = set(query.arguments)
        if not request.reads:
            kind, body, given = await arguments(request.http)
        async with self._transaction(request, read_only=request.reads) as cursor:
            function = await find_function(cursor, request.schema, name, given, body=kind)
            await self._prepare(cursor, function.settings, read_only=function.stable)
            if function.returns_set:
                query.limit = min(query.limit if query.limit is not None else _MAX_ROWS, _MAX_ROWS)
            statement = rest_sql.call(function, query, given, body, _form(request), count=request.counts)
            result = await run(cursor, statement)
            if function.returns_set:
                self._check(request, result)
        status = read_status(query, result)
        if function.returns_nothing:
            return request.answer(204, None, "*/*", "handling")
        return request.answer(status, result.body, content_range_of(query, result), "count", "handling")

    async def _prepare(self, cursor: Cursor, settings: Mapping[str, str], *, read_only: bool) -> None:
        """Apply the function's settings to the transaction, and make it read-only for a stable function."""
        if read_only:
            await cursor.execute("set transaction read only")
        for name, value in settings.items():
            if name in _HOISTED:
                await cursor.execute("select set_config(%s, %s, true)", [name, value])

    async def _write(self, cursor: Cursor, request: RestRequest, statement: Composed) -> Result:
        """Run a statement that changes rows, and check the result while it can be undone."""
        result = await run(cursor, statement)
        self._check(request, result)
        return result

    def _check(self, request: RestRequest, result: Result) -> None:
        most = request.preferences.get("max-affected")
        if most and request.preferences.get("handling") == "strict" and result.rows > int(most):
            raise RestError(
                400,
                "PGRST124",
                "Query result exceeds max-affected preference constraint",
                details=f"The query affects {result.rows} rows",
            )
        if (
            request.single
            and result.rows != 1
            and (request.returning or "function" in request.http.path_params)
        ):
            raise not_single(result.rows)

    def _changed(self, request: RestRequest, result: Result, content_range: str) -> Response:
        applied = ("return", "count", "handling", "max-affected")
        if request.returning:
            return request.answer(200, result.body, content_range, *applied)
        return request.answer(204, None, content_range, *applied)

    def _transaction(
        self, request: RestRequest, *, read_only: bool = False
    ) -> AbstractAsyncContextManager[Cursor]:
        return self._database.transaction(
            request.caller, read_only=read_only, schema=request.schema, settings=request.settings()
        )


def _form(request: RestRequest) -> rest_sql.Form:
    return rest_sql.Form(request.single, request.strips_nulls)


async def _openapi(_: Request) -> Response:
    return absent(Absent.REST_OPENAPI).response()


async def _invalid_path(_: Request) -> Response:
    return RestError(404, "PGRST125", "Invalid path specified in request URL").response()


def routes(database: Database, keys: Keys) -> list[BaseRoute]:
    """Return PostgREST's routes, without the gateway's prefix."""
    rest = Rest(database, keys)
    methods = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"]
    return [
        Route("/", _openapi, methods=["GET", "HEAD"]),
        Route("/rpc/{function}", rest.serve, methods=methods),
        Route("/{table}", rest.serve, methods=methods),
        Route("/{path:path}", _invalid_path, methods=methods),
    ]
