"""A channel: a topic that a socket has joined, and the token that it joined with."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

import psycopg

from watcher.sandbox.keys import Caller, Keys
from watcher.sandbox.realtime import tokens
from watcher.sandbox.realtime.bindings import BindingError
from watcher.sandbox.realtime.phoenix import Frame
from watcher.sandbox.realtime.poller import Poller
from watcher.sandbox.realtime.timing import Timing

Entries = Sequence[dict[str, Any]]


class Connection(Protocol):
    """A channel's view of its socket."""

    keys: Keys
    poller: Poller
    timing: Timing

    def push(self, frame: Frame) -> None:
        """Send a frame, after those sent before."""

    def forget(self, channel: "Channel") -> None:
        """Remove a channel that has closed."""


class Channel:
    """A channel that is joined. `close` tells the client that it ends, `stop` does not."""

    def __init__(
        self, connection: Connection, join: Frame, entries: Entries, token: str, claims: dict[str, Any]
    ) -> None:
        self.topic = join.topic
        self._join_ref = join.join_ref or join.ref
        self._connection = connection
        self._entries = entries
        self._token = token
        self._caller = Caller.of(claims)
        self._subscribing: asyncio.Task[None] | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._watch_expiry(claims)

    def subscribe(self) -> None:
        """Subscribe to the entries of the join, and tell the client, after a delay."""
        timing = self._connection.timing
        delay = timing.warm if self._connection.poller.warm else timing.cold
        self._connection.poller.start()
        self._subscribe_later(delay)

    def resubscribe(self) -> None:
        """Subscribe again, at once."""
        self._connection.poller.unsubscribe(self)
        self._subscribe_later(0)

    def refresh(self, token: object) -> None:
        """Take a new token. A bad one closes the channel; an opaque key, or the same token, is ignored."""
        if not isinstance(token, str) or token.startswith("sb_") or token == self._token:
            return
        try:
            claims = tokens.verify(self._connection.keys, token)
        except tokens.TokenError as error:
            self._close_with_error(str(error))
            return
        self._token, self._caller = token, Caller.of(claims)
        self._watch_expiry(claims)
        if self._entries:
            self._subscribe_later(self._connection.timing.resubscribe)

    def send_event(self, data: str, ids: list[int]) -> None:
        """Send an event; it has no refs, not even in protocol 2.0.0."""
        payload = f'{{"data":{data},"ids":[{",".join(map(str, ids))}]}}'
        self._connection.push(Frame(self.topic, "postgres_changes", payload))

    def send_system(self, extension: str, status: str, message: str) -> None:
        """Send a system frame."""
        name = self.topic.removeprefix("realtime:")
        payload = {"message": message, "status": status, "extension": extension, "channel": name}
        self._connection.push(Frame(self.topic, "system", payload, join_ref=self._join_ref))

    def close(self) -> None:
        """End the channel, and tell the client with the ref of the join."""
        self.stop()
        self._connection.push(Frame(self.topic, "phx_close", {}, self._join_ref, self._join_ref))

    def stop(self) -> None:
        """End the subscription and the background tasks."""
        self._connection.poller.unsubscribe(self)
        for task in (self._subscribing, self._expiry):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _close_with_error(self, message: str) -> None:
        self.send_system("system", "error", message)
        self.close()
        self._connection.forget(self)

    def _subscribe_later(self, delay: float) -> None:
        self._subscribing = _restart(self._subscribing, self._subscribe_after(delay))

    async def _subscribe_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            try:
                await self._connection.poller.subscribe(self, self._entries, self._caller)
            except BindingError as error:
                self.send_system("postgres_changes", "error", str(error))
                return
            except (psycopg.Error, TimeoutError):
                message = "Realtime was unable to connect to the project database"
                self.send_system("postgres_changes", "error", message)
                await asyncio.sleep(self._connection.timing.retry_subscribe)
            else:
                self.send_system("postgres_changes", "ok", "Subscribed to PostgreSQL")
                return

    def _watch_expiry(self, claims: dict[str, Any]) -> None:
        self._expiry = _restart(self._expiry, self._expire(claims))

    async def _expire(self, claims: dict[str, Any]) -> None:
        while True:
            left = tokens.seconds_left(claims)
            if left <= 0:
                break
            await asyncio.sleep(min(self._connection.timing.token_check, left))
        self._close_with_error(f"Token has expired {int(-left)} seconds ago")


def _restart(task: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    if task is not None:
        task.cancel()
    return asyncio.create_task(work)
