"""Told to stop: no new row is begun, what runs is finished or given back unspent, and it ends in time with 0."""

import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.person import Person
from tests.acceptance.places import PHOTOS, at, hold, inserted, outcomes
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.waiting import wait_until
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer, Hang, Hold


@pytest.mark.usefixtures("heeds_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_idle_it_ends_at_once(stage: Stage, number: signal.Signals) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        watcher.send(number)
        assert watcher.wait() == 0
        assert watcher.said("stopped", left=0)
        assert "Traceback" not in watcher.text


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="sees in /proc whether a signal is caught")
def test_told_while_it_is_still_starting_it_ends_with_0(stage: Stage) -> None:
    with Watcher(stage) as measured:
        until_it_catches(measured, signal.SIGTERM)
        begun = time.monotonic()
        measured.wait_for("ready")
        start = time.monotonic() - begun
        measured.stop()
    assert start > 0.1, "It listens before it imports what takes so long."
    for part in (0, 0.25, 0.5, 0.75, 0.9, 1):
        with Watcher(stage) as watcher:
            until_it_catches(watcher, signal.SIGTERM)
            time.sleep(start * part)
            watcher.stop()
            assert "Traceback" not in watcher.text


def until_it_catches(watcher: Watcher, number: signal.Signals) -> None:
    status = Path(f"/proc/{watcher.process.pid}/status")

    def catches() -> bool:
        [caught] = [line for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    wait_until(catches, pause=0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_again_and_again_until_it_is_gone_it_ends_with_0(stage: Stage, number: signal.Signals) -> None:
    for _ in range(3):
        with Watcher(stage) as watcher:
            watcher.wait_for("ready")

            def told_again() -> bool:
                watcher.send(number)
                return watcher.process.poll() is not None

            wait_until(told_again, pause=0.0005)
            assert watcher.wait() == 0
            assert "Traceback" not in watcher.text


def test_nothing_is_claimed_after_the_signal(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]
    with Watcher(stage, WATCHER_POLL="0.1", WATCHER_POLL_ALIVE="0.1") as watcher:
        watcher.ready()
        # All its slots taken and more rows due than it has slots; each that ends would be followed by a claim.
        held = sandbox.faults.add(Hold("before"), **at("upload"), times=None)
        rows = [person.insert("Ada", photos) for _ in range(6)]
        watcher.wait_for("claimed", count=4)
        watcher.send(signal.SIGTERM)
        watcher.wait_for("stopping")
        before = claims(sandbox)
        rows.append(person.insert("Ada", photos))
        sandbox.faults.remove(held)
        assert watcher.wait() == 0
        assert claims(sandbox) <= before + 1, "One may have been on its way."
    statuses = [person.row(identity)["status"] for identity in rows]
    assert set(statuses) == {"published", "pending"}
    assert statuses[-1] == "pending"
    assert all(outcomes(stage, identity) in ([], ["published"]) for identity in rows)


def claims(sandbox: Sandbox) -> int:
    return sum(one.path.endswith("/rpc/watcher_claim") for one in sandbox.faults.log())


def test_a_running_row_is_finished_and_no_other_begun(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        watcher.wait_for("feed_alive")
        watcher.send(signal.SIGTERM)
        watcher.wait_for("stopping", running=1)
        late = inserted(person)
        time.sleep(0.5)
        assert watcher.process.poll() is None
        held.release()
        assert watcher.wait() == 0
    audit(stage, person.row(identity), PHOTOS)
    assert person.row(late)["status"] == "pending"
    assert outcomes(stage, late) == []


def test_all_that_is_given_back_goes_on_elsewhere_at_once_and_unspent(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]
    with Watcher(stage) as watcher:
        watcher.ready()
        held = sandbox.faults.add(Hold("before"), **at("commit"), times=None)
        rows = [person.insert("Ada", photos) for _ in range(4)]
        held.wait_reached(count=4)
        with Watcher(stage, WATCHER_POLL_ALIVE="600") as other:
            other.ready()
            watcher.send(signal.SIGTERM)
            watcher.wait_for("stopping", running=4)
            watcher.send(signal.SIGTERM)
            assert watcher.wait() == 0
            for identity in rows:
                other.wait_for("claimed", identity=identity)
            assert [stage.story(identity)["spent"] for identity in rows] == [1] * 4
            sandbox.faults.remove(held)
            for identity in rows:
                audit(stage, person.wait_for(identity, "published"), PHOTOS)
            other.stop()
    assert [outcomes(stage, identity) for identity in rows] == [["released", "published"]] * 4


def test_a_row_that_is_given_back_has_spent_nothing(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    held = hold(sandbox, "commit", "before")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        watcher.send(signal.SIGTERM)
        watcher.wait_for("stopping")
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0
        assert list(watcher.spool.glob("attempt-*")) == []
    story = stage.story(identity)
    assert (story["status"], story["spent"], story["next_attempt_at"]) == ("pending", 0, None)
    assert story["attempts"][0]["reason"] == "The daemon was stopped."


@pytest.mark.parametrize("place", ["fetch", "create", "upload", "commit"])
def test_a_service_that_hangs_does_not_keep_it_beyond_its_grace(
    stage: Stage, sandbox: Sandbox, person: Person, place: str
) -> None:
    hung = sandbox.faults.add(Hang(), **at(place), times=None)
    identity = inserted(person)
    with Watcher(stage, WATCHER_GRACE="6") as watcher:
        hung.wait_reached()
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0
    story = stage.story(identity)
    assert (story["status"], story["spent"]) == ("pending", 0)
    assert outcomes(stage, identity) == ["released"]


def test_a_supabase_that_hangs_does_not_keep_it_beyond_its_grace_either(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    held = hold(sandbox, "commit", "before")
    identity = inserted(person)
    with Watcher(stage, WATCHER_GRACE="2") as watcher:
        held.wait_reached()
        sandbox.faults.add(Hang(), service="rest", path="/rpc/", times=None)
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0
    sandbox.faults.clear()
    assert person.row(identity)["status"] == "publishing"


def test_a_claim_that_hangs_does_not_keep_it_beyond_its_grace(stage: Stage, sandbox: Sandbox) -> None:
    with Watcher(stage, WATCHER_GRACE="2") as watcher:
        watcher.ready()
        hung = sandbox.faults.add(Hang(), **at("claim"), times=None)
        # Subscribed anew, it looks.
        sandbox.realtime.close_all()
        hung.wait_reached()
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0


def test_a_claim_that_was_under_way_is_given_back(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    held = hold(sandbox, "claim", "after")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        watcher.send(signal.SIGTERM)
        watcher.wait_for("stopping")
        held.release()
        assert watcher.wait() == 0
    story = stage.story(identity)
    assert (story["status"], story["spent"]) == ("pending", 0)
    assert outcomes(stage, identity) == ["released"]


def test_told_while_it_waits_for_an_outage_to_end_it_ends_at_once(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        sandbox.hub.access.revoke(sandbox.hub_token)
        try:
            identity = inserted(person)
            watcher.wait_for("outage")
            person.wait_for(identity, "pending")
            watcher.send(signal.SIGTERM)
            assert watcher.wait() == 0
        finally:
            sandbox.hub.access.restore(sandbox.hub_token)


def test_told_while_it_waits_for_a_service_at_the_start_it_ends_at_once(
    stage: Stage, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Answer(503), service="hub", times=None)
    with Watcher(stage) as watcher:
        watcher.wait_for("unreachable")
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0


def test_told_while_the_first_look_hangs_it_ends_within_its_grace(stage: Stage, sandbox: Sandbox) -> None:
    hung = sandbox.faults.add(Hold("before"), service="hub", path="whoami", times=None)
    with Watcher(stage, WATCHER_GRACE="2") as watcher:
        hung.wait_reached()
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0
