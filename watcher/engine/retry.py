"""The one policy for trying again now. Trying again later is the table's business."""

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
    """Tries an operation again while it raises Transient.

    At most `tries` times in all, with waits of `first` seconds, doubled each time up to `longest`, plus as much again
    by chance. A service that names a time is believed; one that names a time beyond `patience` is left to the table.
    """

    tries: int = 4
    first: float = 0.5
    longest: float = 8
    patience: float = 15

    async def __call__(self, operation: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the operation returns; raises its last Transient, or at once whatever else it raises."""

        async def once() -> T:
            # tenacity would not await what a lambda or a partial returns.
            return await operation(*args, **kwargs)

        return await tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.tries),
            wait=self._wait,
            retry=tenacity.retry_if_exception(self._worth_it),
            reraise=True,
        )(once)

    def _worth_it(self, error: BaseException) -> bool:
        return isinstance(error, Transient) and (error.retry_after or 0) <= self.patience

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        named = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
        longest = min(self.first * 2.0 ** (state.attempt_number - 1), self.longest)
        return max(named, longest * random.uniform(1, 2))  # noqa: S311  (not a secret)
