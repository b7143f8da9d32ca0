"""What the tests of the engine share."""

import asyncio
import selectors
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
async def no_waiting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A loop whose clock stands still while there is something to do, and else goes on to the next timer at once.

    Times are exact then, whatever else the machine does. For tests that talk to nobody.
    """
    loop: Any = asyncio.get_running_loop()
    selector: selectors.BaseSelector = loop._selector
    look, now = selector.select, loop.time()

    def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        nonlocal now
        ready = look(timeout if timeout is None else 0)
        if not ready and timeout is not None:
            now += timeout
        return ready

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(selector, "select", select)
    yield
    monkeypatch.undo()
