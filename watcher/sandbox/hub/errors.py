"""The Hub's refusals: a status, a sentence in body and header, for some a code that clients tell them by."""

import json
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """A refusal. `code` is what goes into X-Error-Code, `fields` into the body beside `error`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        fields: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.fields = fields or {}
        self.headers = headers or {}


def refused(request: Request, error: Exception) -> Response:
    """The answer to a HubError."""
    if not isinstance(error, HubError):
        raise error
    # Header values are Latin-1; the Hub's sentences are ASCII, ours may name a path that is not.
    headers = {
        "X-Error-Message": quote(str(error).strip(), safe=" !\"#$&'()*+,/:;<=>?@[]`{|}")
    } | error.headers
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    # By which the client quotes a refusal: the caller's own, or the one that the client makes for each request.
    for name in ("x-request-id", "x-amzn-trace-id"):
        if name in request.headers:
            headers.setdefault("X-Request-Id", request.headers[name])
    return JSONResponse({"error": str(error), **error.fields}, error.status, headers)


def repo_not_found(*, anonymous: bool) -> HubError:
    """A repo that is not there, or not for this caller: the two look the same."""
    if anonymous:
        return HubError(401, "Invalid username or password.", code="RepoNotFound")
    return HubError(404, "Repository not found", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """A branch or commit that is not there."""
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found() -> HubError:
    """A file that is not there."""
    return HubError(404, "Entry not found", code="EntryNotFound")


def bad_request(message: str) -> HubError:
    """A request that cannot be understood."""
    return HubError(400, message)


async def json_object(request: Request) -> dict[str, Any]:
    """The request's body; refuses what is not a JSON object."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise bad_request("The body is not JSON") from error
    if not isinstance(body, dict):
        raise bad_request("The body is not a JSON object")
    return body
