"""The event loop of `watcher run`, made for a host that may be suspended and may run out of threads.

Leases are trusted by the loop's clock. CLOCK_MONOTONIC, asyncio's own, stands still while the host is suspended; Linux's
CLOCK_BOOTTIME does not.
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar, TypeVarTuple

from watcher.process.host import outage_of

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)
clock: Callable[[], float] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
"""Seconds that have passed since some moment, also those during which the host was suspended, where it can tell."""

_LONGEST_WAIT = 1.0
"""Seconds. The kernel's wait for events stands still as well, and would end late by as long as the host was suspended."""


class EventLoop(asyncio.SelectorEventLoop):
    """Measures time by `clock`, and reports threads that cannot be started as an Outage."""

    def __init__(self, clock: Callable[[], float] = clock) -> None:
        self._clock = clock
        super().__init__(_Selector())

    def time(self) -> float:
        """Return the loop time, in seconds."""
        return self._clock()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread; raises Outage if there can be none. Used by asyncio.to_thread and for DNS."""
        try:
            return super().run_in_executor(executor, func, *args)
        except RuntimeError as error:
            outage = outage_of(error)
            if outage is None:
                raise
            raise outage from error


class _Selector(selectors.DefaultSelector):
    """Returns without an event after `_LONGEST_WAIT`, whereupon the loop reads its clock again."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(_LONGEST_WAIT if timeout is None else min(timeout, _LONGEST_WAIT))
