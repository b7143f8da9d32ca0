"""The kind of work `sweep`: has the database look, now and then, for what no deletion of a row has listed to be erased.

The database does all of it, in one call; see migrations/20261122100250_erasing.sql.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import structlog

from watcher.engine.lease import Lease
from watcher.engine.work import Done
from watcher.identity import Claim
from watcher.supabase.answers import Held
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Sweeper:
    """What a sweep needs, what the last one held back, and how much of it failed."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = True

    verbs: Verbs
    held: Held = field(default_factory=Held)
    failed: int = 0

    def describe(self, _claim: Claim) -> Mapping[str, object]:
        """Return nothing: a sweep has no fields."""
        return {}

    async def carry(self, claim: Claim, _lease: Lease) -> Done:
        """Sweep when the attempt ends: the same call does both."""
        return Done("swept", {}, partial(self._sweep, claim.attempt))

    async def _sweep(self, attempt: int) -> None:
        held, failed = await self.verbs.sweep(attempt)
        if held != self.held and held:
            log.warning("sweep_held", users=held.users, names=held.names, uploads=held.uploads)
        if failed != self.failed and failed:
            log.warning("sweep_failed", failed=failed)
        self.held, self.failed = held, failed
