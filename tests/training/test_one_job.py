"""One job a training, in a model of what goes wrong: crashes, lost answers, requests that land late, lists that lag.

Time is the model's own. Attempts come one after the other, as leases let them; what one has sent can land after its end.
"""

import random
from dataclasses import dataclass, field

import pytest

from watcher.training.one_job import next_step

SCHEDULES = 20_000
LANDS_WITHIN, LISTED_WITHIN = 120.0, 30.0
"""Seconds: how late a request can take effect, and how long a list can lack a new job."""


@dataclass
class Hub:
    """The jobs of one label: when each was made, and from when on lists have it."""

    dice: random.Random
    made: list[float] = field(default_factory=list)
    listed_from: list[float] = field(default_factory=list)

    def request(self, now: float) -> float | None:
        """Send a request; returns when it is answered, None if nobody will know whether it landed."""
        fate = self.dice.random()
        if fate < 0.15:
            return None  # never arrived
        lands = now + (self.dice.uniform(0, LANDS_WITHIN) if fate < 0.5 else 0.1)
        self.made.append(lands)
        self.listed_from.append(lands + self.dice.choice([0.0, self.dice.uniform(0, LISTED_WITHIN)]))
        return lands if fate >= 0.5 and self.dice.random() < 0.7 else None

    def listed(self, now: float) -> int:
        return sum(since <= now for since in self.listed_from)


def jobs_made(dice: random.Random, settled_after: float) -> int:
    """Play one training until its job is known; returns how many jobs were made."""
    hub, now, intent = Hub(dice), 0.0, 0.0
    first = True
    while True:
        if dice.random() < 0.2:  # killed as soon as it was claimed
            now += dice.uniform(0, 40)
            first = False
            continue
        age = now - intent
        now += dice.uniform(0, 2)
        step = next_step(jobs=hub.listed(now), intent_age=age, settled_after=settled_after)
        # The attempt that has begun the training knows that nothing was requested before.
        match "request" if first else step:
            case "adopt":
                return len(hub.made)
            case "request":
                intent = now
                if dice.random() < 0.8:  # else killed before it was sent
                    answered = hub.request(now)
                    if answered is not None and dice.random() < 0.8:  # else killed before it was written down
                        return len(hub.made)
            case "wait":
                pass
        first = False
        now += dice.uniform(0, 60)


def doubled(seed: int, settled_after: float) -> int:
    dice = random.Random(seed)
    return sum(jobs_made(dice, settled_after) > 1 for _ in range(SCHEDULES))


def test_no_schedule_makes_two_jobs() -> None:
    assert doubled(1, LANDS_WITHIN + LISTED_WITHIN) == 0


@pytest.mark.parametrize(("settled_after", "at_least"), [(0.0, 1000), (30.0, 300), (60.0, 100)])
def test_believing_too_early_would(settled_after: float, at_least: int) -> None:
    assert doubled(2, settled_after) >= at_least


def test_a_list_that_shows_a_job_is_believed_at_once() -> None:
    assert next_step(jobs=1, intent_age=0.1, settled_after=150) == "adopt"
    assert next_step(jobs=2, intent_age=1e6, settled_after=150) == "adopt"
