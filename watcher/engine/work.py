"""What the engine requires of a kind of work: it carries out a claim and returns the result.

A kind uses its own services, and of the engine only `Lease`, `Retry` and `Done`. The SQL functions that the engine calls
for it begin with its name, as in `publish_begin`; see docs/architecture.md for how to add one.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from watcher.engine.lease import Lease
from watcher.identity import Claim


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a claim that succeeded."""

    outcome: str
    """The kind's name for success: the event in the log and the outcome in the metrics."""
    fields: Mapping[str, object]
    """Fields of that log event."""
    write_back: Callable[[], Awaitable[None]]
    """Calls the kind's own verb, which ends the attempt. May be repeated; raises LeaseLost, Transient or Outage."""


class Work(Protocol):
    """One kind of work."""

    announced: ClassVar[bool]
    """Whether Realtime announces new work of this kind."""
    routine: ClassVar[bool]
    """Whether an attempt that goes well is no news: it is logged at level DEBUG."""

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return the fields of the log event `claimed`."""

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Carry out the claim.

        Raises Permanent, Transient, Refused, Wait or Outage if it cannot, and whatever `lease.check` raises. It may be
        cancelled at any moment; the next attempt continues from the state it finds then.
        """
