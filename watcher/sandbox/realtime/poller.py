"""Polls the replication slot, and sends each subscriber the events that it may see.

Events are sent at most once, in order of commit, to those who are subscribed when the change is polled. Changes that are
committed while nothing polls are lost, and no subscriber is told that it missed anything.
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
from watcher.sandbox.realtime.stream import Stream, View
from watcher.sandbox.realtime.timing import Timing
from watcher.sandbox.realtime.wal import Change

_STREAM_SECONDS = 10.0


class Listener(Protocol):
    """A subscriber: a channel."""

    def send_event(self, data: str, ids: list[int]) -> None:
        """Send an event that the bindings with these ids match; `data` is JSON."""

    def resubscribe(self) -> None:
        """Subscribe again, since the published tables have changed."""


@dataclass(eq=False)
class Subscription:
    """A binding of a channel, with the tables that it is about."""

    listener: Listener
    id: int
    binding: Binding
    caller: Caller
    tables: frozenset[int]
    muted: bool = False


@dataclass(frozen=True)
class _Event:
    change: Change
    view: View
    matched: Sequence[Subscription]


class Poller:
    """Polls from the first subscription until there has been none for a while."""

    def __init__(self, database: Database, timing: Timing) -> None:
        self.drop_until = 0.0
        """Changes polled before this time on the monotonic clock are dropped."""
        self.rate = Rate()
        self._database = database
        self._timing = timing
        self._subscriptions: list[Subscription] = []
        self._stream: asyncio.Future[Stream] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def warm(self) -> bool:
        """Whether there is a slot."""
        return self._running and self._stream is not None and self._stream.done()

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start polling, unless it is running."""
        if not self._running:
            self._await_stream()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop polling, and remove all subscriptions."""
        self._subscriptions.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def subscribe(
        self, listener: Listener, entries: Iterable[Mapping[str, Any]], caller: Caller
    ) -> None:
        """Subscribe `listener` to `entries` instead of its former ones.

        Raises `BindingError` if one is refused, `psycopg.Error` or `TimeoutError` while Postgres is down.
        """
        self.start()
        assert self._stream is not None
        async with asyncio.timeout(_STREAM_SECONDS):
            stream = await asyncio.shield(self._stream)
        found = [
            Subscription(
                listener, identity(entry), binding, caller, await stream.check(binding, caller.claims)
            )
            for entry in entries
            for binding in [parse(entry)]
        ]
        self.unsubscribe(listener)
        self._subscriptions += found

    def unsubscribe(self, listener: Listener) -> None:
        """Remove the subscriptions of `listener`."""
        self._subscriptions = [one for one in self._subscriptions if one.listener is not listener]

    def mute(self, *, muted: bool) -> None:
        """Stop sending events to the present subscriptions, or resume; later ones are not affected."""
        for subscription in self._subscriptions:
            subscription.muted = muted

    async def _run(self) -> None:
        """Poll, with a new slot after each failure; when failures last too long, end without telling anybody."""
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
                self._await_stream()
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

    def _await_stream(self) -> None:
        """Make new subscribers wait for the next stream."""
        if self._stream is None or self._stream.done():
            self._stream = asyncio.get_running_loop().create_future()

    async def _follow(self, stream: Stream) -> None:
        """Poll until there has been no subscription for a while."""
        tables, checked = await stream.tables(), time.monotonic()
        wanted = checked
        while True:
            pause = await self._poll(stream)
            now = time.monotonic()
            if self._subscriptions:
                wanted = now
            elif now - wanted > self._timing.linger:
                return
            if now - checked > self._timing.publication_check:
                before, tables, checked = tables, await stream.tables(), now
                if tables != before:
                    for listener in {one.listener for one in self._subscriptions}:
                        listener.resubscribe()
            await asyncio.sleep(pause)

    async def _poll(self, stream: Stream) -> float:
        """Read the changes, send the events, and return how long to wait."""
        changes, anything = await stream.changes()
        now = time.monotonic()
        if now < self.drop_until or self.rate.exceeded(now):
            changes = []
        sent = 0
        for event in await self._visible(await self._matched(stream, changes)):
            ids: dict[Listener, list[int]] = defaultdict(list)
            for subscription in event.matched:
                ids[subscription.listener].insert(0, subscription.id)
            for listener, matched in ids.items():
                listener.send_event(event.view.data, matched)
            sent += len(event.matched)
        if sent:
            self.rate.add(sent, now)
            return 0
        return self._timing.poll_unmatched if anything else self._timing.poll_idle

    async def _matched(self, stream: Stream, changes: Iterable[Change]) -> list[_Event]:
        """Return an event for each change and each role that has subscribed to it, with the matching subscriptions."""
        events = []
        for change in changes:
            groups: dict[tuple[str, tuple[str, ...] | None], list[Subscription]] = defaultdict(list)
            for one in self._subscriptions:
                action = one.binding.action
                if not one.muted and change.relation.oid in one.tables and action in {"*", change.action}:
                    groups[one.caller.role, one.binding.columns].append(one)
            for (role, columns), group in groups.items():
                view = await stream.view(change, role, columns)
                matched = [
                    one
                    for one in group
                    if view.unreadable or await stream.passes(change, one.binding.filters)
                ]
                events.append(_Event(change, view, matched))
        return events

    async def _visible(self, events: Sequence[_Event]) -> list[_Event]:
        """Return the events without the subscriptions from which row-level security hides the row as it is now."""
        by_caller: dict[int, tuple[Caller, list[_Event]]] = {}
        for event in events:
            for one in event.matched:
                if event.view.rls:
                    by_caller.setdefault(id(one.caller), (one.caller, []))[1].append(event)
        visible = {
            (key, id(event))
            for key, (caller, some) in by_caller.items()
            for event in await self._found(caller, some)
        }
        return [
            _Event(
                event.change,
                event.view,
                [
                    one
                    for one in event.matched
                    if not event.view.rls or (id(one.caller), id(event)) in visible
                ],
            )
            for event in events
        ]

    async def _found(self, caller: Caller, events: Iterable[_Event]) -> list[_Event]:
        """Return the events whose row `caller` can select; a policy that raises hides this row and the following."""
        found = []
        try:
            async with self._database.transaction(caller, read_only=True) as cursor:
                for event in events:
                    row = event.change.new
                    assert row is not None
                    await cursor.execute(_select_row(event), [row[name] for name in event.view.key])
                    if cursor.rowcount:
                        found.append(event)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
        return found


def _select_row(event: _Event) -> sql.Composed:
    relation = event.change.relation
    key = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in event.view.key)
    table = sql.Identifier(relation.schema, relation.table)
    return sql.SQL("select from {} where {}").format(table, key)
