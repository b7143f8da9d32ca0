"""What a kind of work is to the engine: something that carries a claim, and says what came of it.

A kind knows its services and nothing of the queue, the lease's clock or the other kinds. Its SQL has the same name; see
docs/architecture.md for how to add one.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from watcher.engine.lease import Lease
from watcher.identity import Claim


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a claim that was carried to its end."""

    outcome: str
    """The kind's word for it: the event in the log, and the outcome in the metrics."""
    fields: Mapping[str, object]
    """Of the line in the log."""
    write_back: Callable[[], Awaitable[None]]
    """Calls the kind's own verb, which ends the attempt; may be called again, and raises as every write-back."""


class Work(Protocol):
    """One kind of work."""

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return the fields of the line in the log that says that the claim is begun."""

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Do the work.

        Raises Permanent, Transient or Outage where it cannot be done, and whatever `lease.check` raises. It may be
        cancelled at any moment, and another attempt goes on from what is there then.
        """
