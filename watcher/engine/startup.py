"""The start: waits until Supabase and the Hub can be used, and ends the daemon for what waiting cannot change."""

import asyncio
from collections.abc import Awaitable, Callable

from watcher.engine.health import Health
from watcher.engine.outages import PAUSE_FIRST, PAUSE_LONGEST, Outages
from watcher.engine.retry import within
from watcher.errors import Misconfigured, Outage, Transient


async def reach_services(
    check: Callable[[], Awaitable[object]],
    *,
    outages: Outages,
    health: Health,
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    """Return once `check` does: a reboot during an outage must not end the service.

    Raises Misconfigured if the services themselves say that the key, the token or the schema is unusable. What they say
    of a quota, and what something before them says, passes without a restart.
    """
    now = asyncio.get_running_loop().time
    unusable_since: float | None = None
    pause = PAUSE_FIRST
    while True:
        health.heartbeat()
        try:
            await within(health.request, check(), of="Supabase or the Hub")
        except Misconfigured as error:
            unusable_since = now() if unusable_since is None else unusable_since
            if now() - unusable_since >= error.passes_within:
                raise
            outages.mark_unreachable(str(error))
        except Outage as error:
            if error.lasting:
                raise Misconfigured(str(error)) from error
            outages.mark_reachable()
            outages.begin_refusal(str(error))
        except Transient as error:
            outages.mark_unreachable(str(error))
        else:
            outages.mark_reachable()
            for refusal in outages.refusals:
                outages.end_refusal(refusal)
            return
        health.heartbeat()
        await sleep(pause)
        pause = min(pause * 2, PAUSE_LONGEST)
