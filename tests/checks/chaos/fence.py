"""Which attempt held which row and when, from the recorded calls: finds accepted stale writes, and measures takeovers."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.checks.chaos.record import Exchange

_ENDS = {
    "complete": {"published"}, "erased": {"erased"}, "trained": {"trained"}, "fail": {"failed"}, "defer": {"deferred"},
    "wait": {"waited", "failed", "deferred"}, "training_postpone": {"waited"}, "followed": {"followed"},
}  # fmt: skip
"""Write-backs that end an attempt, and the outcomes that they can give it."""
_BETWEEN = {"training_start", "training_intend", "training_undo", "training_job", "training_ended"}
"""Write-backs of a training after which its attempt goes on."""
_ACCEPTED = {"done", "started", "waited", "failed", "deferred"}
"""What an accepted write-back is answered."""


@dataclass(slots=True)
class Hold:
    """The time in which one attempt held its row, for one kind of work."""

    attempt: int
    kind: str
    row: str
    instance: str
    since: float
    until: float = float("inf")
    """When it ended: by its own write-back, or because another attempt got the row."""


class Fence:
    """The holds of a run, in order."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self.holds: dict[int, Hold] = {}
        self._by_work: dict[tuple[str, str], list[Hold]] = {}
        for exchange in exchanges:
            if exchange.name != "claim" or not isinstance(exchange.answered, dict) or exchange.ended is None:
                continue
            for claim in exchange.answered["claims"]:
                if claim["kind"] == "sweep":
                    continue  # it concerns no row
                hold = Hold(
                    claim["attempt"],
                    claim["kind"],
                    claim["identity_id"],
                    exchange.asked["p_instance"],
                    exchange.ended,
                )
                self.holds[hold.attempt] = hold
                self._by_work.setdefault((hold.kind, hold.row), []).append(hold)
        for holds in self._by_work.values():
            holds.sort(key=lambda hold: hold.attempt)
            for hold, following in itertools.pairwise(holds):
                hold.until = min(hold.until, following.since)

    def following(self, hold: Hold) -> Hold | None:
        """The next hold on the same work."""
        holds = self._by_work[hold.kind, hold.row]
        return next((one for one in holds if one.attempt > hold.attempt), None)

    def stale_writes(self, own_ends: Mapping[int, str]) -> list[str]:
        """The write-backs that were accepted although another attempt already held the row.

        A repeated write-back of the same attempt returns "done" and changes nothing, so it is not one. `own_ends` are the
        outcomes of attempts that ended before the next one on their row began, from `watcher_story`.
        """
        found = []
        accepted: set[tuple[str, int]] = set()
        for exchange in self._exchanges:
            for attempt in _accepted(exchange):
                hold = self.holds.get(attempt)
                if hold is None:
                    continue
                if exchange.began <= hold.until:
                    accepted.add((exchange.name, attempt))
                elif exchange.name in _ENDS and (
                    (exchange.name, attempt) in accepted or own_ends.get(attempt) in _ENDS[exchange.name]
                ):
                    continue
                else:
                    found.append(
                        f"{exchange.name} by attempt {attempt} on {hold.row}, which another attempt held"
                    )
        return found

    def takeovers(
        self, kills: Sequence[tuple[float, str]], hidden: Sequence[tuple[float, float]]
    ) -> list[float]:
        """Seconds from the kill of a holder to the next claim of its row, without those in which no daemon could claim."""
        taken = []
        ended = self._ended_by_themselves()
        for hold in self.holds.values():
            killed = min(
                (at for at, instance in kills if instance == hold.instance and at > hold.since), default=None
            )
            following = self.following(hold)
            # Not counted: attempts that had ended before the kill, and rows that were deleted.
            if killed is None or following is None or killed > hold.until or hold.attempt in ended:
                continue
            taken.append(following.since - killed - _covered(hidden, killed, following.since))
        return taken

    def _ended_by_themselves(self) -> set[int]:
        """The attempts that ended with a write-back of their own."""
        ends = {*_ENDS, "release"}
        return {
            one.asked["p_attempt"]
            for one in self._exchanges
            if one.name in ends and _result(one.answered) in _ACCEPTED
        }


def own_ends(stories: Iterable[dict[str, Any]]) -> dict[int, str]:
    """The outcomes of the attempts that ended before the next one on their row began."""
    ends = {}
    for story in stories:
        attempts = story["attempts"]
        for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
            # An attempt that is replaced ends in the same transaction in which the next one begins.
            ended = attempt["ended_at"] and datetime.fromisoformat(attempt["ended_at"])
            if ended and (following is None or ended < datetime.fromisoformat(following["started_at"])):
                ends[attempt["number"]] = attempt["outcome"]
    return ends


def _accepted(exchange: Exchange) -> list[int]:
    """The attempts whose write-back was accepted with this answer."""
    answer, asked = exchange.answered, exchange.asked
    if answer is None:
        return []
    if exchange.name in _ENDS or exchange.name in _BETWEEN:
        return [asked["p_attempt"]] if _result(answer) in _ACCEPTED else []
    if exchange.name == "reserve":
        return [asked["p_attempt"]]
    if exchange.name == "renew":
        return [int(number) for number in answer["held"]]
    return []


def _result(answer: Any) -> Any:
    """What became of an attempt, according to the answer to a write-back."""
    return answer.get("result") if isinstance(answer, dict) else answer


def _covered(intervals: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """How many seconds between two times are covered by the union of the intervals."""
    covered, reached = 0.0, since
    for begin, end in sorted(intervals):
        last = min(end, until)
        covered += max(0.0, last - max(begin, reached))
        reached = max(reached, last)
    return covered
