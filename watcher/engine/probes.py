"""The monitoring pages /metrics, /healthz and /readyz, made at each request.

For /metrics the rows are counted in Supabase, every five seconds at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from watcher.engine.health import Health
from watcher.engine.outages import Outages
from watcher.errors import WatcherError
from watcher.process import metrics
from watcher.process.http import Pages, Response

_ROWS_EVERY, _ROWS_WITHIN = 5.0, 3.0
"""Seconds: the least time between two counts of the table, and the time-out of one."""


class Probes:
    """The monitoring pages."""

    def __init__(
        self,
        *,
        health: Health,
        outages: Outages,
        status: Callable[[], Awaitable[dict[str, Any]]],
        hub_requests: Callable[[], Mapping[str, int]],
        slots: Mapping[str, int],
    ) -> None:
        """`status` reads the figures of the whole table from the database.

        `hub_requests`: the Hub's rate limit, as `remaining` and `limit`; empty while unknown. `slots`: by kind of work.
        """
        self._health = health
        self._outages = outages
        self._status = status
        self._hub_requests = hub_requests
        self._slots = slots
        self._counting = asyncio.Lock()
        self._counted_at = -_ROWS_EVERY

    @property
    def pages(self) -> Pages:
        """For `http.serving`."""
        return {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}

    async def healthz(self) -> Response:
        """Whether the claim loop is alive."""
        return _ok_or(self._health.why_dead())

    async def readyz(self) -> Response:
        """Whether a row can be claimed now."""
        return _ok_or(self._health.why_not_ready())

    async def metrics(self) -> Response:
        """All series, with the gauges set now."""
        await self._count_rows()
        metrics.READY.set(self._health.why_not_ready() is None)
        metrics.FEED_ALIVE.set(self._health.feed_alive)
        for kind, slots in self._slots.items():
            busy = self._health.busy.get(kind, 0)
            metrics.SLOTS.labels(kind, "busy").set(busy)
            metrics.SLOTS.labels(kind, "free").set(max(slots - busy, 0))
        for kind, in_effect in self._outages.kinds.items():
            metrics.OUTAGE.labels(kind).set(in_effect)
        metrics.HUB_REQUESTS.clear()
        for name, number in self._hub_requests().items():
            metrics.HUB_REQUESTS.labels(name).set(number)
        return Response(metrics.exposition(), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _count_rows(self) -> None:
        async with self._counting:
            now = asyncio.get_running_loop().time()
            if now - self._counted_at < _ROWS_EVERY:
                return
            self._counted_at = now
            for gauge in (metrics.ROWS, metrics.FAILED_ROWS, metrics.OLDEST, metrics.PAUSED):
                gauge.clear()
            try:
                async with asyncio.timeout(_ROWS_WITHIN):
                    _set_rows(await self._status())
            except (WatcherError, TimeoutError, KeyError, TypeError, AttributeError):
                return  # no response, or a malformed one: the gauges are absent rather than outdated


def _set_rows(status: dict[str, Any]) -> None:
    failed: dict[str, int] = status["failed"]
    numbers = {
        "pending": status["pending"] - status["deferred"],
        "deferred": status["deferred"],
        "publishing": len(status["publishing"]),
        "failed": sum(failed.values()),
        "published": status["published_24h"],
    }
    for name, number in numbers.items():
        metrics.ROWS.labels(name).set(number)
    for code, number in failed.items():
        metrics.FAILED_ROWS.labels(code).set(number)
    for pause in status["paused"]:
        metrics.PAUSED.labels(pause["kind"]).set(1)
    erasing = status["erasing"]
    metrics.OLDEST_ERASURE.set(erasing["overdue_seconds"])
    metrics.SWEEP_HELD.set(sum(erasing[held] or 0 for held in ("held_users", "held_names", "held_uploads")))
    if numbers["pending"]:
        metrics.OLDEST.labels("pending").set(status["overdue_seconds"])


def _ok_or(problem: str | None) -> Response:
    if problem is None:
        return Response(b"ok\n")
    return Response(f"{problem}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)
