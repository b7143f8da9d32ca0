"""The repo under its reserved name: others' are left alone, and ours is found again whatever happened meanwhile."""

import pytest
from huggingface_hub import CommitOperationAdd

from tests.acceptance.person import BUCKET, Person
from tests.acceptance.places import PHOTOS, at, hold, inserted, outcomes
from tests.acceptance.repo import audit, download, orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage, unique
from tests.support.pictures import jpeg
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer
from watcher.sandbox.hub.access import User


@pytest.mark.parametrize("private", [True, False])
def test_a_repo_of_somebody_elses_under_the_name_is_left_alone(
    stage: Stage, sandbox: Sandbox, person: Person, private: bool
) -> None:
    held = hold(sandbox, "create", "before")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        [taken] = stage.names()
        stage.api.create_repo(taken, private=private)
        if private:
            stage.api.create_commit(
                taken, [CommitOperationAdd("theirs.txt", b"theirs")], commit_message="Theirs"
            )
        before = stage.api.repo_info(taken).sha
        held.release()
        row = person.wait_for(identity, "published")
        watcher.stop()
    assert row["model_id"] != taken
    assert stage.api.repo_info(taken).sha == before
    name, _, second = taken.rpartition("-")
    assert row["model_id"] == f"{name}-{int(second) + 1}"
    assert [download(stage, row["model_id"])[f"images/image_{n:03}.jpg"] for n in (1, 2, 3)] == PHOTOS


@pytest.mark.parametrize("replaced", [True, False])
def test_a_photo_that_goes_after_the_commit_has_landed_changes_nothing(
    stage: Stage, sandbox: Sandbox, person: Person, replaced: bool
) -> None:
    instance = unique("gone")
    held = hold(sandbox, "commit", "after")
    identity = inserted(person)
    with Watcher(stage, instance) as watcher:
        held.wait_reached()
        watcher.kill()
    sandbox.faults.remove(held)
    objects = stage.admin.storage.from_(BUCKET)
    gone = person.row(identity)["image_paths"][1]
    objects.remove([gone])
    if replaced:
        objects.upload(gone, jpeg(seed=99), {"content-type": "image/jpeg"})
    with Watcher(stage, instance) as again:
        audit(stage, person.wait_for(identity, "published"), PHOTOS)
        again.stop()
    assert outcomes(stage, identity) == ["crashed", "published"]


def test_a_photo_that_is_gone_for_fifteen_seconds_fails_the_row_and_leaves_no_repo(
    stage: Stage, person: Person
) -> None:
    identity = inserted(person)
    stage.admin.storage.from_(BUCKET).remove([person.row(identity)["image_paths"][2]])
    with Watcher(stage) as watcher:
        row = person.wait_for(identity, "failed")
        stage.erase_due()
        watcher.stop()
    assert row["error_code"] == "image_missing"
    assert "Image 3 (photo.jpg)" in row["error_message"]
    assert not orphans(stage)


def test_in_another_namespace_it_begins_anew_and_the_empty_repo_goes_once_the_old_one_is_served(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    sandbox.hub.access._users["hf_member"] = User(sandbox.hub_user, orgs={"acme": "write"})
    instance = unique("moved")
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    with Watcher(stage, instance) as watcher:
        held.wait_reached()
        watcher.kill()
    sandbox.faults.remove(held)
    [first] = stage.names()
    assert stage.api.repo_exists(first)
    with Watcher(stage, instance, HF_NAMESPACE="acme", HF_TOKEN="hf_member") as again:
        row = person.wait_for(identity, "published")
        again.stop()
    assert row["model_id"].startswith("acme/identity-ada-")
    assert stage.to_erase() == {first}, "Its token need not be valid for the old namespace."
    with Watcher(stage, instance) as back:
        stage.erase_due()
        back.stop()
    assert stage.names().keys() == {row["model_id"]}
    assert not stage.api.repo_exists(first)
    sandbox_token, stage.token = stage.token, "hf_member"
    try:
        stage.api.token = stage.token
        audit(stage, row, PHOTOS)
        stage.api.delete_repo(row["model_id"])
    finally:
        stage.token = stage.api.token = sandbox_token


def test_what_the_hub_refuses_to_take_fails_the_row_and_leaves_no_repo(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    sandbox.faults.add(Answer(400, {"error": "This is not to our taste."}), **at("commit"), times=None)
    identity = inserted(person)
    with Watcher(stage) as watcher:
        row = person.wait_for(identity, "failed")
        stage.erase_due()
        watcher.stop()
    assert row["error_code"] == "hub_refused"
    assert "not to our taste" in row["error_message"]
    assert not orphans(stage)
