"""Runs the Hub's blocking client in threads that nobody has to wait for."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from watcher.hub.errors import translate

T = TypeVar("T")


async def in_thread(operation: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own; raises the Hub's errors as ours.

    If the caller is cancelled, the thread goes on and nobody waits for it, at exit neither.
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
            return  # the loop is closed: the program is ending

    # With the row's fields, for what the library logs.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="hub", daemon=True).start()
    try:
        return await done
    except Exception as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from None  # it may be a cause of what huggingface_hub made of it
