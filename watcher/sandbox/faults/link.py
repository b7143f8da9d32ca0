"""Faults of the link between client and server: it is far away, or narrow. Each passes everything on."""

import asyncio
import weakref
from dataclasses import dataclass, field

from starlette.types import Message

from watcher.sandbox.faults.passage import Passage
from watcher.sandbox.server import CONNECTION

BURST = 0.02
"""How many seconds a link may be ahead of its rate: timers are not precise enough to keep it exactly."""


@dataclass(frozen=True)
class Delay:
    """Pass the request on after so many seconds, and its answer at once."""

    seconds: float

    async def __call__(self, passage: Passage) -> None:
        """Wait, and pass the request on."""
        passage.gate.reach()
        await asyncio.sleep(self.seconds)
        await passage.go_on()


@dataclass(frozen=True)
class RoundTrip:
    """A longer round-trip time, by so many seconds.

    Half of it before the request is passed on, half before its answer is sent, and all of it once more before the first
    request of a connection, for the TCP handshake. TLS handshakes are not imitated.
    """

    seconds: float
    _seen: weakref.WeakSet[object] = field(
        default_factory=weakref.WeakSet, init=False, repr=False, compare=False
    )

    async def __call__(self, passage: Passage) -> None:
        """Wait before the request and before the answer."""
        passage.gate.reach()
        connection = passage.scope["extensions"][CONNECTION]
        if connection is not None and connection not in self._seen:
            self._seen.add(connection)
            await asyncio.sleep(self.seconds)
        await asyncio.sleep(self.seconds / 2)

        async def late_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self.seconds / 2)
            await passage.send(message)

        await passage.go_on(send=late_send)


@dataclass(frozen=True)
class Rate:
    """One link for all requests of the rule, with so many bytes of bodies per second in each direction."""

    bytes_per_second: float
    _free_at: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.bytes_per_second > 0:
            raise ValueError(f"bytes_per_second must be more than 0, not {self.bytes_per_second}")

    async def __call__(self, passage: Passage) -> None:
        """Pass the request on at the rate of the link."""
        passage.gate.reach()

        async def slow_receive() -> Message:
            message = await passage.receive()
            await self._delay("in", message)
            return message

        async def slow_send(message: Message) -> None:
            await self._delay("out", message)
            await passage.send(message)

        await passage.go_on(slow_receive, slow_send)

    async def _delay(self, direction: str, message: Message) -> None:
        size = len(message.get("body", b""))
        if not size:
            return
        now = asyncio.get_running_loop().time()
        free_at = max(self._free_at.get(direction, 0.0), now - BURST) + size / self.bytes_per_second
        self._free_at[direction] = free_at
        await asyncio.sleep(max(0.0, free_at - now))
