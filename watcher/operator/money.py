"""What a training costs, in US dollars. Sends no request."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_MORE_MINUTES = 10
"""That may be billed beside the time-out, as `watcher.training_reserve` in the migrations has it."""


@dataclass(frozen=True, slots=True)
class Price:
    """A machine that jobs can run on, as the Hub lists it."""

    title: str
    usd_a_minute: Decimal

    def at_most(self, minutes: int) -> Decimal:
        """Return what a training whose job has this time-out can cost at most: what is reserved for it."""
        return self.usd_a_minute * (minutes + _MORE_MINUTES)


Prices = Mapping[str, Price]
"""By the Hub's names of the machines, their flavors."""
