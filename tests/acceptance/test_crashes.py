"""Killed, frozen or answered with silence at any point: nothing is lost, and nothing is done twice."""

from typing import Literal

import pytest

from tests.acceptance.person import Person
from tests.acceptance.places import (
    PHOTOS,
    SHORT_LEASE,
    hold,
    inserted,
    outcomes,
    until_a_lease_has_been_outlasted,
)
from tests.acceptance.repo import audit, orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage, unique
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Hold


# Every request that changes something has its kill in test_boundaries.py; here the row does not wait for its lease.
@pytest.mark.parametrize(("place", "when"), [("claim", "after"), ("fetch", "before"), ("commit", "after")])
def test_killed_and_started_again_it_goes_on_at_once(
    stage: Stage, sandbox: Sandbox, person: Person, place: str, when: Literal["before", "after"]
) -> None:
    instance = unique("killed")
    held = hold(sandbox, place, when)
    identity = inserted(person)
    with Watcher(stage, instance, WATCHER_LEASE="600") as watcher:
        held.wait_reached()
        watcher.kill()
    sandbox.faults.remove(held)
    with Watcher(stage, instance) as again:
        again.wait_for("claimed", identity=identity)
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        again.stop()
    assert len(stage.names()) == 1
    assert outcomes(stage, identity) == ["crashed", "published"]


def test_an_image_left_in_the_spool_by_a_killed_run_is_gone_with_the_next(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    instance = unique("spool")
    with Watcher(stage, instance) as watcher:
        watcher.ready()
        held = hold(sandbox, "upload", "before")
        identity = inserted(person)
        held.wait_reached()
        [left] = watcher.spool.glob("attempt-*")
        assert {file.stat().st_mode & 0o777 for file in left.iterdir()} == {0o600}
        assert left.stat().st_mode & 0o777 == watcher.spool.stat().st_mode & 0o777 == 0o700
        watcher.kill()
    assert sorted(file.read_bytes() for file in left.iterdir()) == sorted(PHOTOS)
    person.delete(identity)
    sandbox.faults.remove(held)
    with Watcher(stage, instance) as again:
        again.wait_for("ready")
        assert not left.exists()
        stage.erase_due()
        again.stop()
        assert [file.name for file in again.spool.iterdir()] == ["lock"]


def test_another_daemon_takes_over_when_the_lease_has_run_out(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage, **SHORT_LEASE) as first:
        first.ready()
        held = hold(sandbox, "upload", "before")
        identity = inserted(person)
        held.wait_reached()
        with Watcher(stage, **SHORT_LEASE) as second:
            second.ready()
            until_a_lease_has_been_outlasted(stage, identity)
            assert not second.said("claimed"), "The first one renews its lease."
            first.kill()
            sandbox.faults.remove(held)
            second.wait_for("claimed", identity=identity)
            audit(stage, person.wait_for(identity, "published"), PHOTOS)
            second.stop()
    assert outcomes(stage, identity) == ["crashed", "published"]


def test_a_row_that_kills_its_worker_every_time_ends_alone(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    instance, poison = unique("poison"), person.photos()
    killer = sandbox.faults.add(
        Hold("before"), service="storage", path=f"/object/authenticated/.*{poison[1]}$", times=None
    )
    rows = [inserted(person) for _ in range(2)]
    poisoned = person.insert("Poison", poison)
    rows += [inserted(person) for _ in range(3)]
    for kills in range(1, 9):
        with Watcher(stage, instance, **SHORT_LEASE) as watcher:
            killer.wait_reached(count=kills)
            watcher.kill()
    with Watcher(stage, instance, **SHORT_LEASE) as last:
        row = person.wait_for(poisoned, "failed")
        for identity in rows:
            audit(stage, person.wait_for(identity, "published"), PHOTOS)
        stage.erase_due()
        last.stop()
    assert row["error_code"] == "attempts_exhausted"
    assert "8 attempts" in row["error_message"]
    assert outcomes(stage, poisoned) == ["crashed"] * 8 + ["failed"]
    assert not orphans(stage)
    # From its third attempt on it took nobody with it.
    for identity in rows:
        assert outcomes(stage, identity).count("crashed") <= 2
