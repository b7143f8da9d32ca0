"""The claims that this run of the daemon holds or has lost, and how many more it may take. Kept in memory only."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from watcher.identity import Claim


class Slots:
    """One slot for each claim, counted by kind of work."""

    def __init__(self, sizes: Mapping[str, int], *, on_end: Callable[[], None]) -> None:
        """`sizes`: how many claims of each kind may run at once; `on_end` is called after each one ends."""
        self._sizes = sizes
        self._on_end = on_end
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._lost: set[int] = set()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of work that can be claimed here."""
        return tuple(self._sizes)

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The tasks that carry out claims."""
        return set(self._running)

    @property
    def held(self) -> list[int]:
        """The attempts whose work this run must not claim again: those running, and those lost within one lease duration.

        Until the lease of a lost attempt has certainly expired, the database would take its work for a claim whose
        response this run never received, and would hand it out again without counting the attempt.
        """
        return sorted({claim.attempt for claim in self._running.values()} | self._lost)

    @property
    def busy(self) -> dict[str, int]:
        """How many slots of each kind are in use."""
        kinds = [claim.kind for claim in self._running.values()]
        return {kind: kinds.count(kind) for kind in self._sizes}

    def free(self, *, at_most: int | None = None) -> dict[str, int]:
        """Return how many claims of each kind may be taken, omitting kinds that have no free slot."""
        busy = self.busy
        free = {kind: size - busy[kind] for kind, size in self._sizes.items()}
        return {kind: min(n, at_most or n) for kind, n in free.items() if n > 0}

    def run(self, claim: Claim, work: Coroutine[None, None, None]) -> None:
        """Start the work on a claim; its slot is free again when the work ends."""
        task = asyncio.create_task(work)
        self._running[task] = claim
        task.add_done_callback(self._ended)

    async def finish(self, *, after: asyncio.Task[None]) -> None:
        """Wait for a task that may still start claims, then until none runs."""
        await asyncio.wait([after])
        if self._running:
            await asyncio.wait(self._running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._on_end()

    def keep_lost(self, attempt: int, seconds: float) -> None:
        """Keep a lost attempt in `held` for `seconds`, the lease duration, after which its lease has expired."""
        self._lost.add(attempt)
        asyncio.get_running_loop().call_later(seconds, self._lost.discard, attempt)
