"""Reads the bodies and parameters of requests to GoTrue; raises AuthError in its words for what is none."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from starlette.requests import Request

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.auth.users import AuthError


def absent(feature: Absent) -> AuthError:
    """Return the error for what the sandbox does not imitate."""
    return AuthError(STATUS, "not_implemented", feature.sentence)


async def json_body(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty one if there is none."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        message = "Could not parse request body as JSON"
        raise AuthError(400, "bad_json", f"{message}: {error}") from error
    if not isinstance(body, dict):
        raise AuthError(400, "bad_json", "Could not parse request body as JSON: not an object")
    return body


def text_field(body: Mapping[str, Any], name: str) -> str | None:
    """Return a field of the body that has to be a text; None if it is absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise AuthError(400, "bad_json", f"Could not parse request body as JSON: {name} is not a string")
    return value


def page_number(request: Request, name: str, default: int) -> int:
    """Return a parameter that is a positive number."""
    value = request.query_params.get(name) or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise AuthError(400, "validation_failed", f"Bad Pagination Parameters: {name} {value!r}")
    return int(value)


def user_id(text: str | None) -> str:
    """Return a user's id as GoTrue writes it."""
    try:
        return str(UUID(text))
    except ValueError as error:
        raise AuthError(404, "validation_failed", "user_id must be an UUID") from error
