"""What the verbs of the queue answer, read from JSON. Readers raise KeyError, TypeError or ValueError if it is not that."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from watcher.identity import Claim
from watcher.process.text import storable


@dataclass(frozen=True, slots=True)
class NameTaken:
    """Another machine runs a daemon of this name."""

    machine: str
    seconds: float
    """Until it counts as gone, unless it is heard again."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The result of a claim request."""

    claims: tuple[Claim, ...]
    next_due: float | None
    """Seconds until other work falls due, as known now; None if there is none."""
    name_taken: NameTaken | None = None
    """Set, and nothing claimed, while another machine goes by this name."""
    paused: tuple[str, ...] = ()
    """The kinds of work that the operator has paused, of which nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Held:
    """What looks gone but may only be missing, as in the middle of a restore."""

    users: int = 0
    names: int = 0
    """Of repos, whose row is missing."""
    uploads: int = 0
    """Users with uploads that no row has named for a week."""

    def __bool__(self) -> bool:
        return bool(self.users or self.names or self.uploads)


def claims(answer: Mapping[str, Any]) -> Claims:
    """Read the answer to a claim."""
    next_due = answer["next_due_seconds"]
    return Claims(
        claims=tuple(_claim(line) for line in answer["claims"]),
        next_due=None if next_due is None else _seconds(next_due),
        name_taken=_name_taken(answer.get("name_taken")),
        paused=tuple(map(str, answer.get("paused", ()))),
    )


def _claim(line: dict[str, Any]) -> Claim:
    return Claim(
        attempt=int(line["attempt"]),
        kind=str(line["kind"]),
        identity_id=str(line["identity_id"]),
        details=dict(line["details"].items()),
        look_only=bool(line["look_only"]),
        exhausted=line["exhausted"],
        never_tried=bool(line["never_tried"]),
        age=_seconds(line["age_seconds"]),
    )


def _name_taken(answer: Mapping[str, Any] | None) -> NameTaken | None:
    return (
        None if answer is None else NameTaken(storable(str(answer["machine"])), _seconds(answer["seconds"]))
    )


def _seconds(number: Any) -> float:
    """Return a duration; raises ValueError unless it is finite."""
    seconds = float(number)
    if not math.isfinite(seconds):
        raise ValueError(number)
    return seconds
