"""Waiting for what has to come. There is one limit for all of it, and it only ends a test that would hang."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds: far more than anything here takes on a busy machine, and less than the grace that a daemon has by default."""


async def until(true: Callable[[], object]) -> None:
    """Return when it is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "It did not come true."
        await asyncio.sleep(0.01)


def wait_until(true: Callable[[], object], *, pause: float = 0.01) -> None:
    """Return when it is true, which is asked every `pause` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "It did not come true."
        time.sleep(pause)
