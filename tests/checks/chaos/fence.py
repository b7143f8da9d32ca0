"""Who held which row when, from the calls of the verbs: were late write-backs refused, and how soon was a row taken over?"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.checks.chaos.record import Exchange

_ENDS = {"complete": "published", "fail": "failed", "defer": "deferred"}


@dataclass(slots=True)
class Hold:
    """One attempt's time with its row."""

    attempt: int
    row: str
    instance: str
    since: float
    until: float = float("inf")
    """When it is known to have ended: by its own word, or since another attempt had the row."""


class Fence:
    """The holds of a run, in order."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self.holds: dict[int, Hold] = {}
        self._by_row: dict[str, list[Hold]] = {}
        for exchange in exchanges:
            if exchange.name != "claim" or not isinstance(exchange.answered, dict) or exchange.ended is None:
                continue
            for claim in exchange.answered["claims"]:
                hold = Hold(
                    claim["attempt"], claim["identity_id"], exchange.asked["p_instance"], exchange.ended
                )
                self.holds[hold.attempt] = hold
                self._by_row.setdefault(hold.row, []).append(hold)
        for holds in self._by_row.values():
            holds.sort(key=lambda hold: hold.attempt)
            for hold, following in itertools.pairwise(holds):
                hold.until = min(hold.until, following.since)

    def following(self, hold: Hold) -> Hold | None:
        """The next hold on the same row."""
        return next((one for one in self._by_row[hold.row] if one.attempt > hold.attempt), None)

    def stale_writes(self, own_ends: Mapping[int, str]) -> list[str]:
        """What was answered as accepted though another attempt already had the row.

        The same end said again by the same attempt is answered as done and changes nothing: that is none. `own_ends`
        are the outcomes of attempts that had ended before the next one on their row began, as the stories tell.
        """
        found = []
        said: set[tuple[str, int]] = set()
        for exchange in self._exchanges:
            for attempt in _accepted(exchange):
                hold = self.holds.get(attempt)
                if hold is None:
                    continue
                if exchange.began <= hold.until:
                    said.add((exchange.name, attempt))
                elif exchange.name in _ENDS and (
                    (exchange.name, attempt) in said or own_ends.get(attempt) == _ENDS[exchange.name]
                ):
                    continue
                else:
                    found.append(f"{exchange.name} by attempt {attempt} on {hold.row}, after another had it")
        return found

    def created_late(self) -> set[str]:
        """The repos whose creation was on its way, for whomever, when another attempt failed their row."""
        failed = [one for one in self._exchanges if one.name == "fail" and one.answered == "done"]
        reserved = {
            str(one.answered): self.holds.get(one.asked["p_attempt"])
            for one in self._exchanges
            if one.name == "reserve" and one.answered
        }
        late = set()
        for creation in self._exchanges:
            if creation.name != "create" or creation.status != 200 or creation.ended is None:
                continue
            asked = creation.asked
            name = f"{asked.get('organization')}/{asked.get('name')}"
            hold = reserved.get(name)
            for fail in failed if hold else ():
                by = self.holds.get(fail.asked["p_attempt"])
                if by and hold and by.row == hold.row and creation.arrived < fail.began < creation.ended:
                    late.add(name)
        return late

    def takeovers(
        self, kills: Sequence[tuple[float, str]], hidden: Sequence[tuple[float, float]]
    ) -> list[float]:
        """Seconds from a kill of the holder to the next claim of its row, less those in which nobody could claim."""
        taken = []
        ended = self._ended_by_themselves()
        for hold in self.holds.values():
            killed = min(
                (at for at, instance in kills if instance == hold.instance and at > hold.since), default=None
            )
            following = self.following(hold)
            # One that ended all the same had said so before; one without another had its row deleted.
            if killed is None or following is None or killed > hold.until or hold.attempt in ended:
                continue
            taken.append(following.since - killed - _covered(hidden, killed, following.since))
        return taken

    def _ended_by_themselves(self) -> set[int]:
        """The attempts that said their own end, or gave their row back."""
        ends = {*_ENDS, "release"}
        return {
            one.asked["p_attempt"] for one in self._exchanges if one.name in ends and one.answered == "done"
        }


def own_ends(stories: Iterable[dict[str, Any]]) -> dict[int, str]:
    """The outcomes of the attempts that ended before the next one on their row began."""
    ends = {}
    for story in stories:
        attempts = story["attempts"]
        for attempt, following in zip(attempts, [*attempts[1:], None], strict=True):
            # One that is replaced ends at the very moment in which the next one begins.
            ended = attempt["ended_at"] and datetime.fromisoformat(attempt["ended_at"])
            if ended and (following is None or ended < datetime.fromisoformat(following["started_at"])):
                ends[attempt["number"]] = attempt["outcome"]
    return ends


def _accepted(exchange: Exchange) -> list[int]:
    """The attempts whose write-back was accepted by this answer."""
    answer, asked = exchange.answered, exchange.asked
    if answer is None:
        return []
    if exchange.name in _ENDS:
        return [asked["p_attempt"]] if answer == "done" else []
    if exchange.name == "reserve":
        return [asked["p_attempt"]]
    if exchange.name == "renew":
        return [int(number) for number in answer["held"]]
    return []


def _covered(intervals: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """How many seconds between two times the intervals cover together."""
    covered, reached = 0.0, since
    for begin, end in sorted(intervals):
        last = min(end, until)
        covered += max(0.0, last - max(begin, reached))
        reached = max(reached, last)
    return covered
