"""The times in which nothing can be published: one line in the log when one begins, and one when it is over."""

import asyncio
import random
from dataclasses import dataclass

import structlog

from watcher.process.metrics import OUTAGES

log = structlog.get_logger(__name__)

PAUSE_FIRST, PAUSE_LONGEST = 1.0, 60.0
"""Seconds between two tries; doubled each time."""


class Outages:
    """What lasts: `refused` (a service refuses everybody, or this host is full) and `unreachable` (no answer)."""

    def __init__(self) -> None:
        self._refused: _Refused | None = None
        self._unreachable: _Unreachable | None = None

    @property
    def kinds(self) -> dict[str, bool]:
        """Whether each kind lasts just now."""
        return {"refused": self._refused is not None, "unreachable": self._unreachable is not None}

    @property
    def refused(self) -> bool:
        """Nobody can be published: no claims, but one to try."""
        return self._refused is not None

    @property
    def reason(self) -> str | None:
        """What keeps rows from being claimed, as a sentence; None while nothing does."""
        lasting = self._refused or self._unreachable
        return lasting.reason if lasting else None

    @property
    def wait(self) -> float:
        """Seconds until it is worth trying whether the refusal is over."""
        return max(0.0, self._refused.until - _now()) if self._refused else 0.0

    def begin_refusal(self, reason: str) -> None:
        """Begin a refusal, or meet it again, which makes the wait longer."""
        now = _now()
        if self._refused is None:
            log.error("outage", reason=reason)
            OUTAGES.labels("refused").inc()
            self._refused = _Refused(reason, since=now, pause=PAUSE_FIRST, until=now + PAUSE_FIRST)
            return
        self._refused.reason = reason
        if self._refused.until <= now:
            self._refused.pause = min(self._refused.pause * 2, PAUSE_LONGEST)
            # Many daemons see the same outage: they do not come back all at once.
            self._refused.until = now + self._refused.pause * random.uniform(0.75, 1)  # noqa: S311

    def end_refusal(self) -> None:
        """End the refusal, if there is one."""
        if self._refused is not None:
            log.info("outage_over", seconds=round(_now() - self._refused.since, 1))
            self._refused = None

    def mark_unreachable(self, reason: str) -> None:
        """Say that a service does not answer, once."""
        if self._unreachable is None:
            log.warning("unreachable", reason=reason)
            OUTAGES.labels("unreachable").inc()
            self._unreachable = _Unreachable(reason, since=_now())
        self._unreachable.reason = reason

    def mark_reachable(self) -> None:
        """Say that it answers again, if it did not."""
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
    """Seconds between the last try and the next."""
    until: float
    """No try before this loop time."""


def _now() -> float:
    return asyncio.get_running_loop().time()
