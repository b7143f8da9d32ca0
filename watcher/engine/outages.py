"""Outages: one line in the log when one begins, and one when it is over.

Touches the log and the metrics. It neither probes nor pauses itself: the daemon does, as this module tells it to.
"""

import asyncio
import random
from dataclasses import dataclass

import structlog

from watcher.process.metrics import OUTAGES
from watcher.process.text import storable

log = structlog.get_logger(__name__)

PAUSE_FIRST, PAUSE_LONGEST = 1.0, 60.0
"""Seconds between two probes; doubled each time."""


class Outages:
    """The outages in effect.

    `refused`: a service refuses every request, or this host's disk is full. `unreachable`: no response. `refused` comes
    from Outage errors, `unreachable` from Transient ones.
    """

    def __init__(self) -> None:
        self._refused: _Refused | None = None
        self._unreachable: _Unreachable | None = None

    @property
    def kinds(self) -> dict[str, bool]:
        """Whether an outage of each kind is in effect."""
        return {"refused": self._refused is not None, "unreachable": self._unreachable is not None}

    @property
    def refused(self) -> bool:
        """Whether a refusal is in effect: nothing is claimed, except one row as a trial."""
        return self._refused is not None

    @property
    def reason(self) -> str | None:
        """Why no row can be claimed, as a sentence; None if one can."""
        current = self._refused or self._unreachable
        return current.reason if current else None

    @property
    def wait(self) -> float:
        """Seconds until the next probe whether the refusal is over."""
        return max(0.0, self._refused.until - _now()) if self._refused else 0.0

    def begin_refusal(self, reason: str) -> None:
        """Begin a refusal; if it is in effect and its wait is over, double the wait."""
        now, reason = _now(), storable(reason)
        if self._refused is None:
            log.error("outage", reason=reason)
            OUTAGES.labels("refused").inc()
            self._refused = _Refused(reason, since=now, pause=PAUSE_FIRST, until=now + PAUSE_FIRST)
            return
        self._refused.reason = reason
        if self._refused.until <= now:
            self._refused.pause = min(self._refused.pause * 2, PAUSE_LONGEST)
            # Jitter: many daemons see the same outage, and must not all probe at the same moment.
            self._refused.until = now + self._refused.pause * random.uniform(0.75, 1)  # noqa: S311

    def end_refusal(self) -> None:
        """End the refusal, if there is one."""
        if self._refused is not None:
            log.info("outage_over", seconds=round(_now() - self._refused.since, 1))
            self._refused = None

    def mark_unreachable(self, reason: str) -> None:
        """Note that a service does not respond; logged once."""
        reason = storable(reason)
        if self._unreachable is None:
            log.warning("unreachable", reason=reason)
            OUTAGES.labels("unreachable").inc()
            self._unreachable = _Unreachable(reason, since=_now())
        self._unreachable.reason = reason

    def mark_reachable(self) -> None:
        """Note that it responds; logged if it did not before."""
        if self._unreachable is not None:
            log.info("reachable", seconds=round(_now() - self._unreachable.since, 1))
            self._unreachable = None


@dataclass(slots=True)
class _Unreachable:
    reason: str
    since: float


@dataclass(slots=True)
class _Refused:
    reason: str
    since: float
    pause: float
    """Seconds between the last probe and the next."""
    until: float
    """No probe before this loop time."""


def _now() -> float:
    return asyncio.get_running_loop().time()
