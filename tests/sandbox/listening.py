"""The real Realtime client, as an app uses it, and what it calls back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from realtime.types import RealtimePostgresChangesListenEvent

from tests.sandbox.project import INSERTS, PATIENCE, Project, until


@dataclass
class Listener:
    """A client with one channel."""

    project: Project
    client: AsyncRealtimeClient
    channel: AsyncRealtimeChannel
    states: list[str] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)
    notes: list[str | None] = field(default_factory=list)
    """The notes of the rows in the events that came; None where the event has none."""
    subscribed: int = 0
    """How often "Subscribed to PostgreSQL" came."""

    async def join(self) -> None:
        """Join, and wait for the reply."""

        def state(state: Any, error: Exception | None) -> None:
            self.states.append(state.value)
            self.errors.append(error)

        await self.channel.subscribe(state)

    async def subscribe(self) -> None:
        """Join, and wait until changes are sent."""
        await self.join()
        await until(lambda: self.subscribed)

    async def gets(self, note: str) -> None:
        """Insert a row, and assert that its event comes."""
        self.project.sql(f"insert into jobs (note) values ('{note}')")
        await until(lambda: note in self.notes)

    async def misses(self, note: str) -> None:
        """Insert a row, and assert that its event does not come."""
        position = self.project.position()
        self.project.sql(f"insert into jobs (note) values ('{note}')")
        self.project.settle(position)
        await asyncio.sleep(0.1)  # what was sent has still to arrive
        assert note not in self.notes

    async def reaches(self, *states: str) -> None:
        """Wait for these states, and assert that there were no others."""
        await until(lambda: len(self.states) >= len(states))
        assert self.states == list(states)

    def status(self) -> tuple[str, bool, bool]:
        """Return the channel's state, whether the client knows it, and whether it has a socket."""
        known = self.client.channels.get(self.channel.topic) is self.channel
        return self.channel.state.value, known, self.client.is_connected


@asynccontextmanager
async def listening(
    project: Project,
    topic: str = "jobs",
    *,
    entry: Mapping[str, Any] = INSERTS,
    key: str | None = None,
    token: str | None = None,
    **options: Any,
) -> AsyncIterator[Listener]:
    """Have a client with a channel that has not joined yet."""
    client = AsyncRealtimeClient(project.realtime_url, key or project.keys.secret, **options)
    if token is not None:
        await client.set_auth(token)
    listener = Listener(project, client, client.channel(topic))
    more = {name: value for name, value in entry.items() if name != "event"}
    listener.channel.on_postgres_changes(
        cast("RealtimePostgresChangesListenEvent", entry["event"]),
        lambda payload: listener.notes.append(cast("Any", payload)["data"]["record"].get("note")),
        **more,
    )

    def subscribed(_: object) -> None:
        listener.subscribed += 1

    listener.channel.on_system(subscribed)
    before = asyncio.all_tasks()
    try:
        yield listener
    finally:
        async with asyncio.timeout(PATIENCE):
            await client.close()
            await end_timers(asyncio.all_tasks() - before)


async def end_timers(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End the timers that the client's `close` leaves running: of unanswered pushes, and of the next join."""
    timers = [task for task in tasks if str(task.get_coro()).startswith(_TIMERS)]
    for timer in timers:
        timer.cancel()
    await asyncio.gather(*timers, return_exceptions=True)


_TIMERS = ("<coroutine object AsyncPush.", "<coroutine object AsyncTimer.")
