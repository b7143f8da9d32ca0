"""A request to PostgREST: its caller, preferences, query and body, and the form of its answer."""

import json
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import Response

from watcher.sandbox.absent import Absent
from watcher.sandbox.keys import Caller, Keys
from watcher.sandbox.rest.catalog import UNNAMED_BODIES
from watcher.sandbox.rest.errors import JSON_TYPE, RestError, absent, from_jwt, invalid_body, out_of_range
from watcher.sandbox.rest.query import Query, parse

_SCHEMAS = ("public", "graphql_public")
_SKEW_SECONDS = 30
_SINGLE = "application/vnd.pgrst.object+json"
_ARRAYS = {"*/*", "application/*", "application/json", "application/vnd.pgrst.array+json"}
_PREFERENCES = {
    "resolution": {"merge-duplicates", "ignore-duplicates"},
    "missing": {"default", "null"},
    "return": {"minimal", "representation"},
    "count": {"exact", "planned", "estimated"},
    "handling": {"strict", "lenient"},
}


class RestRequest:
    """A request without its body. Raises `RestError` if it is invalid."""

    def __init__(self, http: Request, keys: Keys) -> None:
        self.http = http
        self.caller = _caller(http, keys)
        self.preferences = _preferences(http)
        self.reads = http.method in {"GET", "HEAD"}
        self.schema = self._schema()
        self.single, self.strips_nulls = self._form()
        self.count = self.preferences.get("count")
        self.counts = self.count in {"exact", "estimated"}
        """Whether rows are counted; a planned count is only estimated."""
        self.returning = self.preferences.get("return") == "representation"

    def _schema(self) -> str:
        header = "accept-profile" if self.reads else "content-profile"
        schema = self.http.headers.get(header, _SCHEMAS[0])
        if schema not in _SCHEMAS:
            hint = f"Only the following schemas are exposed: {', '.join(_SCHEMAS)}"
            raise RestError(406, "PGRST106", f"Invalid schema: {schema}", hint=hint)
        return schema

    def _form(self) -> tuple[bool, bool]:
        """Return whether the answer is a single object, and whether columns that are null are left out of it."""
        accepted = [one.strip() for one in self.http.headers.get("accept", "*/*").split(",")]
        for one in accepted:
            kind, *parameters = (part.strip() for part in one.split(";"))
            if kind == _SINGLE or kind in _ARRAYS:
                return kind == _SINGLE, "vnd.pgrst" in kind and "nulls=stripped" in parameters
            if kind == "text/csv":
                raise absent(Absent.REST_CSV)
        raise RestError(406, "PGRST107", f"None of these media types are available: {', '.join(accepted)}")

    def query(self, *, call: bool = False) -> Query:
        """Return the query, with the range of the Range header."""
        query = parse(self.http.query_params.multi_items(), call=call)
        given = self.http.headers.get("range") if self.reads else None
        if given and query.limit is None and not query.offset:
            first, _, last = given.removeprefix("items=").partition("-")
            if first.isdigit() and (last.isdigit() or not last):
                query.offset = int(first)
                if last and int(last) < int(first):
                    below = "The lower boundary must be lower than or equal to the upper boundary"
                    raise out_of_range(f"{below} in the Range header.")
                query.limit = int(last) - int(first) + 1 if last else None
        return query

    def settings(self) -> dict[str, str]:
        """Return the settings of the transaction that describe the request."""
        return {
            "request.method": self.http.method,
            "request.path": self.http.url.path,
            "request.headers": json.dumps(dict(self.http.headers)),
            "request.cookies": json.dumps(self.http.cookies),
        }

    def answer(
        self, status: int, body: str | None, content_range: str, *applied: str, **headers: str
    ) -> Response:
        """Return the answer; `applied` names the preferences that are echoed if they were given."""
        honoured = [f"{name}={self.preferences[name]}" for name in applied if name in self.preferences]
        more = {"content-range": content_range, **headers}
        if honoured:
            more["preference-applied"] = ", ".join(honoured)
        if {"accept-profile", "content-profile"} & set(self.http.headers):
            more["content-profile"] = self.schema
        if body is None:
            return Response(status_code=status, headers=more)
        nulls = ";nulls=stripped" if self.strips_nulls else ""
        kind = f"{_SINGLE}{nulls}; charset=utf-8" if self.single else JSON_TYPE
        if nulls and not self.single:
            kind = f"application/vnd.pgrst.array+json{nulls}; charset=utf-8"
        return Response("" if self.http.method == "HEAD" else body, status, more, kind)


def _caller(request: Request, keys: Keys) -> Caller:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Caller()
    token = token.strip()
    try:
        return Caller.of(keys.verify(token, leeway=_SKEW_SECONDS))
    except jwt.PyJWTError as error:
        raise from_jwt(token, error) from error


def _preferences(request: Request) -> dict[str, str]:
    given = [one.strip() for header in request.headers.getlist("prefer") for one in header.split(",")]
    known: dict[str, str] = {}
    unknown = []
    for one in filter(None, given):
        name, _, value = one.partition("=")
        if name == "timezone":
            raise absent(Absent.REST_TIMEZONE)
        if one == "return=headers-only":
            raise absent(Absent.REST_HEADERS_ONLY)
        if value in _PREFERENCES.get(name, ()) or (name == "max-affected" and value.isdigit()):
            known.setdefault(name, value)
        else:
            unknown.append(one)
    if unknown and known.get("handling") == "strict":
        raise RestError(
            400,
            "PGRST122",
            "Invalid preferences given with handling=strict",
            details=f"Invalid preferences: {', '.join(unknown)}",
        )
    return known


async def objects(request: Request) -> tuple[str, list[dict[str, Any]]]:
    """Return the body as a JSON array, in text and parsed."""
    kind = _body_type(request)
    if kind not in {"application/json", "application/vnd.pgrst.object+json"}:
        raise invalid_body(f"Content-Type not acceptable: {kind}")
    raw = (await request.body()).decode("utf-8", "replace")
    try:
        given = json.loads(raw)
    except ValueError as error:
        raise invalid_body("Empty or invalid json") from error
    if isinstance(given, dict):
        return f"[{raw}]", [given]
    if isinstance(given, list) and all(isinstance(one, dict) for one in given):
        return raw, given
    raise invalid_body("Empty or invalid json")


async def arguments(request: Request) -> tuple[str, str | bytes, set[str]]:
    """Return the type of a call's body, the body, and the names of the arguments in it."""
    kind = _body_type(request)
    if kind not in UNNAMED_BODIES:
        raise invalid_body(f"Content-Type not acceptable: {kind}")
    if kind == "application/octet-stream":
        return kind, await request.body(), set()
    raw = (await request.body()).decode("utf-8", "replace")
    if kind != "application/json":
        return kind, raw, set()
    raw = raw or "{}"
    try:
        given = json.loads(raw)
    except ValueError as error:
        raise invalid_body("Empty or invalid json") from error
    return kind, raw, set(given) if isinstance(given, dict) else set()


def _body_type(request: Request) -> str:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    match kind:
        case "text/csv":
            raise absent(Absent.REST_CSV)
        case "application/x-www-form-urlencoded" | "multipart/form-data":
            raise absent(Absent.REST_FORMS)
    return kind
