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
    """The outages that may be over: a single row of each kind that can show it is claimed as a test."""
    wait: float
    """Seconds until an outage allows more at the earliest; infinite if none is in effect."""


async def find_room(
    slots: Slots, outages: Outages, may_be_over: Callable[[Refusal], Awaitable[bool]]
) -> Room:
    """Return what may be claimed; `may_be_over` asks the services, once the wait of an outage is over.

    While an outage is tested, nothing else of a kind that it concerns runs; and only the kind that met it tests it: another
    one may never ask for what is refused.
    """
    free: dict[str, int] = {}
    tested: list[Refusal] = []
    wait = math.inf
    for kind, number in slots.free().items():
        refusals = outages.of(kind)
        if not refusals:
            free[kind] = number
        elif slots.busy[kind] or not all(refusal.is_tried_by(kind) for refusal in refusals):
            continue  # the end of what runs, or of the outage, wakes the daemon
        elif await _may_be_tried(refusals, tested, may_be_over):
            free[kind] = 1
        else:
            wait = min(wait, max(refusal.wait for refusal in refusals))
    extra = [kind for kind in slots.extra if not outages.of(kind)]
    return Room({**dict.fromkeys(extra, 0), **free}, extra, tested, wait)


async def _may_be_tried(
    refusals: Sequence[Refusal], tested: list[Refusal], may_be_over: Callable[[Refusal], Awaitable[bool]]
) -> bool:
    """Whether all of the refusals may be over; those that may are added to `tested`."""
    new = [refusal for refusal in refusals if refusal not in tested]
    if any(refusal.wait > 0 for refusal in new):
        return False
    for refusal in new:
        if not await may_be_over(refusal):
            return False
    tested.extend(new)
    return True
