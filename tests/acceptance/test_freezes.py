"""Frozen past its lease, or never told that the work was done: nothing is written twice, or over another's."""

import signal
import time
from typing import Literal

import pytest

from tests.acceptance.person import Person, Row
from tests.acceptance.places import PHOTOS, SHORT_LEASE, at, hold, inserted, outcomes
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import LoseAnswer


@pytest.mark.parametrize("place", ["create", "upload", "commit", "complete", "reserve", "claim"])
def test_the_work_done_and_the_answer_lost_is_found_done(
    stage: Stage, sandbox: Sandbox, person: Person, place: str
) -> None:
    lost = sandbox.faults.add(LoseAnswer(), **at(place))
    identity = inserted(person)
    with Watcher(stage) as watcher:
        lost.wait_reached()
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()
    assert len(stage.names()) == 1
    expected = ["released", "published"] if place == "claim" else ["published"]
    assert outcomes(stage, identity) == expected


def test_a_commit_that_landed_with_an_error_for_an_answer_is_found(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    sandbox.faults.add(LoseAnswer(504, "gateway time-out"), **at("commit"))
    identity = inserted(person)
    with Watcher(stage) as watcher:
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()


def _after_a_freeze(
    stage: Stage, sandbox: Sandbox, person: Person, place: str, when: Literal["before", "after"]
) -> tuple[Row, Watcher]:
    """Freeze a daemon at a place, let another publish the row, and wake the first one again."""
    with Watcher(stage, **SHORT_LEASE) as frozen:
        frozen.ready()
        held = hold(sandbox, place, when)
        identity = inserted(person)
        held.wait_reached()
        frozen.send(signal.SIGSTOP)
        with Watcher(stage, **SHORT_LEASE) as other:
            row = person.wait_for(identity, "published")
            other.stop()
        sandbox.faults.remove(held)
        frozen.send(signal.SIGCONT)
        frozen.wait_for("lease_lost")
        # What it still had under way may come to its end.
        time.sleep(1)
        frozen.stop()
    return row, frozen


@pytest.mark.parametrize(
    ("place", "when"),
    [
        ("reserve", "after"),
        ("create", "before"),
        ("upload", "before"),
        ("commit", "before"),
        ("complete", "before"),
    ],
)
def test_woken_after_its_lease_a_daemon_changes_nothing(
    stage: Stage, sandbox: Sandbox, person: Person, place: str, when: Literal["before", "after"]
) -> None:
    row, frozen = _after_a_freeze(stage, sandbox, person, place, when)
    assert person.row(row["id"]) == row
    audit(stage, row, PHOTOS)
    assert not frozen.said("published")
    [first, second] = stage.story(row["id"])["attempts"]
    assert (first["instance"], first["outcome"]) == (frozen.instance, "crashed")
    assert second["outcome"] == "published"


def test_a_commit_that_landed_from_a_frozen_daemon_is_adopted(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    row, _ = _after_a_freeze(stage, sandbox, person, "commit", "after")
    assert person.row(row["id"]) == row
    audit(stage, row, PHOTOS)
    assert sum("/commit/main" in one.path for one in sandbox.faults.log()) == 1
