"""A request on its way from the server to the app, as a fault meets it."""

from dataclasses import dataclass
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from watcher.sandbox.server import drop


class Gate(Protocol):
    """An action's view of its rule."""

    def reach(self) -> None:
        """Count a request that has reached the fault."""

    def finish(self) -> None:
        """Count a late request that the app has processed."""

    async def opened(self) -> None:
        """Wait until the rule is released or cleared."""


@dataclass(frozen=True)
class Passage:
    """A request before it reaches the app."""

    gate: Gate
    app: ASGIApp
    scope: Scope
    receive: Receive
    send: Send

    async def go_on(self, receive: Receive | None = None, send: Send | None = None) -> None:
        """Pass the request to the app, with this `receive` and `send` or the server's."""
        await self.app(self.scope, receive or self.receive, send or self.send)

    async def drop(self) -> None:
        """Break the connection."""
        await drop(self.scope, self.receive)
