"""Ends the demo, with all that it has started, when the terminal, the reader of its output or the parent process is gone."""

import asyncio
import ctypes
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY = 0.5
"""Seconds."""
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Have Linux send this process SIGTERM when its parent dies, however that happens."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@asynccontextmanager
async def by_signals() -> AsyncIterator[None]:
    """Cancel the block on SIGTERM and SIGHUP, so that it can clean up, as on Ctrl-C."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    end_with_parent()
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def reader_is_gone() -> None:
    """Return once nobody can read standard output any more: a pipe whose reader has ended, a terminal that was closed."""
    poll = select.poll()
    with suppress(OSError, ValueError, AttributeError):  # no file, as in a test, or none at all
        poll.register(sys.stdout.fileno(), 0)  # errors are reported without being asked for
    while not any(  # noqa: ASYNC110  (no loop can wait for an error alone)
        event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)
    ):
        await asyncio.sleep(_LOOK_EVERY)
