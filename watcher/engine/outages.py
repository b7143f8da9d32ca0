"""Outages: one line in the log when one begins, and one when it is over.

Touches the log and the metrics. It neither probes nor pauses itself: the daemon does, as this module tells it to.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from watcher.process.metrics import OUTAGES
from watcher.process.text import storable

log = structlog.get_logger(__name__)

PAUSE_FIRST, PAUSE_LONGEST = 1.0, 60.0
"""Seconds between two probes; doubled each time."""

EVERY_KIND = "every"
"""Stands for all kinds of work where an outage's kind is told."""

_TRY_DESPITE = 3
"""Each so many times that a refusal's own probe fails, a row is tried all the same."""

Probe = Callable[[], Awaitable[object]]
"""Raises an error while an outage lasts."""


@dataclass(slots=True, eq=False)
class Refusal:
    """An outage in effect: nothing is claimed that it concerns, except one row as a trial."""

    kind: str | None
    """The kind of work that it concerns; None for every kind."""
    reason: str
    since: float
    pause: float
    """Seconds between the last probe and the next."""
    until: float
    """No probe before this loop time."""
    met_by: str | None
    """The kind of work that met it last: no other shows that it is over. None if the claim did."""
    probe: Probe | None
    """What may show that it is over, beside the daemon's own probe."""
    vetoes: int = 0
    """How often that alone failed."""

    @property
    def wait(self) -> float:
        """Seconds until the next probe whether it is over."""
        return max(0.0, self.until - _now())

    def is_tried_by(self, kind: str) -> bool:
        """Whether work of that kind can show that it is over."""
        return self.met_by in {None, kind}

    def veto(self) -> bool:
        """Note that its own probe alone failed; returns whether a row is to be tried all the same.

        What the probe asks for may be refused for a reason of its own, and would be for ever.
        """
        self.vetoes += 1
        return self.vetoes % _TRY_DESPITE == 0


class Outages:
    """The outages in effect.

    `refused`: a service refuses every request, or this host's disk is full. `unreachable`: no response. `refused` comes
    from Outage errors, `unreachable` from Transient ones.
    """

    def __init__(
        self,
        *,
        on_begin: Callable[[str], object] = lambda _reason: None,
        on_end: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """`on_begin` is called with the reason of each outage that begins, `on_end` with the seconds that it took."""
        self._on_begin = on_begin
        self._on_end = on_end
        self._refused: dict[str | None, Refusal] = {}
        self._unreachable: _Unreachable | None = None

    @property
    def kinds(self) -> dict[str, bool]:
        """Whether an outage of each kind is in effect."""
        return {"refused": bool(self._refused), "unreachable": self._unreachable is not None}

    @property
    def reason(self) -> str | None:
        """Why rows cannot be claimed, as a sentence; None if all can."""
        for refusal in self.refusals:
            return refusal.reason
        return self._unreachable.reason if self._unreachable else None

    @property
    def reasons(self) -> dict[str, str]:
        """Why which kinds of work cannot be claimed, as sentences: by kind, or "every"."""
        reasons = {refusal.kind or EVERY_KIND: refusal.reason for refusal in self.refusals}
        return reasons if self._unreachable is None else {EVERY_KIND: self._unreachable.reason} | reasons

    @property
    def refusals(self) -> list[Refusal]:
        """The refusals in effect, whatever kinds of work they concern."""
        return list(self._refused.values())

    def of(self, kind: str) -> list[Refusal]:
        """Return the refusals that concern a kind of work; none if it can be claimed."""
        return [self._refused[concerned] for concerned in (None, kind) if concerned in self._refused]

    def begin_refusal(
        self,
        reason: str,
        *,
        kind: str | None = None,
        met_by: str | None = None,
        probe: Probe | None = None,
    ) -> None:
        """Begin a refusal, of one kind of work or every kind; if it is in effect and its wait is over, double the wait."""
        now, reason = _now(), storable(reason)
        refusal = self._refused.get(kind)
        if refusal is None:
            log.error("outage", reason=reason)
            self._on_begin(reason)
            OUTAGES.labels("refused").inc()
            self._refused[kind] = Refusal(
                kind,
                reason,
                since=now,
                pause=PAUSE_FIRST,
                until=now + PAUSE_FIRST,
                met_by=met_by,
                probe=probe,
            )
            return
        refusal.reason = reason
        refusal.met_by = met_by or refusal.met_by
        refusal.probe = probe or refusal.probe
        if refusal.until <= now:
            refusal.pause = min(refusal.pause * 2, PAUSE_LONGEST)
            # Jitter: many daemons see the same outage, and must not all probe at the same moment.
            refusal.until = now + refusal.pause * random.uniform(0.75, 1)  # noqa: S311  (not a secret)

    def end_refusal(self, refusal: Refusal) -> bool:
        """End a refusal; returns whether it was still in effect."""
        if self._refused.get(refusal.kind) is not refusal:
            return False
        del self._refused[refusal.kind]
        log.info("outage_over", seconds=round(_now() - refusal.since, 1))
        self._on_end(_now() - refusal.since)
        return True

    def mark_unreachable(self, reason: str) -> None:
        """Note that a service does not respond; logged once."""
        reason = storable(reason)
        if self._unreachable is None:
            log.warning("unreachable", reason=reason)
            self._on_begin(reason)
            OUTAGES.labels("unreachable").inc()
            self._unreachable = _Unreachable(reason, since=_now())
        self._unreachable.reason = reason

    def mark_reachable(self) -> None:
        """Note that it responds; logged if it did not before."""
        if self._unreachable is not None:
            log.info("reachable", seconds=round(_now() - self._unreachable.since, 1))
            self._on_end(_now() - self._unreachable.since)
            self._unreachable = None


@dataclass(slots=True)
class _Unreachable:
    reason: str
    since: float


def _now() -> float:
    return asyncio.get_running_loop().time()
