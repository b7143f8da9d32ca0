"""What a daemon may claim now: what fits into its slots, and what outages allow. Sends no request itself."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from watcher.engine.outages import Outages, Refusal
from watcher.engine.slots import Slots


@dataclass(frozen=True, slots=True)
class Room:
    """For one claim."""

    slots: Mapping[str, int]
    """How many of each kind; without the kinds of which nothing may be claimed."""
    extra: Sequence[str]
    """The kinds of which one more may be claimed, for a user who has none running."""
    tested: Sequence[Refusal]
    """The outages that may be over: a single row of each kind that they concern is claimed as a test."""
    wait: float
    """Seconds until an outage allows more at the earliest; infinite if none is in effect."""


async def find_room(
    slots: Slots, outages: Outages, may_be_over: Callable[[Refusal], Awaitable[bool]]
) -> Room:
    """Return what may be claimed; `may_be_over` asks the services, once the wait of an outage is over.

    While an outage is tested, nothing else of a kind that it concerns runs.
    """
    free: dict[str, int] = {}
    tested: list[Refusal] = []
    wait = math.inf
    for kind, number in slots.free().items():
        refusal = outages.of(kind)
        if refusal is None:
            free[kind] = number
        elif slots.busy[kind]:
            continue  # its end wakes the daemon
        elif refusal in tested:
            free[kind] = 1
        elif refusal.wait <= 0 and await may_be_over(refusal):
            free[kind] = 1
            tested.append(refusal)
        else:
            wait = min(wait, refusal.wait)
    extra = [kind for kind in slots.extra if outages.of(kind) is None]
    return Room({**dict.fromkeys(extra, 0), **free}, extra, tested, wait)
