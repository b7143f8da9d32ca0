"""The real Realtime client, as an app uses it, and all that it calls back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient
from realtime.types import RealtimePostgresChangesListenEvent

from tests.sandbox.live import INSERTS, Project, until


@dataclass
class Listener:
    """A client with a channel."""

    project: Project
    client: AsyncRealtimeClient
    channel: AsyncRealtimeChannel
    states: list[str] = field(default_factory=list)
    errors: list[Exception | None] = field(default_factory=list)
    notes: list[str | None] = field(default_factory=list)
    """Of the rows that it heard of; None where they were not among what it chose."""
    subscribed: int = 0
    """How often it heard "Subscribed to PostgreSQL"."""

    async def join(self) -> None:
        """Join, and wait for the reply."""

        def state(state: Any, error: Exception | None) -> None:
            self.states.append(state.value)
            self.errors.append(error)

        await self.channel.subscribe(state)

    async def live(self) -> None:
        """Join, and wait until Postgres is subscribed to."""
        await self.join()
        await until(lambda: self.subscribed)

    async def hears(self, note: str) -> None:
        """Assert that it hears of a row that is inserted now."""
        self.project.sql(f"insert into jobs (note) values ('{note}')")
        await until(lambda: note in self.notes)

    async def misses(self, note: str) -> None:
        """Assert that it hears nothing of a row that is inserted now, however long one waits."""
        written = self.project.ask("select pg_current_wal_lsn()")
        self.project.sql(f"insert into jobs (note) values ('{note}')")
        await self.project.polled(written)
        assert note not in self.notes

    async def comes_to(self, *states: str) -> None:
        """Wait for these states, and assert that they are all there were."""
        await until(lambda: len(self.states) >= len(states))
        assert self.states == list(states)

    def is_where(self) -> tuple[str, bool, bool]:
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
    """Have a client with a channel that is not joined yet."""
    client = AsyncRealtimeClient(project.url, key or project.keys.secret, **options)
    if token is not None:
        await client.set_auth(token)
    listener = Listener(project, client, client.channel(topic))
    more = {name: value for name, value in entry.items() if name != "event"}
    listener.channel.on_postgres_changes(
        cast("RealtimePostgresChangesListenEvent", entry["event"]),
        lambda payload: listener.notes.append(cast("Any", payload)["data"]["record"].get("note")),
        **more,
    )

    def told(_: object) -> None:
        listener.subscribed += 1

    listener.channel.on_system(told)
    before = asyncio.all_tasks()
    try:
        yield listener
    finally:
        async with asyncio.timeout(5):
            await client.close()
            await _end_timers(asyncio.all_tasks() - before)


async def _end_timers(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End what the client's `close` leaves to itself: timers of what was not answered, and of the next join."""
    timers = [task for task in tasks if str(task.get_coro()).startswith(_TIMERS)]
    for timer in timers:
        timer.cancel()
    await asyncio.gather(*timers, return_exceptions=True)


_TIMERS = ("<coroutine object AsyncPush.", "<coroutine object AsyncTimer.")
