"""Records the mutating requests to the services and their answers, before a fault can change the answer."""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watcher.sandbox.faults import Faults

ARRIVED = "chaos.arrived"
"""The key in a request's scope where a fault records its arrival."""
_VERB = re.compile(r"/rpc/watcher_(\w+)$")
_ON_THE_HUB = {
    "POST": re.compile(r"^/api/repos/create$|/commit/main$|^/api/jobs/[^/]+(/[^/]+/cancel)?$"),
    "PUT": re.compile(r"^/_lfs/put/"),
    "DELETE": re.compile(r"^/api/repos/delete$"),
}


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as the service saw them. Times are monotonic."""

    began: float
    """When the service began to process it; a fault may have delayed it before."""
    name: str
    """A verb without `watcher_`; or the Hub's create, commit, put, delete, run job, cancel."""
    path: str
    ended: float | None = None
    status: int | None = None
    request: bytes = b""
    response: bytes = b""
    arrived: float = 0.0
    """When it met its first fault; `began` where it met none."""

    @property
    def asked(self) -> dict[str, Any]:
        """The request's JSON; empty if it is incomplete."""
        return _parsed(self.request) or {}

    @property
    def answered(self) -> Any:
        """The answer's JSON; None if there is none or the status is not 200."""
        return _parsed(self.response) if self.status == 200 else None


class Recorder(Faults):
    """The sandbox's faults, with a recorder between them and the services."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []

    def exchanges(self) -> list[Exchange]:
        """All exchanges so far, in the order in which they began."""
        with self._lock:
            return list(self._exchanges)

    def under_way(self) -> int:
        """How many requests a service still processes, even if their sender is gone."""
        return sum(exchange.ended is None for exchange in self.exchanges())

    def wrap(self, app: ASGIApp, service: str | Callable[[str], str]) -> ASGIApp:
        return super().wrap(self._recorded(app, on_hub=service == "hub"), service)

    def _recorded(self, app: ASGIApp, *, on_hub: bool) -> ASGIApp:
        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            name = _name(scope, on_hub=on_hub)
            if name is None:
                await app(scope, receive, send)
                return
            exchange = Exchange(time.monotonic(), name, scope["path"])
            exchange.arrived = scope.get(ARRIVED, exchange.began)
            with self._lock:
                self._exchanges.append(exchange)

            async def recorded_receive() -> Message:
                message = await receive()
                if message["type"] == "http.request" and name not in {"put", "commit"}:
                    exchange.request += message.get("body", b"")
                return message

            async def recorded_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    exchange.status = message["status"]
                elif message["type"] == "http.response.body":
                    exchange.response += message.get("body", b"")
                    if not message.get("more_body", False):
                        exchange.ended = time.monotonic()
                await send(message)

            try:
                await app(scope, recorded_receive, recorded_send)
            finally:
                exchange.ended = exchange.ended or time.monotonic()

        return recorded


def _name(scope: Scope, *, on_hub: bool) -> str | None:
    if scope["type"] != "http":
        return None
    method, path = scope["method"], scope["path"]
    if not on_hub:
        verb = _VERB.search(path)
        return verb[1] if verb else None
    pattern = _ON_THE_HUB.get(method)
    if pattern is None or not pattern.search(path):
        return None
    if path.startswith("/api/jobs/"):
        return "cancel" if path.endswith("/cancel") else "run job"
    return {"PUT": "put", "DELETE": "delete"}.get(method) or (
        "create" if path.endswith("create") else "commit"
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
