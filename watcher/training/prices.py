"""What a minute of a job costs, as the Hub lists it."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from watcher.engine.retry import Retry
from watcher.errors import Outage
from watcher.hub.jobs import Jobs, Machine

_BELIEVED = 600.0
"""Seconds for which the list of machines and prices is believed."""


@dataclass(slots=True)
class Prices:
    """The machines that the Hub has listed last: what a user asks for costs no request of its own."""

    jobs: Jobs
    retry: Retry
    _machines: Mapping[str, Machine] = field(default_factory=dict)
    _until: float = -math.inf
    """The loop time until which they are believed."""

    async def per_minute(self, flavor: str) -> Decimal:
        """Return US dollars a minute; raises Transient, or Outage if there is no such machine."""
        now = asyncio.get_running_loop().time()
        if now > self._until:
            self._machines = await self.retry(self.jobs.hardware)
            self._until = now + _BELIEVED
        machine = self._machines.get(flavor)
        if machine is None:
            raise Outage(
                f"The Hub has no machine {flavor!r} for trainings: choose another one with `watcher training on --flavor`.",
                of_kind=True,
            )
        return machine.usd_per_minute
