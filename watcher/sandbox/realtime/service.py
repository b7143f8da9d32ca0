"""Realtime 2.129.8, for `postgres_changes`: Phoenix channels over a real replication slot.

The sandbox does not imitate broadcast and presence: asked for them, it says so. An event is sent at most once.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.realtime import tokens
from watcher.sandbox.realtime.poller import Poller
from watcher.sandbox.realtime.rate import Rate
from watcher.sandbox.realtime.socket import ABNORMAL, Socket
from watcher.sandbox.realtime.timing import Timing

# The bodies with which the server, or the gateway in front of it, refuses a handshake.
_REFUSALS = {
    401: {"error": "Failed to validate JWT signature"},
    429: {"error": "Too many connected users"},
    502: {"message": "An invalid response was received from the upstream server"},
}


class Realtime:
    """The service and its faults; faults can be asked for from any other thread."""

    def __init__(self, database: Database, keys: Keys, timing: Timing | None = None) -> None:
        self._database = database
        self._keys = keys
        self._timing = replace(timing or Timing())
        self._initial = replace(self._timing)
        self._poller = Poller(database, self._timing)
        self._sockets: set[Socket] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refusals = 0
        self._refusal = 503
        self._drops = 0

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        return [
            WebSocketRoute("/websocket", self._connect),
            Route("/api/broadcast", _broadcast, methods=["POST"]),
            Route("/api/broadcast/{path:path}", _broadcast, methods=["POST"]),
            Route("/{path:path}", _unknown, methods=methods),
        ]

    async def close(self) -> None:
        """Stop polling; to be awaited on the server's loop."""
        await self._poller.stop()

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The actions that the control port offers, by name."""
        return {
            "realtime_close_all": self.close_all,
            "realtime_mute": self.mute,
            "realtime_unmute": self.unmute,
            "realtime_drop_events": self.drop_events,
            "realtime_limit_events": self.limit_events,
            "realtime_refuse": self.refuse,
            "realtime_accept_then_drop": self.accept_then_drop,
            "realtime_system_error": self.system_error,
            "realtime_set_timing": self.set_timing,
            "realtime_reset": self.reset,
        }

    def reset(self) -> None:
        """End all faults, and use the initial timing; closed sockets and failed channels stay so."""
        self.refuse(503, times=0)
        self.accept_then_drop(times=0)
        self.drop_events(0)
        self.limit_events()
        self.unmute()
        for delay in fields(Timing):
            setattr(self._timing, delay.name, getattr(self._initial, delay.name))

    def close_all(self, code: int = 1012) -> None:
        """Close all sockets with a code; 1006 breaks their connections, as a killed server would."""

        def close() -> None:
            for socket in self._sockets:
                socket.close(code)

        self._do(close)

    def mute(self) -> None:
        """Send no more events to the channels that are joined now, until they join again; heartbeats are answered."""
        self._do(lambda: self._poller.mute(muted=True))

    def unmute(self) -> None:
        """Send events to muted channels again."""
        self._do(lambda: self._poller.mute(muted=False))

    def drop_events(self, seconds: float) -> None:
        """Drop all changes that are polled during the next seconds."""
        self._poller.drop_until = time.monotonic() + seconds

    def limit_events(self, per_second: float = 100.0, window: float = 60.0) -> None:
        """Drop events above so many per second, as an average over `window` seconds from now on."""
        self._poller.rate = Rate(per_second, window)

    def set_timing(self, **seconds: float) -> None:
        """Change fields of `Timing`. Raises TypeError for an unknown one."""
        replace(self._timing, **seconds)
        for name, value in seconds.items():
            setattr(self._timing, name, value)

    def refuse(self, status: int, times: int = 1) -> None:
        """Refuse the next handshakes with this HTTP status."""
        self._refusal, self._refusals = status, times

    def accept_then_drop(self, times: int = 1) -> None:
        """Accept the next handshakes and break their connections."""
        self._drops = times

    def system_error(self, message: str) -> None:
        """Send all channels a system error; on the server they stay joined."""

        def send() -> None:
            for socket in self._sockets:
                socket.send_system_error(message)

        self._do(send)

    def _do(self, work: Callable[[], None]) -> None:
        """Do `work` on the server's loop, and return when it is done. Before the first socket there is nothing to do."""
        if self._loop is None:
            return

        async def on_loop() -> None:
            work()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()

    async def _connect(self, websocket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        if self._refusals > 0:
            self._refusals -= 1
            body = _REFUSALS.get(self._refusal, {"error": "refused"})
            await websocket.send_denial_response(JSONResponse(body, self._refusal))
            return
        token = websocket.headers.get("x-api-key") or websocket.query_params.get("apikey")
        problem = self._problem(token)
        if problem is not None or token is None:
            await asyncio.sleep(self._timing.handshake_error)
            await websocket.send_denial_response(JSONResponse({"error": problem}, 401))
            return
        await websocket.accept()
        socket = Socket(
            websocket,
            token,
            database=self._database,
            keys=self._keys,
            poller=self._poller,
            timing=self._timing,
        )
        if self._drops > 0:
            self._drops -= 1
            socket.close(ABNORMAL)
        self._sockets.add(socket)
        try:
            await socket.serve()
        finally:
            self._sockets.discard(socket)

    def _problem(self, token: str | None) -> str | None:
        """Return the message with which a handshake with this key is refused, or None."""
        if token is None:
            return "API key is missing"
        try:
            tokens.verify(self._keys, token)
        except tokens.TokenError as error:
            return error.handshake
        return None


async def _broadcast(_: Request) -> Response:
    return JSONResponse({"error": Absent.REALTIME_BROADCAST.sentence}, STATUS)


async def _unknown(request: Request) -> Response:
    return JSONResponse({"error": not_imitated(f"{request.method} /realtime/v1{request.url.path}")}, STATUS)
