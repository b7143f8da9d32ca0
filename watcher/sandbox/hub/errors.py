"""The Hub's refusals: a status, a message in body and header, and for some an error code."""

import json
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HubError(Exception):
    """A refusal, with the `code` for X-Error-Code, and further `fields` of the body."""

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
    """Return the answer for a HubError."""
    if not isinstance(error, HubError):
        raise error
    # Header values are Latin-1. The Hub's messages are ASCII, but here one may have a path that is not.
    headers = {
        "X-Error-Message": quote(str(error).strip(), safe=" !\"#$&'()*+,/:;<=>?@[]`{|}")
    } | error.headers
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    # The request id that the client shows: the caller's own, or the one that the client generates.
    for name in ("x-request-id", "x-amzn-trace-id"):
        if name in request.headers:
            headers.setdefault("X-Request-Id", request.headers[name])
    return JSONResponse({"error": str(error), **error.fields}, error.status, headers)


def repo_not_found(*, anonymous: bool) -> HubError:
    """Return the refusal for a repo that does not exist or is not visible; both look the same."""
    if anonymous:
        return HubError(401, "Invalid username or password.", code="RepoNotFound")
    return HubError(404, "Repository not found", code="RepoNotFound")


def gated_repo(name: str) -> HubError:
    """Return the refusal for a repo whose conditions the caller has not accepted."""
    sentence = (
        f"Access to model {name} is restricted and you are not in the authorized list. Visit "
        f"https://huggingface.co/{name} to ask for access."
    )
    return HubError(403, sentence, code="GatedRepo")


def revision_not_found(revision: str) -> HubError:
    """Return the refusal for an unknown branch or commit."""
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found() -> HubError:
    """Return the refusal for an unknown file."""
    return HubError(404, "Entry not found", code="EntryNotFound")


def bad_request(message: str) -> HubError:
    """Return the refusal for an invalid request."""
    return HubError(400, message)


async def json_object(request: Request) -> dict[str, Any]:
    """Return the request's body, which must be a JSON object."""
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise bad_request("The body is not JSON") from error
    if not isinstance(body, dict):
        raise bad_request("The body is not a JSON object")
    return body
