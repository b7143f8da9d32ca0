"""The requests in order, and counts of requests and bytes of bodies by service, method, route and caller.

A route is a path without its ids: `/api/models/{repo}/commit/{revision}` for all repos. A websocket counts as one
request, and its messages as bodies.
"""

import base64
import binascii
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

LOG_LENGTH = 100_000
"""Requests in the log; older ones are removed, but stay counted."""

_ROUTES = [
    (re.compile(pattern), route)
    for pattern, route in (
        (r"^/api/(models|datasets)/[^/]+/[^/]+/tree/.*", r"/api/\1/{repo}/tree/{revision}"),
        (r"^/api/(models|datasets)/[^/]+/[^/]+/auth-check/write", r"/api/\1/{repo}/auth-check/write"),
        (r"^/api/(models|datasets)/[^/]+/[^/]+/([^/]+)/.*", r"/api/\1/{repo}/\2/{revision}"),
        (r"^/api/(models|datasets)/[^/]+/[^/]+/([^/]+)$", r"/api/\1/{repo}/\2"),
        (r"^/api/(models|datasets)/[^/]+/[^/]+$", r"/api/\1/{repo}"),
        (r"^/api/jobs/(?!hardware$)[^/]+$", "/api/jobs/{namespace}"),
        (r"^/api/jobs/[^/]+/[^/]+(/[a-z]+)?$", r"/api/jobs/{namespace}/{job}\1"),
        (r"^/.*\.git/info/lfs/objects/(batch|verify)$", r"/{repo}.git/info/lfs/objects/\1"),
        (r"^/_lfs/(put|get)/.*", r"/_lfs/\1/{oid}"),
        (r"^/.*/resolve/.*", "/{repo}/resolve/{revision}/{path}"),
        (r"^(.*/upload/resumable)/.*", r"\1/{upload}"),
        (r"^(.*/object/(?:list|list-v2))/[^/]+$", r"\1/{bucket}"),
        (r"^(.*/object/(?:upload/)?(?:sign|authenticated|public|info))/.*", r"\1/{path}"),
        (
            r"^(.*/object)/(?!list/|list-v2/|upload/|sign/|authenticated/|public/|info/|copy$|move$).*",
            r"\1/{path}",
        ),
    )
]
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(slots=True)
class Seen:
    """One request, in the order of arrival."""

    service: str
    method: str
    """`WEBSOCKET` for a websocket."""
    path: str
    status: int | None = None
    """The answer's status; None if there was no answer, or not yet."""
    came_at: float = field(default_factory=time.monotonic)
    """Seconds on the machine's monotonic clock."""
    done_at: float | None = None
    """When the last byte of the answer was sent; None before."""


@dataclass(slots=True)
class Count:
    """The requests of a caller to a route, and the bytes of their bodies in both directions."""

    service: str
    method: str
    route: str
    caller: str
    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Traffic:
    """The log and the counts; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: deque[Seen] = deque(maxlen=LOG_LENGTH)
        self._counts: dict[tuple[str, str, str, str], Count] = {}

    def watch(self, service: str, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """Log a request, and return a `receive` and `send` that count what passes through them."""
        method = scope.get("method", "WEBSOCKET")
        seen = Seen(service, method, scope["path"])
        key = (service, method, route(scope["path"]), caller(scope))
        with self._lock:
            self._log.append(seen)
            count = self._counts.setdefault(key, Count(*key))
            count.requests += 1

        async def counted_receive() -> Message:
            message = await receive()
            with self._lock:
                count.bytes_in += _size(message)
            return message

        async def counted_send(message: Message) -> None:
            with self._lock:  # before it is sent, so that a client that has the answer finds it counted
                if message["type"] == "http.response.start":
                    seen.status = message["status"]
                elif method != "HEAD":
                    count.bytes_out += _size(message)
            await send(message)
            if not message.get("more_body", False):
                seen.done_at = time.monotonic()

        return counted_receive, counted_send

    def log(self) -> list[Seen]:
        """Return the requests since the last reset, oldest first."""
        with self._lock:
            return [replace(one) for one in self._log]

    def counts(self) -> list[Count]:
        """Return the counts since the last reset, sorted by service, method, route and caller."""
        with self._lock:
            return [
                Count(*key, count.requests, count.bytes_in, count.bytes_out)
                for key, count in sorted(self._counts.items())
            ]

    def reset(self) -> None:
        """Clear the log and the counts."""
        with self._lock:
            self._log.clear()
            self._counts.clear()


def route(path: str) -> str:
    """Return the path without its ids."""
    for pattern, replacement in _ROUTES:
        if pattern.match(path):
            return pattern.sub(replacement, path)
    return _UUID.sub("{id}", path)


def caller(scope: Scope) -> str:
    """Return the caller that the request names, unverified: a Postgres role, `token` (the Hub's), or `nobody`."""
    headers, query = Headers(scope=scope), parse_qs(scope["query_string"].decode())
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    bearer = bearer or headers.get("apikey") or query.get("apikey", [""])[0]
    if not bearer:
        return "nobody"
    if bearer.startswith("sb_"):
        return "service_role" if bearer.startswith("sb_secret_") else "anon"
    try:
        claims = json.loads(base64.urlsafe_b64decode(bearer.split(".")[1] + "=="))
        return str(claims["role"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return "token"


def _size(message: Message) -> int:
    """Return the bytes of a part of a body, or of a websocket's message."""
    return len(message.get("body") or message.get("bytes") or (message.get("text") or "").encode())
