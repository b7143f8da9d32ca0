"""Checks Realtime: it accepts a subscription, and delivers. Updates the pulse row."""

import asyncio
import re
from typing import Any

from watcher.errors import WatcherError
from watcher.operator.doctor.finding import Finding, unanswered
from watcher.settings.settings import Settings
from watcher.supabase.realtime import Feed
from watcher.supabase.verbs import Verbs

_OVERLOADED = re.compile(r"HTTP (5\d\d|429)")
"""Temporary: reachable, but overloaded."""
_SUBSCRIBED = 30.0
"""Seconds to subscribe in."""
_DELIVERY = 10.0
"""Seconds to deliver the pulse in."""


async def delivery(settings: Settings, verbs: Verbs) -> Finding:
    """Subscribe as the daemon does, update the pulse row, and wait for that event."""
    wakeup = asyncio.Event()
    feed = Feed(
        url=settings.supabase_url,
        key=settings.supabase_key.get_secret_value(),
        verbs=verbs,
        pulse=3600,
        pulse_answer=_DELIVERY,
        wake=wakeup.set,
    )
    life = asyncio.ensure_future(feed.run_once())
    try:
        if not await _wakes(wakeup, life, _SUBSCRIBED):
            reason = life.result() if life.done() else "The subscription timed out."
            remedy = (
                "Try again in a minute; see https://status.supabase.com. Until then, the daemon polls every few seconds."
                if _OVERLOADED.search(reason)
                else "Enable Realtime: project settings, Realtime. Until then, the daemon polls every few seconds."
            )
            return Finding("realtime", "error", f"Realtime accepts no subscription: {reason}", remedy)
        loop = asyncio.get_running_loop()
        wakeup.clear()
        began = loop.time()
        if await verbs.beat() is None:
            return Finding(
                "realtime",
                "error",
                "The table public.watcher_pulse has no row.",
                "insert into public.watcher_pulse default values;",
            )
        if not await _wakes(wakeup, life, _DELIVERY):
            sentence = (
                f"Realtime accepted the subscription but did not deliver the pulse within {_DELIVERY:.0f} s."
            )
            remedy = "Restart the project, and with it Realtime: project settings, General, Restart project."
            return Finding("realtime", "error", sentence, remedy)
        return Finding(
            "realtime", "ok", f"Realtime delivers: the pulse arrived in {loop.time() - began:.1f} s."
        )
    except WatcherError as error:
        return unanswered("realtime", "watcher_beat", error)
    finally:
        life.cancel()
        await asyncio.wait([life])


async def _wakes(wakeup: asyncio.Event, life: asyncio.Future[str], within: float) -> bool:
    waking = asyncio.ensure_future(wakeup.wait())
    either: list[asyncio.Future[Any]] = [waking, life]
    await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    waking.cancel()
    return wakeup.is_set()
