"""What /metrics, /healthz and /readyz say, asked when somebody asks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from watcher.engine.health import Health
from watcher.engine.outages import Outages
from watcher.errors import WatcherError
from watcher.process import metrics
from watcher.process.http import Answer, Pages

_ROWS_EVERY, _ROWS_WITHIN = 5.0, 3.0
"""Seconds: how often the table is counted at most, and how long that may take."""


class Probes:
    """The pages, by path."""

    def __init__(
        self,
        *,
        health: Health,
        outages: Outages,
        status: Callable[[], Awaitable[dict[str, Any]]],
        hub_requests: Callable[[], Mapping[str, int]],
        slots: int,
    ) -> None:
        """`status` asks the database for the figures of the whole table.

        `hub_requests`: what the Hub allows of requests, as `remaining` and `limit`; empty where it has not said.
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

    async def healthz(self) -> Answer:
        """Whether the claim loop is alive."""
        return _verdict(self._health.why_dead(), "ok")

    async def readyz(self) -> Answer:
        """Whether a row could be claimed now."""
        return _verdict(self._health.why_not_ready(), "ok")

    async def metrics(self) -> Answer:
        """Every series, with the gauges as they are now."""
        await self._count_rows()
        metrics.READY.set(self._health.why_not_ready() is None)
        metrics.FEED_ALIVE.set(self._health.feed_alive)
        metrics.SLOTS.labels("busy").set(self._health.running)
        metrics.SLOTS.labels("free").set(self._slots - self._health.running)
        for kind, lasts in self._outages.kinds.items():
            metrics.OUTAGE.labels(kind).set(lasts)
        metrics.HUB_REQUESTS.clear()
        for name, number in self._hub_requests().items():
            metrics.HUB_REQUESTS.labels(name).set(number)
        return Answer(metrics.exposition(), kind=CONTENT_TYPE_PLAIN_0_0_4)

    async def _count_rows(self) -> None:
        async with self._counting:
            now = asyncio.get_running_loop().time()
            if now - self._counted_at < _ROWS_EVERY:
                return
            self._counted_at = now
            for gauge in (metrics.ROWS, metrics.FAILED_ROWS, metrics.OLDEST):
                gauge.clear()
            try:
                async with asyncio.timeout(_ROWS_WITHIN):
                    _set_rows(await self._status())
            except (WatcherError, TimeoutError, KeyError, TypeError, AttributeError):
                return  # no answer, or a malformed one: absent, rather than as they were


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
    if numbers["pending"]:
        metrics.OLDEST.labels("pending").set(status["overdue_seconds"])


def _verdict(why_not: str | None, well: str) -> Answer:
    if why_not is None:
        return Answer(f"{well}\n".encode())
    return Answer(f"{why_not}\n".encode(), HTTPStatus.SERVICE_UNAVAILABLE)
