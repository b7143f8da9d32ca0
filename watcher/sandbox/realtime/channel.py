"""A channel: one topic that one socket has joined, with the token it joined by."""

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


class Home(Protocol):
    """Where channels live: a socket."""

    keys: Keys
    poller: Poller
    timing: Timing

    def push(self, frame: Frame) -> None:
        """Send a frame after those before it."""

    def forget(self, channel: "Channel") -> None:
        """Let go of a channel that has closed."""


class Channel:
    """Joined; `closed` ends it without a word, `close` with one."""

    def __init__(self, home: Home, join: Frame, entries: Entries, token: str, claims: dict[str, Any]) -> None:
        self.topic = join.topic
        self._join_ref = join.join_ref or join.ref
        self._home = home
        self._entries = entries
        self._token = token
        self._caller = Caller.of(claims)
        self._subscribing: asyncio.Task[None] | None = None
        self._expiring: asyncio.Task[None] | None = None
        self._watch(claims)

    def subscribe(self) -> None:
        """Subscribe to what was asked for at the join; the client hears of it in a while."""
        timing = self._home.timing
        delay = timing.warm if self._home.poller.warm else timing.cold
        self._home.poller.start()
        self._resubscribe(delay)

    def renew(self) -> None:
        """Subscribe again, at once."""
        self._home.poller.unsubscribe(self)
        self._resubscribe(0)

    def refresh(self, token: object) -> None:
        """Take a new token; a bad one closes the channel. What is no token, or the same, is passed over."""
        if not isinstance(token, str) or token.startswith("sb_") or token == self._token:
            return
        try:
            claims = tokens.verify(self._home.keys, token)
        except tokens.TokenError as error:
            self._shut(str(error))
            return
        self._token, self._caller = token, Caller.of(claims)
        self._watch(claims)
        if self._entries:
            self._resubscribe(self._home.timing.resubscribe)

    def tell(self, data: str, ids: list[int]) -> None:
        """Send a change of the database; it has no refs, not even in 2.0.0."""
        payload = f'{{"data":{data},"ids":[{",".join(map(str, ids))}]}}'
        self._home.push(Frame(self.topic, "postgres_changes", payload))

    def system(self, extension: str, status: str, message: str) -> None:
        """Send a system frame."""
        name = self.topic.removeprefix("realtime:")
        payload = {"message": message, "status": status, "extension": extension, "channel": name}
        self._home.push(Frame(self.topic, "system", payload, join_ref=self._join_ref))

    def close(self) -> None:
        """Leave the topic and say so, by the ref of the join."""
        self.closed()
        self._home.push(Frame(self.topic, "phx_close", {}, self._join_ref, self._join_ref))

    def closed(self) -> None:
        """End what goes on in the background."""
        self._home.poller.unsubscribe(self)
        for task in (self._subscribing, self._expiring):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _shut(self, message: str) -> None:
        self.system("system", "error", message)
        self.close()
        self._home.forget(self)

    def _resubscribe(self, delay: float) -> None:
        self._subscribing = _instead_of(self._subscribing, self._subscribe_after(delay))

    async def _subscribe_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            try:
                await self._home.poller.subscribe(self, self._entries, self._caller)
            except BindingError as error:
                self.system("postgres_changes", "error", str(error))
                return
            except (psycopg.Error, TimeoutError):
                message = "Realtime was unable to connect to the project database"
                self.system("postgres_changes", "error", message)
                await asyncio.sleep(self._home.timing.retry_subscribe)
            else:
                self.system("postgres_changes", "ok", "Subscribed to PostgreSQL")
                return

    def _watch(self, claims: dict[str, Any]) -> None:
        self._expiring = _instead_of(self._expiring, self._expire(claims))

    async def _expire(self, claims: dict[str, Any]) -> None:
        while True:
            left = tokens.seconds_left(claims)
            if left <= 0:
                break
            await asyncio.sleep(min(self._home.timing.token_check, left))
        self._shut(f"Token has expired {-left} seconds ago")


def _instead_of(task: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    if task is not None:
        task.cancel()
    return asyncio.create_task(work)
