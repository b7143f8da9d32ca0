"""Failed rows tried again, by their users and by the operator; accounts and rows deleted at any time."""

from uuid import uuid4

import pytest
from postgrest.exceptions import APIError

from tests.acceptance.person import BUCKET, Person
from tests.acceptance.places import PHOTOS, hold, inserted, outcomes
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.pictures import jpeg
from watcher.sandbox import Sandbox

TRAINED = {"training": 0, "ready": 0}
"""Rows given that are being trained, or were."""


def _failed(person: Person, name: str = "Ada") -> tuple[str, str]:
    """A row that failed for its second photo, and the path of that one."""
    text = person.upload(b"no photo", "note.jpg")
    identity = person.insert(name, [person.upload(PHOTOS[0]), text, person.upload(PHOTOS[2])])
    person.wait_for(identity, "failed")
    return identity, text


def _mend(person: Person, path: str) -> None:
    objects = person.client.storage.from_(BUCKET)
    assert len(objects.remove([path])) == 1
    objects.upload(path, PHOTOS[1], {"content-type": "image/jpeg"})


def test_replay_tries_what_failed_and_counts_what_it_did(
    stage: Stage, person: Person, daemon: Watcher
) -> None:
    done = inserted(person, "Done")
    person.wait_for(done, "published")
    (first, text), (second, _) = _failed(person, "First"), _failed(person, "Second")
    before = {identity: person.row(identity) for identity in (done, first, second)}

    chosen = [done, first, str(uuid4())]
    would = stage.rpc("watcher_replay", ids=chosen, dry_run=True)
    code = before[first]["error_code"]
    assert would == {
        "replayed": 1,
        "codes": {code: 1},
        "published": 1,
        "pending": 0,
        "publishing": 0,
        **TRAINED,
        "last": None,
        "ids": [first],
    }
    assert stage.rpc("watcher_replay", user=person.id, code="image_missing")["replayed"] == 0
    assert {identity: person.row(identity) for identity in before} == before

    _mend(person, text)
    del would["ids"]
    assert stage.rpc("watcher_replay", ids=chosen) == would
    row = person.wait_for(first, "published")
    audit(stage, row, PHOTOS)
    assert row["created_at"] == before[first]["created_at"]
    assert outcomes(stage, first) == ["failed", "published"]
    assert [person.row(identity) for identity in (done, second)] == [before[done], before[second]]

    # Nothing was mended: it fails again, and says so anew.
    assert stage.rpc("watcher_replay", user=person.id, code=code)["replayed"] == 1
    person.wait_until(second, lambda row: len(outcomes(stage, second)) == 2 and row["status"] == "failed")
    assert outcomes(stage, second) == ["failed", "failed"]


def test_replay_leaves_a_running_row_alone(
    stage: Stage, sandbox: Sandbox, person: Person, daemon: Watcher
) -> None:
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    held.wait_reached()
    counts = stage.rpc("watcher_replay", ids=[identity])
    assert (
        counts
        == {"replayed": 0, "codes": {}, "published": 0, "pending": 0, "publishing": 1, "last": None} | TRAINED
    )
    held.release()
    audit(stage, person.wait_for(identity, "published"), PHOTOS)


def test_a_users_retry_is_claimed_at_once(stage: Stage, person: Person, daemon: Watcher) -> None:
    identity, text = _failed(person)
    _mend(person, text)
    assert [row["status"] for row in person.retry(identity)] == ["pending"]
    daemon.wait_for("claimed", identity=identity, count=2)
    audit(stage, person.wait_for(identity, "published"), PHOTOS)
    # It is published: there is nothing to retry.
    with pytest.raises(APIError, match="An identity that is published cannot become pending"):
        person.retry(identity)


def test_an_account_can_be_deleted_at_any_time(stage: Stage, sandbox: Sandbox, daemon: Watcher) -> None:
    for place, when in (
        ("create", "after"),
        ("upload", "before"),
        ("commit", "after"),
        ("complete", "before"),
    ):
        somebody = Person(stage)
        held = hold(sandbox, place, "before" if when == "before" else "after")
        identity = inserted(somebody)
        held.wait_reached()
        stage.admin.auth.admin.delete_user(somebody.id)
        stage.users.remove(somebody.id)
        sandbox.faults.remove(held)
        daemon.wait_for("lease_lost", identity=identity)
        assert stage.rpc("watcher_story", id=identity) is None
        assert identity in stage.names().values()
    # It does not mind.
    other = Person(stage)
    photos = [jpeg(seed=n) for n in range(5)]
    audit(stage, other.wait_for(other.insert("Eve", [other.upload(p) for p in photos]), "published"), photos)


def test_the_verbs_refuse_whoever_does_not_hold_the_row(
    stage: Stage, person: Person, daemon: Watcher
) -> None:
    row = person.wait_for(inserted(person), "published")
    [attempt] = [attempt["number"] for attempt in stage.story(row["id"])["attempts"]]
    again = {"attempt": attempt, "url": "https://example.com", "commit_sha": "0", "training_config": {}}
    # The same once more is done already; anything else comes too late.
    assert stage.rpc("watcher_complete", **again) == "done"
    assert stage.rpc("watcher_fail", attempt=attempt, code="hub_refused", message="x") == "lost"
    assert stage.rpc("watcher_defer", attempt=attempt, reason="x") == "lost"
    assert stage.rpc("watcher_release", attempt=attempt, reason="x") == "lost"
    assert stage.rpc("watcher_reserve", attempt=attempt, namespace="x", slug="x") is None
    assert stage.rpc("watcher_complete", **{**again, "attempt": attempt + 999}) == "lost"
    renewed = stage.rpc("watcher_renew", progress={attempt: {"images_published": 1}}, lease_seconds=20)
    assert renewed == {"held": [], "busy": []}
    assert person.row(row["id"]) == row


def test_status_says_what_waits_and_what_failed(stage: Stage, person: Person, daemon: Watcher) -> None:
    _failed(person)
    person.wait_for(inserted(person), "published")
    status = stage.rpc("watcher_status")
    assert status["failed"]["image_not_jpeg_or_png"] >= 1
    assert status["published_24h"] >= 1
    assert status["publishing"] == []
