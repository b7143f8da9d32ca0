"""Runs the Hub's blocking client in daemon threads."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from watcher.hub.errors import translate

T = TypeVar("T")


async def in_thread(operation: Callable[[], T]) -> T:
    """Run a blocking operation in a new thread; raises the Hub's errors translated to ours, Outage if there is no thread.

    If the caller is cancelled, the thread continues, and its result is dropped. It does not delay the process's exit.
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
    try:
        threading.Thread(target=context.run, args=(run,), name="hub", daemon=True).start()
        return await done
    except Exception as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from None  # `translated` may itself be the cause of `error`
