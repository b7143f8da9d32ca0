"""Repos behind names that were given up: gone, and seen to be gone, also where a request lands late; nobody else's."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.support.deprecations import CONTENT
from tests.support.scene import PICTURES, Scene, carry, claim
from tests.support.waiting import until
from watcher.engine.attempt import Attempts
from watcher.engine.lease import Leases
from watcher.erasing.eraser import Eraser
from watcher.errors import LeaseLost, Outage
from watcher.sandbox.faults import Answer, Delay, Hold, LoseAnswer
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT

GIF = b"GIF89a" + bytes(99)


async def abandoned(
    scene: Scene, verbs: Verbs, *, answered: bool = True, namespace: str = "sandbox"
) -> tuple[UUID, str]:
    """A row that failed for good, and the name that it had."""
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    name = await verbs.reserve(attempt, namespace, "ada")
    await verbs.fail(attempt, "hub_refused", "No.", answered=answered)
    return identity, name


def lines(scene: Scene) -> int:
    count = scene.database.value("select count(*) from watcher.erase_lines")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("state", ["ours", "empty", "absent"])
async def test_a_repo_that_was_made_for_the_row_is_deleted(
    scene: Scene, verbs: Verbs, attempts: Attempts, state: str
) -> None:
    identity, name = await abandoned(scene, verbs)
    if state != "absent":
        scene.make_repo(name)
    if state == "ours":
        scene.write(name, message=f"Identity: {identity}")
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    assert scene.database.outcomes(identity, "erase") == ["erased"]
    assert lines(scene) == 0
    assert len(scene.seen("DELETE", "/api/repos/delete")) == (state != "absent")


@pytest.mark.parametrize("private", [True, False])
async def test_a_repo_of_somebody_else_is_left_alone(
    scene: Scene, verbs: Verbs, attempts: Attempts, private: bool
) -> None:
    _, name = await abandoned(scene, verbs)
    scene.make_repo(name, private=private)
    if private:
        scene.write(name, message="Identity: of another row")
    await carry(attempts, verbs, "erase")
    assert scene.repos() == [name]
    assert scene.seen("DELETE", "/api/repos/delete") == []
    assert lines(scene) == 0


async def test_without_a_valid_token_nothing_is_taken_for_gone(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, name = await abandoned(scene, verbs)
    scene.make_repo(name)
    scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
    scene.sandbox.faults.add(Answer(404, {"error": "Repository not found"}), path="/commits/", times=None)
    with pytest.raises(Outage):
        await carry(attempts, verbs, "erase")
    assert scene.database.outcomes(identity, "erase") == ["released"]
    scene.sandbox.faults.clear()
    scene.sandbox.hub.access.restore(scene.sandbox.hub_token)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []


async def test_a_repo_in_another_namespace_does_not_hold_up_the_others(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    await verbs.reserve(attempt, "acme", "ada")
    name = await verbs.reserve(attempt, "sandbox", "ada")
    await verbs.fail(attempt, "hub_refused", "No.", answered=True)
    scene.make_repo(name)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    assert scene.database.outcomes(identity, "erase") == ["deferred"]
    reason = scene.database.work(identity, "erase")["last_reason"]
    assert "in the namespace acme, which HF_TOKEN cannot write to" in reason


@pytest.mark.parametrize("fault", [LoseAnswer(), LoseAnswer(504), Answer(503)], ids=["lost", "504", "503"])
async def test_a_deletion_whose_answer_was_lost_is_made_again(
    scene: Scene, verbs: Verbs, attempts: Attempts, fault: Any
) -> None:
    identity, name = await abandoned(scene, verbs)
    scene.make_repo(name)
    scene.sandbox.faults.add(fault, service="hub", method="DELETE")
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    [attempt] = scene.database.attempts(identity, "erase")
    assert (attempt["outcome"], attempt["answered"]) == ("erased", False)


async def test_a_repo_that_is_still_shown_is_not_taken_for_gone(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, name = await abandoned(scene, verbs)
    scene.make_repo(name)
    scene.sandbox.faults.add(Answer(200, {}), service="hub", method="DELETE")
    await carry(attempts, verbs, "erase")
    assert scene.database.outcomes(identity, "erase") == ["deferred"]
    assert lines(scene) == 1


async def test_nothing_is_deleted_once_the_lease_is_lost(scene: Scene, verbs: Verbs, eraser: Eraser) -> None:
    _, name = await abandoned(scene, verbs)
    scene.make_repo(name)
    claimed = await claim(verbs, kind="erase")
    held = scene.sandbox.faults.add(Hold("after"), service="hub", path="/commits/")
    leases = Leases(verbs, length=20, renewal=5)
    with pytest.raises(LeaseLost):
        async with leases.held(claimed.attempt, requested_at=asyncio.get_running_loop().time()) as lease:
            task = asyncio.create_task(eraser.carry(claimed, lease))
            await asyncio.to_thread(held.wait_reached)
            lease.revoke()
            held.release()
            await task
    assert scene.repos() == [name]


async def test_a_row_that_fails_gives_its_repo_to_be_erased(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert([*PICTURES, GIF])
    slow = Delay(0.2)  # so that the repo is there before the verdict
    scene.sandbox.faults.add(slow, service="storage", path="photo%204|photo 4", times=None)
    await carry(attempts, verbs, "publish")
    assert scene.database.row(identity)["model_id"] is None
    [_] = scene.repos()
    assert scene.seen("DELETE", "/api/repos/delete") == []
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []


async def test_a_repo_whose_creation_lands_late_goes_at_the_second_look(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    held = scene.sandbox.faults.add(Hold("before"), service="hub", path="/api/repos/create")
    identity = scene.insert([*PICTURES, GIF])
    await carry(attempts, verbs, "publish")
    assert (scene.database.status(identity), scene.repos()) == ("failed", [])
    await carry(attempts, verbs, "erase")
    assert lines(scene) == 1
    held.release()
    await until(scene.repos)
    scene.database.pass_time(150)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    assert lines(scene) == 0
    assert scene.database.outcomes(identity, "erase") == ["erased", "erased"]


async def test_a_repo_whose_creation_was_lost_goes_though_the_next_one_was_refused(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    """Seed 7144: the Hub did not show the repo yet, and of the creations only the last was looked behind."""
    identity = scene.insert()
    scene.sandbox.hub.knobs.hide_new_repo(2)
    scene.sandbox.faults.add(LoseAnswer(), service="hub", path="/api/repos/create")
    scene.sandbox.faults.add(Answer(422, {"error": "No."}), service="hub", path="/api/repos/create", skip=1)
    # Somebody else was accepted meanwhile, so that it is the row's fault.
    scene.database.overwrite(
        "insert into watcher.rejections (identity_id, first_at) values (%s, now() - interval '1 hour')",
        [identity],
    )
    other = scene.insert()
    scene.database.overwrite(
        "update public.trained_identities set status = 'published', published_at = now(), model_id = 'a/b', "
        "huggingface_repo_url = 'x', commit_sha = 'c', training_config = '{}', images_published = 3 where id = %s",
        [other],
    )
    scene.database.overwrite("delete from watcher.work where identity_id = %s", [other])
    await carry(attempts, verbs, "publish")
    assert scene.database.row(identity)["error_code"] == "hub_refused"
    for _ in range(2):
        await carry(attempts, verbs, "erase")
        scene.database.pass_time(150)
    assert scene.repos() == []
    assert lines(scene) == 0


async def test_a_deletion_that_lands_late_harms_nobody(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    """0.1.0 deleted in the attempt that published: the row was retried under the same name, then its repo was gone."""
    identity, name = await abandoned(scene, verbs)
    scene.make_repo(name)
    held = scene.sandbox.faults.add(Hold("before"), service="hub", method="DELETE")
    erasing = asyncio.create_task(carry(attempts, verbs, "erase"))
    await asyncio.to_thread(held.wait_reached)
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)
    scene.database.run("update public.trained_identities set status = 'pending'")
    await carry(attempts, verbs, "publish")
    held.release()
    await until(lambda: name not in scene.repos())
    row = scene.database.row(identity)
    assert row["status"] == "published"
    assert scene.repos() == [row["model_id"]]
    assert len(scene.commits(row["model_id"])) == 2
    await carry(attempts, verbs, "erase")
    assert scene.repos() == [row["model_id"]]


async def test_many_things_are_one_claim(scene: Scene, verbs: Verbs, attempts: Attempts) -> None:
    identity, first = await abandoned(scene, verbs)
    scene.database.run("update public.trained_identities set status = 'pending'")
    again = await claim(verbs)
    second = await verbs.reserve(again.attempt, "sandbox", "ada")
    await verbs.fail(again.attempt, "hub_refused", "No.", answered=True)
    for name in (first, second):
        scene.make_repo(name)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    assert scene.database.work(identity, "erase") == {}
