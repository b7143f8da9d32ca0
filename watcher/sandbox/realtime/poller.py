"""Polls the slot and tells each subscriber what it may know: at most once, in order of commit, matched when polled.

What is committed while nothing polls is told to nobody. A subscriber is never told that it missed anything.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import sql

from watcher.sandbox.database import Database
from watcher.sandbox.keys import Caller
from watcher.sandbox.realtime.bindings import Binding, identity, parse
from watcher.sandbox.realtime.rate import Rate
from watcher.sandbox.realtime.stream import Stream, Told
from watcher.sandbox.realtime.timing import Timing
from watcher.sandbox.realtime.wal import Change

_STREAM_SECONDS = 10.0


class Listener(Protocol):
    """Who subscribes: a channel."""

    def tell(self, data: str, ids: list[int]) -> None:
        """Pass on an event that the bindings of these ids match; `data` is JSON."""

    def renew(self) -> None:
        """Subscribe again: what is published has changed."""


@dataclass(eq=False)
class Subscription:
    """A binding of a channel, as it stands in the database."""

    listener: Listener
    id: int
    binding: Binding
    caller: Caller
    tables: frozenset[int]
    muted: bool = False


@dataclass(frozen=True)
class _Event:
    change: Change
    told: Told
    matched: Sequence[Subscription]


class Poller:
    """Runs from the first subscription on, and until nobody has subscribed for a while."""

    def __init__(self, database: Database, timing: Timing) -> None:
        self.silent_until = 0.0
        """Until this moment of the monotonic clock, changes are taken and told to nobody."""
        self.rate = Rate()
        self._database = database
        self._timing = timing
        self._subscriptions: list[Subscription] = []
        self._stream: asyncio.Future[Stream] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def warm(self) -> bool:
        """Whether there is a slot already."""
        return self._running and self._stream is not None and self._stream.done()

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to poll, if that is not so already."""
        if not self._running:
            self._lost()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and forget who has subscribed."""
        self._subscriptions.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def subscribe(
        self, listener: Listener, entries: Iterable[Mapping[str, Any]], caller: Caller
    ) -> None:
        """Subscribe `listener` to `entries` in place of what it had.

        Raises `BindingError` if one cannot be had, `psycopg.Error` or `TimeoutError` while Postgres is away.
        """
        self.start()
        assert self._stream is not None
        async with asyncio.timeout(_STREAM_SECONDS):
            stream = await asyncio.shield(self._stream)
        found = [
            Subscription(
                listener, identity(entry), binding, caller, await stream.admit(binding, caller.claims)
            )
            for entry in entries
            for binding in [parse(entry)]
        ]
        self.unsubscribe(listener)
        self._subscriptions += found

    def unsubscribe(self, listener: Listener) -> None:
        """Forget what `listener` has subscribed to."""
        self._subscriptions = [one for one in self._subscriptions if one.listener is not listener]

    def mute(self, *, muted: bool) -> None:
        """Tell those who have subscribed nothing more; who subscribes after that is not concerned."""
        for subscription in self._subscriptions:
            subscription.muted = muted

    async def _run(self) -> None:
        """Poll, with a new slot after each failure, and give up in silence when failures last too long."""
        failing_since: float | None = None
        pause = 0.0
        while True:
            try:
                async with Stream.open(self._database.admin_dsn) as stream:
                    self._opened(stream)
                    failing_since, pause = None, 0.0
                    await self._follow(stream)
                return
            except (psycopg.Error, OSError):
                self._lost()
                now = time.monotonic()
                failing_since = failing_since or now
                if now - failing_since > self._timing.give_up:
                    self._subscriptions.clear()
                    return
            pause = min(2 * pause, self._timing.retry_most) or self._timing.retry_first
            await asyncio.sleep(pause)

    def _opened(self, stream: Stream) -> None:
        assert self._stream is not None
        self._stream.set_result(stream)

    def _lost(self) -> None:
        """Let who subscribes wait for the next stream."""
        if self._stream is None or self._stream.done():
            self._stream = asyncio.get_running_loop().create_future()

    async def _follow(self, stream: Stream) -> None:
        """Poll until nobody has subscribed for a while."""
        tables, looked = await stream.tables(), time.monotonic()
        wanted = looked
        while True:
            pause = await self._poll(stream)
            now = time.monotonic()
            if self._subscriptions:
                wanted = now
            elif now - wanted > self._timing.linger:
                return
            if now - looked > self._timing.publication_check:
                before, tables, looked = tables, await stream.tables(), now
                if tables != before:
                    for listener in {one.listener for one in self._subscriptions}:
                        listener.renew()
            await asyncio.sleep(pause)

    async def _poll(self, stream: Stream) -> float:
        """Take what changed, tell it, and return how long to wait."""
        changes, anything = await stream.changes()
        now = time.monotonic()
        if now < self.silent_until or self.rate.exceeded(now):
            changes = []
        told = 0
        for event in await self._visible(await self._matched(stream, changes)):
            ids: dict[Listener, list[int]] = defaultdict(list)
            for subscription in event.matched:
                ids[subscription.listener].insert(0, subscription.id)
            for listener, matched in ids.items():
                listener.tell(event.told.data, matched)
            told += len(event.matched)
        if told:
            self.rate.add(told, now)
            return 0
        return self._timing.poll_unmatched if anything else self._timing.poll_idle

    async def _matched(self, stream: Stream, changes: Iterable[Change]) -> list[_Event]:
        """Return the changes that somebody has subscribed to, as each role sees them."""
        events = []
        for change in changes:
            groups: dict[tuple[str, tuple[str, ...] | None], list[Subscription]] = defaultdict(list)
            for one in self._subscriptions:
                action = one.binding.action
                if not one.muted and change.relation.oid in one.tables and action in {"*", change.action}:
                    groups[one.caller.role, one.binding.columns].append(one)
            for (role, columns), group in groups.items():
                told = await stream.told(change, role, columns)
                matched = [
                    one for one in group if told.refused or await stream.passes(change, one.binding.filters)
                ]
                events.append(_Event(change, told, matched))
        return events

    async def _visible(self, events: Sequence[_Event]) -> list[_Event]:
        """Return the events without the subscriptions from which row-level security hides the row, as it is now."""
        asked: dict[int, tuple[Caller, list[_Event]]] = {}
        for event in events:
            for one in event.matched:
                if event.told.secured:
                    asked.setdefault(id(one.caller), (one.caller, []))[1].append(event)
        seen = {
            (key, id(event))
            for key, (caller, some) in asked.items()
            for event in await self._seen(caller, some)
        }
        return [
            _Event(
                event.change,
                event.told,
                [
                    one
                    for one in event.matched
                    if not event.told.secured or (id(one.caller), id(event)) in seen
                ],
            )
            for event in events
        ]

    async def _seen(self, caller: Caller, events: Iterable[_Event]) -> list[_Event]:
        """Return those whose row `caller` finds in the table; a policy that raises hides it and what follows."""
        found = []
        try:
            async with self._database.transaction(caller, read_only=True) as cursor:
                for event in events:
                    row = event.change.new
                    assert row is not None
                    await cursor.execute(_find(event), [row[name] for name in event.told.key])
                    if cursor.rowcount:
                        found.append(event)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
        return found


def _find(event: _Event) -> sql.Composed:
    relation = event.change.relation
    key = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in event.told.key)
    table = sql.Identifier(relation.schema, relation.table)
    return sql.SQL("select from {} where {}").format(table, key)
