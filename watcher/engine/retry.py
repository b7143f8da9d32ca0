"""The one retry policy within an attempt, and the time-out of a single request.

Retries between attempts are decided in SQL: `watcher.backoff` and `watcher.max_attempts` in the migrations.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import tenacity

from watcher.errors import Transient

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries an operation while it raises Transient.

    At most `tries` tries in all. The wait between them starts at `first` seconds, doubles up to `longest`, and is then
    multiplied by a random factor from 1 to 2. It is at least the error's `retry_after`; if that exceeds `max_retry_after`
    seconds, the error is raised at once, so that the attempt is deferred instead.
    """

    tries: int = 4
    first: float = 0.5
    longest: float = 8
    max_retry_after: float = 15

    async def __call__(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the operation returns; raises its last Transient, and any other error at once."""

        async def once() -> T:
            # tenacity does not await what a lambda or a partial returns.
            return await operation(*args, **kwargs)

        return await tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.tries),
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._can_retry),
            reraise=True,
        )(once)

    def _can_retry(self, error: BaseException) -> bool:
        return isinstance(error, Transient) and (error.retry_after or 0) <= self.max_retry_after

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
        backoff = min(self.first * 2.0 ** (state.attempt_number - 1), self.longest)
        return max(retry_after, backoff * random.uniform(1, 2))  # noqa: S311  (not a secret)


async def within(seconds: float, request: Awaitable[T], *, of: str) -> T:
    """Return what the request returns; raises Transient if the service `of` does not respond in time."""
    try:
        async with asyncio.timeout(seconds):
            return await request
    except TimeoutError as error:
        raise Transient(f"{of} did not respond within {seconds:g} s.") from error
