"""A row that is due waits for no lock, no clock and no silence of Realtime's."""

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.acceptance import clocks
from tests.acceptance.person import Person
from tests.acceptance.places import (
    PHOTOS,
    SHORT_LEASE,
    at,
    hold,
    inserted,
    outcomes,
    until_a_lease_has_been_outlasted,
)
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer


def test_a_row_is_claimed_when_its_back_off_ends_and_not_before(
    stage: Stage, sandbox: Sandbox, person: Person, daemon: Watcher
) -> None:
    sandbox.faults.add(Answer(503, "away", {"Retry-After": "20"}), **at("create"))
    identity = inserted(person)
    person.wait_until(identity, lambda row: row["next_attempt_at"] is not None)
    [due] = stage.sql("select now() + interval '2 seconds'")
    stage.sql("update public.trained_identities set next_attempt_at = %s where id = %s", due, identity)
    daemon.wait_for("claimed", identity=identity, count=2)
    [_, second] = stage.story(identity)["attempts"]
    assert datetime.fromisoformat(second["started_at"]) >= due
    audit(stage, person.wait_for(identity, "published"), PHOTOS)


def test_a_realtime_that_is_silent_about_rows_is_found_out_by_the_first_row_that_waited(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage, WATCHER_POLL_ALIVE="2", WATCHER_PULSE_ANSWER="0.5") as watcher:
        watcher.ready()
        # Alive for longer than the row will have waited, so that it would have told of it.
        time.sleep(3)
        sandbox.realtime.mute()
        while not watcher.said("feed_lost"):
            # Where it is found too soon to prove anything, the next one waits for longer.
            identity = inserted(person)
            watcher.wait_for("claimed", identity=identity)
            time.sleep(0.5)
        watcher.wait_for("feed_alive", count=2)
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()


def test_one_row_of_four_that_somebody_has_locked_costs_the_others_neither_lease_nor_time(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage, **SHORT_LEASE) as watcher:
        watcher.ready()
        held = hold(sandbox, "create", "before")
        rows = [inserted(person) for _ in range(4)]
        watcher.wait_for("claimed", count=4)
        with psycopg.connect(sandbox.db_url) as somebody:
            query = b"select from public.trained_identities where id = %s for update"
            somebody.execute(query, [rows[0]])
            until_a_lease_has_been_outlasted(stage, rows[-1])
            held.release()
            for identity in rows[1:]:
                person.wait_for(identity, "published")
        for identity in rows:
            audit(stage, person.wait_for(identity, "published"), PHOTOS)
            assert outcomes(stage, identity) == ["published"]
        assert not watcher.said("lease_lost")
        watcher.stop()


@pytest.mark.faults
@pytest.mark.skipif(not clocks.INSTALLED, reason="needs libfaketime")
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_an_hour_off_changes_nothing(stage: Stage, person: Person, hours: int) -> None:
    with Watcher(stage, **SHORT_LEASE, **clocks.hours_off(hours)) as watcher:
        watcher.ready()
        said = datetime.fromisoformat(watcher.said("ready")[0]["timestamp"])
        assert round((said - datetime.now(UTC)) / timedelta(hours=1)) == hours  # noqa: TID251  (it is compared with ours)
        identity = inserted(person)
        watcher.wait_for("claimed", identity=identity)
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        assert outcomes(stage, identity) == ["published"]
        watcher.stop()
