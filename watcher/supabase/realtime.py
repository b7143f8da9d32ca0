"""Wakes the claim loop on Realtime events, and checks that Realtime still delivers them.

Events may be late, and may stop although the connection stays open, so after some silence an event is provoked and
must arrive. realtime 2.34.1 gives up after five refused handshakes, reconnects without a pause if the server accepts
and drops connections, and delivers nothing after a system error or a late reply to a join. So its own reconnection is
off: each connection has its own client, which is discarded at the first sign of failure and replaced, without end.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from watcher.errors import WatcherError
from watcher.process.metrics import FEED_LOSSES, HINTS_MISSED
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)

# In seconds.
_SUBSCRIBE_TIMEOUT = 15.0
_BACKOFF_FIRST, _BACKOFF_LONGEST = 0.5, 30.0
# A connection that lasted this long resets the back-off.
_STABLE_AFTER = 60.0

_MAX_ANNOUNCED = 1000
"""Row ids that are remembered: 0.25 MB."""


class FeedLost(Exception):
    """Events of this connection can no longer be relied on."""


class Feed:
    """Wakes the claim loop when the table changes, and knows whether changes are delivered."""

    def __init__(
        self, *, url: str, key: str, verbs: Verbs, pulse: float, pulse_answer: float, wake: Callable[[], None]
    ) -> None:
        """`pulse`: seconds without events after which a pulse is requested; `pulse_answer`: seconds until it must arrive.

        A pulse is an update of the table `watcher_pulse`, which arrives as an event. `wake` is called for each event, and
        by `run_forever` when no more events can be relied on.
        """
        self._url = f"{url}/realtime/v1"
        self._key = key
        self._verbs = verbs
        self._pulse = pulse
        self._pulse_answer = pulse_answer
        self._wake = wake
        self._alive_since: float | None = None
        self._down_since = 0.0
        # When each row was last announced, oldest first, on the loop's clock; and since when none of them is forgotten.
        self._announced: OrderedDict[str, float] = OrderedDict()
        self._complete_since = 0.0
        self._events: asyncio.Queue[str] = asyncio.Queue()

    @property
    def alive(self) -> bool:
        """Whether it is subscribed, and no requested pulse is overdue."""
        return self._alive_since is not None

    def check_announced(self, identity_id: str, *, age: float) -> None:
        """Drop the connection if it should have announced this row, inserted `age` seconds ago and claimed first now.

        It should have if it was alive since `pulse_answer` seconds before the insert, and the row is older than that. Of a
        row that was inserted before so many others that it may be forgotten, nothing is known.
        """
        if self._alive_since is None or identity_id in self._announced or age < self._pulse_answer:
            return
        known_since = max(self._alive_since, self._complete_since)
        if asyncio.get_running_loop().time() - age - self._pulse_answer > known_since:
            HINTS_MISSED.inc()
            self._events.put_nowait(f"missed {identity_id}")

    async def run_forever(self) -> None:
        """Run one connection after the other."""
        loop = asyncio.get_running_loop()
        backoff, logged = _BACKOFF_FIRST, False
        self._down_since = loop.time()
        while True:
            began = loop.time()
            async with self._connection() as (client, events):
                reason = await self._listen(client, events)
                was_alive, self._alive_since = self.alive, None
                if was_alive:
                    FEED_LOSSES.inc()
                    self._down_since = loop.time()
                if was_alive or not logged:
                    # Logged once until it is alive again.
                    log.warning("feed_lost", reason=reason)
                    logged = True
                if was_alive:
                    self._wake()  # to claim now, and from now on at the short interval
            if was_alive and loop.time() - began > _STABLE_AFTER:
                backoff = _BACKOFF_FIRST
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311  (not a secret)
            backoff = min(backoff * 2, _BACKOFF_LONGEST)

    async def run_once(self) -> str:
        """Run one connection until it cannot be relied on, and return the reason."""
        async with self._connection() as (client, events):
            return await self._listen(client, events)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[AsyncRealtimeClient, asyncio.Queue[str]]]:
        """Give a client and the queue of its events, and close the client after the body."""
        self._events = asyncio.Queue()
        client = AsyncRealtimeClient(self._url, token=self._key, auto_reconnect=False)
        try:
            yield client, self._events
        finally:
            await self._close(client)

    async def _listen(self, client: AsyncRealtimeClient, events: asyncio.Queue[str]) -> str:
        """Connect, subscribe and wake for each event, until that cannot be relied on; return the reason."""
        try:
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT):
                await client.connect()
                await self._subscribe(client, events)
                while (event := await events.get()) != "subscribed":
                    if event.startswith("lost "):
                        raise FeedLost(f"Realtime refused the channel: {event.removeprefix('lost ')}")
            self._alive_since = asyncio.get_running_loop().time()
            log.info("feed_alive", seconds=round(self._alive_since - self._down_since, 1))
            self._wake()
            await self._watch(events)
        except FeedLost as lost:
            return str(lost)
        except TimeoutError:
            return f"Realtime did not confirm the subscription within {_SUBSCRIBE_TIMEOUT:g} s."
        except WatcherError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  (the client passes on whatever its sockets raise)
            return f"{type(error).__name__}: {error}"
        return "The Realtime connection ended."

    async def _subscribe(self, client: AsyncRealtimeClient, events: asyncio.Queue[str]) -> None:
        # Callbacks run inside the client's reader, which stops if one raises.
        def on_change(payload: Any) -> None:
            self._remember(payload)
            events.put_nowait("changed")

        def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            if state != RealtimeSubscribeStates.SUBSCRIBED:
                events.put_nowait(f"lost {state.value}: {error or 'no reason given'}")

        def on_system(payload: Any) -> None:
            if "Subscribed to PostgreSQL" in str(payload):
                events.put_nowait("subscribed")

        listen = RealtimePostgresChangesListenEvent
        channel = client.channel("watcher")
        channel.on_postgres_changes(listen.Insert, on_change, table="trained_identities")
        channel.on_postgres_changes(
            listen.Update, on_change, table="trained_identities", filter="status=eq.pending"
        )
        # A deleted row is work, too: what it has left is erased.
        channel.on_postgres_changes(listen.Delete, on_change, table="trained_identities")
        channel.on_postgres_changes(listen.Update, on_change, table="watcher_pulse")
        channel.on_system(on_system)
        await channel.subscribe(on_state)

    async def _watch(self, events: asyncio.Queue[str]) -> None:
        pulse_requested = False
        while True:
            try:
                async with asyncio.timeout(self._pulse_answer if pulse_requested else self._pulse):
                    event = await events.get()
            except TimeoutError:
                if pulse_requested:
                    raise FeedLost(
                        f"Realtime did not deliver a requested pulse within {self._pulse_answer:g} s."
                    ) from None
                pulse_requested = True
                await self._verbs.beat()
                continue
            if event.startswith("missed "):
                raise FeedLost(f"Realtime did not announce row {event.removeprefix('missed ')}.")
            if event.startswith("lost "):
                raise FeedLost(f"Realtime closed the channel: {event.removeprefix('lost ')}")
            # "subscribed" can come again: Realtime has resubscribed, and may have missed changes.
            pulse_requested = False
            self._wake()

    def _remember(self, payload: Any) -> None:
        """Remember the id of an announced row. The rest is not used: it may be truncated, and the table is the truth."""
        record = (payload.get("data") or {}).get("record") or {} if isinstance(payload, dict) else {}
        if "id" in record:
            identity_id = str(record["id"])
            self._announced[identity_id] = asyncio.get_running_loop().time()
            self._announced.move_to_end(identity_id)
            if len(self._announced) > _MAX_ANNOUNCED:
                _, self._complete_since = self._announced.popitem(last=False)

    async def _close(self, client: AsyncRealtimeClient) -> None:
        # `client.close` leaves the timers of an unanswered join, and of the next join, running.
        for channel in client.channels.values():
            channel.rejoin_timer.reset()
            channel.join_push.destroy()
        try:
            async with asyncio.timeout(1):
                await client.close()
        except Exception as error:  # noqa: BLE001  (the client is discarded in any case)
            log.debug("feed_close_failed", reason=repr(error))
