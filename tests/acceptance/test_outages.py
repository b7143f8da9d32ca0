"""When a service is away, refuses everybody or lies: no row pays for it, it is said once, and it goes on by itself."""

import json
import time

import pytest

from tests.acceptance.person import Person
from tests.acceptance.places import PHOTOS, at, hold, inserted, outcomes
from tests.acceptance.repo import audit, orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer, Cut, Delay

_PATIENTLY = {"Retry-After": "20"}  # longer than an attempt waits, so each one ends at the first answer


def test_a_token_revoked_for_a_while_costs_no_attempt(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        sandbox.hub.access.revoke(sandbox.hub_token)
        try:
            identity = inserted(person)
            said = watcher.wait_for("outage")
            assert "token" in said["reason"]
            person.wait_for(identity, "pending")
            later = inserted(person, "Eve")
            # Long enough for several looks at whether it is over.
            time.sleep(4)
            for waiting in (identity, later):
                assert stage.story(waiting)["spent"] == 0
                assert person.row(waiting)["status"] == "pending"
            assert set(outcomes(stage, identity)) == {"released"}
        finally:
            sandbox.hub.access.restore(sandbox.hub_token)
        for waiting in (identity, later):
            audit(stage, person.wait_for(waiting, "published"), PHOTOS)
        assert len(watcher.said("outage")) == len(watcher.said("outage_over")) == 1
        assert len(outcomes(stage, identity)) <= 3
        watcher.stop()


def test_a_full_quota_costs_no_attempt_and_leaves_one_repo(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    sandbox.hub.knobs.limit_storage(0)
    try:
        with Watcher(stage) as watcher:
            watcher.ready()
            identity = inserted(person)
            watcher.wait_for("outage")
            person.wait_for(identity, "pending")
            assert stage.story(identity)["spent"] == 0
            sandbox.hub.knobs.limit_storage(None)
            audit(stage, person.wait_for(identity, "published"), PHOTOS)
            assert len(watcher.said("outage")) == 1
            watcher.stop()
    finally:
        sandbox.hub.knobs.limit_storage(None)
    assert len(stage.names()) == 1


def test_a_supabase_key_refused_for_a_while_is_waited_for(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        refused = sandbox.faults.add(
            Answer(401, {"message": "Invalid API key", "hint": None}),
            service="rest",
            path="/rpc/",
            times=None,
        )
        identity = inserted(person)
        watcher.wait_for("outage")
        time.sleep(1.5)
        sandbox.faults.remove(refused)
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        assert len(watcher.said("outage")) == len(watcher.said("outage_over")) == 1
        watcher.stop()


def test_without_realtime_a_row_is_found_by_looking(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    sandbox.realtime.refuse(503, times=10**6)
    try:
        with Watcher(stage, WATCHER_POLL_ALIVE="600") as watcher:
            watcher.wait_for("ready")
            for _ in range(3):
                identity = inserted(person)
                watcher.wait_for("claimed", identity=identity)
                audit(stage, person.wait_for(identity, "published"), PHOTOS)
            assert len(watcher.said("feed_lost")) == 1
            watcher.stop()
    finally:
        sandbox.realtime.refuse(503, times=0)


@pytest.mark.parametrize("trouble", ["accept_then_drop", "system_error", "close"])
def test_a_realtime_that_ends_the_channel_is_subscribed_to_again(
    stage: Stage, sandbox: Sandbox, person: Person, trouble: str
) -> None:
    with Watcher(stage, WATCHER_POLL_ALIVE="600") as watcher:
        watcher.ready()
        said = len(watcher.lines)
        if trouble == "accept_then_drop":
            sandbox.realtime.accept_then_drop(2)
            sandbox.realtime.close_all(1006)
        elif trouble == "system_error":
            sandbox.realtime.system_error("Something went wrong with the subscription")
        else:
            sandbox.realtime.close_all(1012)
        # Lost as it is, it is found by the next look.
        identity = inserted(person)
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.wait_for("feed_alive", count=2)
        later = inserted(person)
        watcher.wait_for("claimed", identity=later)
        levels = [json.loads(line)["level"] for line in watcher.lines[said:]]
        assert levels.count("warning") == 1
        assert "error" not in levels
        watcher.stop()


def test_a_realtime_that_says_nothing_more_is_noticed_and_replaced(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    settings = {"WATCHER_PULSE": "0.5", "WATCHER_PULSE_ANSWER": "5", "WATCHER_POLL_ALIVE": "600"}
    with Watcher(stage, **settings) as watcher:
        watcher.ready()
        sandbox.realtime.mute()
        watcher.wait_for("feed_lost")
        watcher.wait_for("feed_alive", count=2)
        identity = inserted(person)
        watcher.wait_for("claimed", identity=identity)
        person.wait_for(identity, "published")
        # Alive and idle, it stays: the pulse is answered.
        beat = sandbox.faults.add(Delay(0), service="rest", path="/rpc/watcher_beat$", times=None)
        beat.wait_reached(count=3)
        assert len(watcher.said("feed_lost")) == 1
        watcher.stop()


def test_a_postgres_that_restarts_under_it_loses_nothing(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        sandbox.faults.actions["postgres_restart"]()
        held.release()
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        later = inserted(person)
        audit(stage, person.wait_for(later, "published"), PHOTOS)
        watcher.stop()
    assert outcomes(stage, identity) == ["published"]


@pytest.mark.parametrize("place", ["create", "upload", "commit", "fetch", "reserve", "complete"])
def test_an_error_or_two_are_forgiven_within_the_attempt(
    stage: Stage, sandbox: Sandbox, person: Person, place: str
) -> None:
    sandbox.faults.add(Answer(500, "trouble"), **at(place), times=1)
    sandbox.faults.add(Cut("request", after=0), **at(place), times=1)
    identity = inserted(person)
    with Watcher(stage) as watcher:
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()
    assert outcomes(stage, identity) == ["published"]


def test_a_hub_in_trouble_for_longer_is_tried_again_later(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    trouble = sandbox.faults.add(Answer(503, "away", _PATIENTLY), **at("create"), times=None)
    identity = inserted(person)
    with Watcher(stage) as watcher:
        deferred = person.wait_until(identity, lambda row: row["next_attempt_at"] is not None)
        assert deferred["status"] == "pending"
        assert stage.story(identity)["spent"] == 1
        sandbox.faults.remove(trouble)
        watcher.ready()
        _no_waiting(stage)
        # Its time has come, and a row falls due without anybody ringing: the next look finds it.
        inserted(person, "Eve")
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()
    assert outcomes(stage, identity) == ["deferred", "published"]


@pytest.mark.parametrize("everything", [True, False])
def test_a_hub_that_always_answers_500_ends_the_row_in_words(
    stage: Stage, sandbox: Sandbox, person: Person, everything: bool
) -> None:
    identity = inserted(person)
    with Watcher(stage, WATCHER_POLL_ALIVE="0.3") as watcher:
        watcher.ready()
        person.wait_for(identity, "published")
        person.delete(identity)
        stage.erase_due()
        path = None if everything else at("commit")["path"]
        trouble = sandbox.faults.add(Answer(500, "trouble", _PATIENTLY), service="hub", path=path, times=None)
        identity = inserted(person)
        for spent in range(1, 9):
            deferred = ["deferred"] * spent
            person.wait_until(identity, lambda row: outcomes(stage, identity)[:spent] == deferred)  # noqa: B023
            _no_waiting(stage)
        row = person.wait_for(identity, "failed")
        assert row["error_code"] == "attempts_exhausted"
        assert row["error_message"].startswith(
            "Gave up after 8 attempts. The last one: The Hub returned an error"
        )
        assert "trouble" in row["error_message"]
        assert row["model_id"] is None
        assert len(outcomes(stage, identity)) == 9

        # It gave its name up, and what may be behind it is erased once the Hub answers.
        assert len(stage.to_erase()) == 1
        sandbox.faults.remove(trouble)
        stage.erase_due()
        assert orphans(stage) == set()

        assert stage.rpc("watcher_replay", ids=[identity])["replayed"] == 1
        row = person.wait_for(identity, "published")
        audit(stage, row, PHOTOS)
        assert row["error_message"] is None
        watcher.stop()
    # Nothing goes past our log, in which secrets are struck out.
    assert all(line.startswith("{") for line in watcher.lines), watcher.text


def test_a_hub_that_asks_for_patience_is_given_it(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    sandbox.hub.knobs.exceed("commit")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()
    assert outcomes(stage, identity) == ["published"]


def test_a_repo_that_is_not_seen_at_once_is_waited_for(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    sandbox.hub.knobs.hide_new_repo(2)
    sandbox.hub.knobs.conflict(1)
    identity = inserted(person)
    with Watcher(stage) as watcher:
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        watcher.stop()
    assert len(stage.names()) == 1


def _no_waiting(stage: Stage) -> None:
    """Let every row that waits fall due now."""
    stage.sql("update public.trained_identities set next_attempt_at = now() where next_attempt_at > now()")
