"""Realtime says "look now". It may be late, deaf or dead without a word, so it has to prove that it is alive.

realtime 2.34.1 gives up after five refused handshakes, reconnects without a pause where the server accepts and drops,
and goes deaf after a system error or a late reply to a join. So the socket is ours: one client for each incarnation,
thrown away at the first doubt and built anew, for ever.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from watcher.errors import WatcherError
from watcher.process.metrics import FEED_LOSSES, HINTS_MISSED
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)

_SUBSCRIBED_WITHIN = 15.0
_BACKOFF_FIRST, _BACKOFF_LONGEST = 0.5, 30.0
# An incarnation that lasted this long was a good one: the next begins without the back-off of those before.
_GOOD_AFTER = 60.0
_REMEMBERED = 10_000


class FeedLost(Exception):
    """This incarnation cannot be trusted any more."""


class Feed:
    """Wakes the claim loop when the table has news, and knows whether it would hear of any."""

    def __init__(
        self, *, url: str, key: str, verbs: Verbs, pulse: float, pulse_answer: float, wake: Callable[[], None]
    ) -> None:
        """`pulse`: seconds of silence after which a beat is asked for; `pulse_answer`: seconds it may take."""
        self._url = f"{url}/realtime/v1"
        self._key = key
        self._verbs = verbs
        self._pulse = pulse
        self._pulse_answer = pulse_answer
        self._wake = wake
        self._alive_since: float | None = None
        self._deaf_since = 0.0
        self._announced: OrderedDict[str, None] = OrderedDict()
        self._news: asyncio.Queue[str] = asyncio.Queue()

    @property
    def alive(self) -> bool:
        """Subscribed, and no pulse that was asked for is late."""
        return self._alive_since is not None

    def notice(self, identity_id: str, *, age: float) -> None:
        """Hear of a row that was found `age` seconds after its insert and was never tried before.

        If the feed was alive all that time, and some to spare, and did not announce it, it is not alive.
        """
        if self._alive_since is None or identity_id in self._announced or age < self._pulse_answer:
            return
        if asyncio.get_running_loop().time() - age - self._pulse_answer > self._alive_since:
            HINTS_MISSED.inc()
            self._news.put_nowait(f"missed {identity_id}")

    async def run_forever(self) -> None:
        """Live one incarnation after the other."""
        loop = asyncio.get_running_loop()
        backoff, said = _BACKOFF_FIRST, False
        self._deaf_since = loop.time()
        while True:
            began = loop.time()
            reason = await self.live()
            was_alive, self._alive_since = self.alive, None
            if was_alive:
                FEED_LOSSES.inc()
                self._deaf_since = loop.time()
            if was_alive or not said:
                # One line when it goes, one when it is back.
                log.warning("feed_lost", reason=reason)
                said = True
            if was_alive and loop.time() - began > _GOOD_AFTER:
                backoff = _BACKOFF_FIRST
            await asyncio.sleep(backoff * random.uniform(0.5, 1))  # noqa: S311  (not a secret)
            backoff = min(backoff * 2, _BACKOFF_LONGEST)

    async def live(self) -> str:
        """Live until the first doubt, and say what it was."""
        news: asyncio.Queue[str] = asyncio.Queue()
        self._news = news
        client = AsyncRealtimeClient(self._url, token=self._key, auto_reconnect=False)
        try:
            async with asyncio.timeout(_SUBSCRIBED_WITHIN):
                await client.connect()
                await self._subscribe(client, news)
                while (what := await news.get()) != "subscribed":
                    if what.startswith("lost "):
                        raise FeedLost(f"Realtime refused the channel: {what.removeprefix('lost ')}")
            self._alive_since = asyncio.get_running_loop().time()
            log.info("feed_alive", seconds=round(self._alive_since - self._deaf_since, 1))
            self._wake()
            await self._watch(news)
        except FeedLost as lost:
            return str(lost)
        except TimeoutError:
            return "Realtime did not subscribe us in time."
        except WatcherError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  (the client lets through whatever its sockets raise)
            return f"{type(error).__name__}: {error}"
        finally:
            await self._close(client)
        return "Realtime ended."

    async def _subscribe(self, client: AsyncRealtimeClient, news: asyncio.Queue[str]) -> None:
        # Callbacks run inside the client's reader: one that raises would leave it deaf.
        def changed(payload: Any) -> None:
            self._remember(payload)
            news.put_nowait("changed")

        def state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            if state != RealtimeSubscribeStates.SUBSCRIBED:
                news.put_nowait(f"lost {state.value}: {error or 'no reason given'}")

        def told(payload: Any) -> None:
            if "Subscribed to PostgreSQL" in str(payload):
                news.put_nowait("subscribed")

        event = RealtimePostgresChangesListenEvent
        channel = client.channel("watcher")
        channel.on_postgres_changes(event.Insert, changed, table="trained_identities")
        channel.on_postgres_changes(
            event.Update, changed, table="trained_identities", filter="status=eq.pending"
        )
        channel.on_postgres_changes(event.Update, changed, table="watcher_pulse")
        channel.on_system(told)
        await channel.subscribe(state)

    async def _watch(self, news: asyncio.Queue[str]) -> None:
        asked = False
        while True:
            try:
                async with asyncio.timeout(self._pulse_answer if asked else self._pulse):
                    what = await news.get()
            except TimeoutError:
                if asked:
                    raise FeedLost("Realtime did not tell of the pulse that was asked for.") from None
                asked = True
                await self._verbs.beat()
                continue
            if what.startswith("missed "):
                raise FeedLost(f"Realtime did not tell of row {what.removeprefix('missed ')}.")
            if what.startswith("lost "):
                raise FeedLost(f"Realtime ended the channel: {what.removeprefix('lost ')}")
            # It also says "subscribed" again, after which it may have missed something.
            asked = False
            self._wake()

    def _remember(self, payload: Any) -> None:
        """Keep the ids of announced rows; the rest of the payload may be cut, and the table is the truth."""
        record = (payload.get("data") or {}).get("record") or {} if isinstance(payload, dict) else {}
        if "id" in record:
            self._announced[str(record["id"])] = None
            if len(self._announced) > _REMEMBERED:
                self._announced.popitem(last=False)

    async def _close(self, client: AsyncRealtimeClient) -> None:
        # Its `close` leaves the timers of a join that was not answered, and of the next one, to themselves.
        for channel in client.channels.values():
            channel.rejoin_timer.reset()
            channel.join_push.destroy()
        try:
            async with asyncio.timeout(1):
                await client.close()
        except Exception as error:  # noqa: BLE001  (it is thrown away in any case)
            log.debug("feed_close_failed", reason=repr(error))
