"""Runs the Hub's blocking client in daemon threads. Whether somebody still waits for one, it can ask."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from watcher.hub.errors import translate

T = TypeVar("T")

_caller_gone: contextvars.ContextVar[threading.Event] = contextvars.ContextVar("caller_gone")


async def in_thread(operation: Callable[[], T]) -> T:
    """Run a blocking operation in a new thread; raises the Hub's errors translated to ours, Outage if there is no thread.

    If the caller is cancelled, the thread continues until it calls `caller_gone`, and its result is dropped. It does not
    delay the process's exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def resolve(set_result: Callable[[Any], None], value: object) -> None:
        if not done.done():
            set_result(value)

    def run() -> None:
        try:
            outcome = partial(resolve, done.set_result, operation())
        except BaseException as error:  # noqa: BLE001  (it is raised again where it is awaited)
            outcome = partial(resolve, done.set_exception, error)
        try:
            loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            return  # the loop is closed: the process is exiting

    # With the context variables, so that the library's log lines have the row's fields.
    context = contextvars.copy_context()
    gone = threading.Event()
    context.run(_caller_gone.set, gone)
    try:
        threading.Thread(target=context.run, args=(run,), name="hub", daemon=True).start()
        return await done
    except Exception as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from None  # `translated` may itself be the cause of `error`
    finally:
        gone.set()


def caller_gone(within: float = 0.0) -> bool:
    """Wait for so many seconds in a thread, or until its caller is cancelled; returns whether that is so."""
    return _caller_gone.get(_NEVER).wait(within)


_NEVER = threading.Event()
"""For threads of others, as the library's own."""
