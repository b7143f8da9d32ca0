"""PostgREST's error answers: one exception, and the translation of Postgres's errors."""

import json
from collections.abc import Mapping
from typing import Any

import jwt
import psycopg
from starlette.responses import Response

from watcher.sandbox.absent import STATUS, Absent

JSON_TYPE = "application/json; charset=utf-8"

# By SQLSTATE or its class; the others are 400.
_STATUS = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "21000": 500, "23503": 409, "23505": 409, "25": 500,
    "25006": 405, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500, "42501": 403,
    "42883": 404, "42P01": 404, "42P17": 500, "53": 503, "53400": 500, "54": 500, "55": 500, "57": 500,
    "57P01": 503, "58": 500, "F0": 500, "HV": 500, "P0": 500, "P0001": 400, "XX": 500,
}  # fmt: skip


class RestError(Exception):
    """An error answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Any = None,
        hint: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "details": details, "hint": hint, "message": message}
        self.headers = {"proxy-status": f"PostgREST; error={code}", **(headers or {})}
        if status == 503:
            self.headers["retry-after"] = "1"

    def response(self) -> Response:
        """Return the answer."""
        return Response(json.dumps(self.body), self.status, self.headers, JSON_TYPE)


def absent(feature: Absent, hint: str | None = None) -> RestError:
    """Return the refusal of what PostgREST has and the sandbox does not."""
    return RestError(STATUS, str(STATUS), feature.sentence, hint=hint)


def unparsable(what: str, text: str) -> RestError:
    """Return the error for a query string that cannot be parsed."""
    message = f'"failed to parse {what} ({text})" (line 1, column 1)'
    return RestError(400, "PGRST100", message, details=f"unexpected {text!r}")


def invalid_body(message: str) -> RestError:
    """Return the error for an invalid body."""
    return RestError(400, "PGRST102", message)


def not_single(rows: int) -> RestError:
    """Return the error for a result that is not exactly one row, where one was asked for."""
    details = f"The result contains {rows} rows"
    return RestError(406, "PGRST116", "Cannot coerce the result to a single JSON object", details=details)


def out_of_range(details: str) -> RestError:
    """Return the error for an invalid range."""
    return RestError(416, "PGRST103", "Requested range not satisfiable", details=details)


def unknown_column(table: str, column: str) -> RestError:
    """Return the error for an unknown column in a body."""
    message = f"Could not find the '{column}' column of '{table}' in the schema cache"
    return RestError(400, "PGRST204", message)


def from_jwt(token: str, error: jwt.PyJWTError) -> RestError:
    """Return the error for an invalid token."""
    details = None
    match error:
        case jwt.ExpiredSignatureError():
            code, message = "PGRST303", "JWT expired"
        case jwt.ImmatureSignatureError():
            code = "PGRST303"
            message = "JWT issued at future" if "iat" in str(error) else "JWT not yet valid"
        case jwt.InvalidSignatureError():
            code, message = "PGRST301", "No suitable key or wrong key type"
            details = "None of the keys was able to decode the JWT"
        case _ if not token:
            code, message = "PGRST301", "Empty JWT is sent in Authorization header"
        case _ if token.count(".") != 2:
            code, message = "PGRST301", f"Expected 3 parts in JWT; got {token.count('.') + 1}"
        case _:
            code, message = "PGRST301", "JWT cryptographic operation failed"
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    return RestError(401, code, message, details=details, headers={"www-authenticate": challenge})


def from_postgres(error: psycopg.Error, *, anonymous: bool) -> RestError:
    """Return the error for one of Postgres; `anonymous` callers get a 401, since signing in might help."""
    diagnosis, state = error.diag, error.sqlstate
    if state is None:
        return _without_state(error)
    message = diagnosis.message_primary or ""
    if state == "PGRST":
        return _raised(message, diagnosis.message_detail)
    if state.startswith("PT") and state[2:].isdigit():
        status = int(state[2:])
    elif state == "22023" and message.startswith("role") and message.endswith("does not exist"):
        status = 401
    elif state == "21000" and message.endswith("requires a WHERE clause"):
        status = 400
    elif state == "42501" and anonymous:
        status = 401
    else:
        status = next((_STATUS[state[:end]] for end in (5, 2) if state[:end] in _STATUS), 400)
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return RestError(
        status, state, message, details=diagnosis.message_detail, hint=diagnosis.message_hint, headers=headers
    )


def _without_state(error: psycopg.Error) -> RestError:
    """Return the error for one of psycopg: no connection, or text that Postgres cannot store."""
    text = str(error)
    if not isinstance(error, psycopg.OperationalError):
        return RestError(400, "22021", text)
    if "connection failed" in text or "connection is bad" in text:
        message = "Database connection error. Retrying the connection."
        return RestError(503, "PGRST000", message, details=text)
    message = "Database client error. Retrying the connection."
    return RestError(503, "PGRST001", message, details=text)


def _raised(message: str, detail: str | None) -> RestError:
    """Return the answer that an error with SQLSTATE 'PGRST' has in its message and detail."""
    try:
        body, control = json.loads(message), json.loads(detail or "")
        return RestError(
            int(control["status"]),
            str(body["code"]),
            str(body["message"]),
            details=body.get("details"),
            hint=body.get("hint"),
            headers={str(name): str(value) for name, value in control["headers"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        broken = "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error"
        hint = (
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message', DETAIL one with 'status'"
        )
        return RestError(500, "PGRST121", broken, details=message, hint=f"{hint} and 'headers'.")
