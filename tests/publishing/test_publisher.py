"""A row's way to its repo: one commit whatever happens on it, and nothing left behind that nobody owns."""

import asyncio
import threading
from dataclasses import replace

import pytest

from tests.support.deprecations import CONTENT
from tests.support.pictures import jpeg
from tests.support.scene import PICTURES, Scene, claim
from tests.support.waiting import until
from watcher.engine.lease import Leases
from watcher.errors import LeaseLost, Permanent, Refused, Transient
from watcher.identity import Claim, Publication
from watcher.publishing.publisher import Publisher
from watcher.sandbox.faults import Answer, Cache, Hold, LoseAnswer
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT


async def publish(publisher: Publisher, claimed: Claim) -> Publication:
    leases = Leases(publisher.verbs, length=20, renewal=5)
    async with leases.held(claimed.attempt, requested_at=asyncio.get_running_loop().time()) as lease:
        return await publisher.publish(claimed, lease)


def named(claim: Claim, name: str) -> Claim:
    """A claim whose row has this name reserved."""
    return replace(claim, details={**claim.details, "model_id": name})


async def again(scene: Scene, verbs: Verbs, attempt: int) -> Claim:
    """End the attempt and claim its row anew."""
    await verbs.release(attempt, "Again.", "unsure", answered=True)
    scene.sandbox.faults.reset()
    return await claim(verbs)


def files(scene: Scene, repo: str) -> list[str]:
    store = scene.sandbox.hub.store
    return list(store.files(scene.repo(repo), store.head(scene.repo(repo)).oid))


def content(scene: Scene, repo: str, number: int) -> bytes:
    """The bytes of an image in a repo."""
    store, found = scene.sandbox.hub.store, scene.repo(repo)
    file = store.files(found, store.head(found).oid)[f"images/image_{number:03}.jpg"]
    return store.bytes.content(found.id, file).read_bytes()


async def test_everything_is_in_one_commit_on_top_of_the_initial_one(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    identity = scene.insert([jpeg(number) for number in range(12)], name="Zoë")
    publication = await publish(publisher, await claim(verbs))
    [repo] = scene.repos()
    assert publication.url == f"{scene.sandbox.hub_url}/{repo}"
    assert repo == scene.database.row(identity)["model_id"]
    assert repo.startswith("sandbox/identity-zoe-")
    assert scene.commits(repo) == ["Upload training data for Zoë (12 images)", "initial commit"]
    images = [f"images/image_{number:03}.jpg" for number in range(1, 13)]
    assert files(scene, repo) == [".gitattributes", "README.md", *images, "training_config.json"]
    assert len(scene.seen("PUT", "/_lfs/")) == 12
    assert len(scene.seen("GET", "/object/authenticated/")) == 12


async def test_repos_are_created_one_after_the_other_and_not_for_whoever_has_lost_the_row_meanwhile(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    for _ in range(2):
        scene.insert()
    held = scene.sandbox.faults.add(Hold("before"), service="hub", path="/api/repos/create")
    first = asyncio.create_task(publish(publisher, await claim(verbs)))
    await asyncio.to_thread(held.wait_reached)
    leases, second = Leases(publisher.verbs, length=20, renewal=5), await claim(verbs)
    with pytest.raises(LeaseLost):
        async with leases.held(second.attempt, requested_at=asyncio.get_running_loop().time()) as lease:
            task = asyncio.create_task(publisher.publish(second, lease))
            await until(
                lambda: len(scene.seen("PUT", "/_lfs/")) + len(scene.seen("GET", "authenticated")) >= 6
            )
            await asyncio.sleep(0.05)
            assert len(scene.seen("POST", "/api/repos/create")) == 1
            lease.end()
            held.release()
            await task
    await first
    assert len(scene.seen("POST", "/api/repos/create")) == 1


async def test_a_row_that_is_published_already_is_looked_at_and_no_more(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    publication = await publish(publisher, claimed)
    second = await again(scene, verbs, claimed.attempt)
    assert await publish(publisher, second) == publication
    assert {one.method for one in scene.sandbox.faults.log() if one.service in {"hub", "storage"}} == {"GET"}
    assert scene.seen("GET", "/object/authenticated/") == []


@pytest.mark.parametrize("lost", [LoseAnswer(), LoseAnswer(504), LoseAnswer(500), LoseAnswer(412)])
async def test_a_commit_that_landed_though_its_answer_was_lost_is_not_made_again(
    scene: Scene, verbs: Verbs, publisher: Publisher, lost: LoseAnswer
) -> None:
    scene.insert()
    scene.sandbox.faults.add(lost, service="hub", path="/commit/")
    publication = await publish(publisher, await claim(verbs))
    [repo] = scene.repos()
    assert len(scene.commits(repo)) == 2
    assert publication.commit_sha == scene.sandbox.hub.store.head(scene.repo(repo)).oid
    assert len(scene.seen("POST", "/commit/")) == 1
    assert len(scene.seen("PUT", "/_lfs/")) == 3


async def test_a_commit_that_landed_for_a_dead_attempt_is_adopted_without_moving_an_image(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    landed = scene.sandbox.faults.add(Hold("after"), service="hub", path="/commit/")
    dying = asyncio.create_task(publish(publisher, claimed))
    await asyncio.to_thread(landed.wait_reached)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    second = await again(scene, verbs, claimed.attempt)
    publication = await publish(publisher, second)
    [repo] = scene.repos()
    assert publication.commit_sha == scene.sandbox.hub.store.head(scene.repo(repo)).oid
    assert len(scene.commits(repo)) == 2
    assert (
        scene.seen("GET", "/object/") == scene.seen("PUT", "/_lfs/") == scene.seen("POST", "/commit/") == []
    )


async def test_a_commit_refused_without_reason_is_made_after_a_fresh_look(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    scene.sandbox.faults.add(Answer(412, {"error": "somebody"}), service="hub", path="/commit/")
    await publish(publisher, await claim(verbs))
    assert len(scene.commits(scene.repos()[0])) == 2


async def test_a_cache_in_front_of_storage_defers_a_row_until_it_lets_go(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    user, paths = scene.put()
    cache = scene.sandbox.faults.add(Cache(stubborn=True), service="storage", path="/object/", times=None)
    for path in paths:
        scene.read(path)
    for number, path in enumerate(paths):
        scene.replace(path, jpeg(70 + number))
    scene.database.insert(user, paths)
    claimed = await claim(verbs)
    with pytest.raises(Transient, match="is not what was uploaded"):
        await publish(publisher, claimed)
    assert scene.seen("PUT", "/_lfs/") == []
    scene.sandbox.faults.remove(cache)
    await publish(publisher, await again(scene, verbs, claimed.attempt))
    [repo] = scene.repos()
    assert [content(scene, repo, number) for number in (1, 2, 3)] == [jpeg(70), jpeg(71), jpeg(72)]


async def test_a_row_that_failed_by_an_image_is_judged_whole_before_anything_goes_up(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    user, paths = scene.put([jpeg(1), jpeg(2), b"GIF89a" + bytes(99)])
    identity = scene.database.insert(user, paths)
    claimed = await claim(verbs)
    with pytest.raises(Permanent) as failed:
        await publish(publisher, claimed)
    failure = failed.value
    await verbs.fail(claimed.attempt, failure.code, str(failure), image=failure.image, answered=True)
    assert scene.database.row(identity)["error_image"] == 3
    held = scene.sandbox.faults.add(Hold("before"), service="storage", path=f"{paths[2]}$")
    scene.database.run("update public.trained_identities set status = 'pending' where id = %s", [identity])
    assert scene.database.row(identity)["error_image"] is None
    scene.sandbox.faults.reset()
    second = await claim(verbs)
    publishing = asyncio.create_task(publish(publisher, second))
    await asyncio.to_thread(held.wait_reached)
    await until(lambda: len(scene.seen("GET", "/object/authenticated/")) == 3)
    held.release()
    with pytest.raises(Permanent):
        await publishing
    assert not [one for one in scene.sandbox.faults.log() if one.service == "hub" and one.method != "GET"]


@pytest.mark.parametrize("private", [True, False])
async def test_a_repo_of_somebody_else_under_our_name_is_left_alone(
    scene: Scene, verbs: Verbs, publisher: Publisher, private: bool
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    taken = await verbs.reserve(claimed.attempt, "sandbox", "ada")
    scene.make_repo(taken, private=private)
    if private:
        scene.write(taken)
    before = scene.commits(taken)
    publication = await publish(publisher, named(claimed, taken))
    assert scene.commits(taken) == before
    stem, _, seconds = taken.rpartition("-")
    assert publication.url.endswith(f"/{stem}-{int(seconds) + 1}")
    assert len(scene.repos()) == 2


async def test_a_name_that_the_hub_gave_away_before_it_was_ours_moves_on(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    identity = scene.insert()
    taken = f"sandbox/identity-ada-{int(scene.database.row(identity)['created_at'].timestamp())}"
    scene.make_repo(taken, private=False)
    await publish(publisher, await claim(verbs))
    assert scene.commits(taken) == ["initial commit"]
    assert scene.database.row(identity)["model_id"] in set(scene.repos()) - {taken}


async def test_an_empty_repo_that_an_attempt_left_is_used(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    name = await verbs.reserve(claimed.attempt, "sandbox", "ada")
    scene.make_repo(name)
    await publish(publisher, named(claimed, name))
    assert scene.repos() == [name]
    assert len(scene.commits(name)) == 2


@pytest.mark.parametrize("trouble", ["hidden", "lost", "conflict"])
async def test_a_creation_that_went_astray_ends_in_one_private_repo(
    scene: Scene, verbs: Verbs, publisher: Publisher, trouble: str
) -> None:
    scene.insert()
    if trouble == "hidden":
        scene.sandbox.hub.knobs.hide_new_repo(reads=1)
    elif trouble == "lost":
        scene.sandbox.faults.add(LoseAnswer(), service="hub", path="/api/repos/create")
    else:
        scene.sandbox.hub.knobs.conflict()
    await publish(publisher, await claim(verbs))
    [repo] = scene.repos()
    assert scene.repo(repo).private


async def test_a_name_reserved_under_another_namespace_is_replaced(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    identity = scene.insert()
    claimed = await claim(verbs)
    old = await verbs.reserve(claimed.attempt, "acme", "ada")
    await publish(publisher, named(claimed, old))
    assert scene.database.row(identity)["model_id"].startswith("sandbox/identity-ada-")
    assert scene.database.value("select count(*) from watcher.names") == 2


async def test_a_row_that_fails_for_good_deletes_nothing_by_itself(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert([*PICTURES, b"GIF89a" + bytes(99)])
    with pytest.raises(Permanent) as caught:
        await publish(publisher, await claim(verbs))
    assert caught.value.code == "image_not_jpeg_or_png"
    assert str(caught.value).startswith("Image 4 (photo 4.jpg)")
    assert scene.seen("POST", "/commit/") == []
    assert scene.seen("DELETE", "/api/repos/delete") == []


async def test_a_row_that_fails_waits_for_no_creation_that_is_still_under_way(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert([b"GIF89a" + bytes(99), *PICTURES])
    held = scene.sandbox.faults.add(Hold("before"), service="hub", path="/api/repos/create")
    with pytest.raises(Permanent):
        await asyncio.wait_for(publish(publisher, await claim(verbs)), 5)
    held.release()
    await until(lambda: not any(thread.name == "hub" for thread in threading.enumerate()))


async def test_what_the_hub_refuses_for_good_is_published_if_a_look_finds_it(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    scene.sandbox.faults.add(LoseAnswer(400, {"error": "no"}), service="hub", path="/commit/")
    await publish(publisher, await claim(verbs))
    assert len(scene.commits(scene.repos()[0])) == 2


@pytest.mark.parametrize("state", ["ours", "empty", "absent", "foreign"])
async def test_a_row_whose_budget_is_spent_is_only_looked_at(
    scene: Scene, verbs: Verbs, publisher: Publisher, state: str
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    name = await verbs.reserve(claimed.attempt, "sandbox", "ada")
    if state != "absent":
        scene.make_repo(name)
    if state in {"ours", "foreign"}:
        scene.write(name, message=f"Identity: {claimed.identity_id if state == 'ours' else 'x'}")
    spent = replace(named(claimed, name), look_only=True, exhausted="Gave up after 8 attempts.")
    if state == "ours":
        assert (await publish(publisher, spent)).url.endswith(name)
    else:
        with pytest.raises(Permanent, match="Gave up after 8 attempts") as caught:
            await publish(publisher, spent)
        assert caught.value.code == "attempts_exhausted"
    assert scene.repos() == ([] if state == "absent" else [name])
    assert scene.seen("DELETE", "/api/repos/delete") == []
    assert scene.seen("GET", "/object/") == []


async def test_no_commit_is_made_once_the_lease_is_lost(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    held = scene.sandbox.faults.add(Hold("after"), service="hub", path="/info/lfs/objects/batch")
    leases = Leases(verbs, length=20, renewal=5)
    with pytest.raises(LeaseLost):
        async with leases.held(claimed.attempt, requested_at=asyncio.get_running_loop().time()) as lease:
            task = asyncio.create_task(publisher.publish(claimed, lease))
            await asyncio.to_thread(held.wait_reached)
            lease.revoke()
            held.release()
            await task
    # The library's thread cannot be called back; it ends by itself, as its files are gone.
    await until(lambda: not any(thread.name == "hub" for thread in threading.enumerate()))
    assert scene.seen("POST", "/commit/") == []


async def test_a_hub_that_is_away_is_for_later_and_one_that_refuses_us_may_refuse_everybody(
    scene: Scene, verbs: Verbs, publisher: Publisher
) -> None:
    scene.insert()
    claimed = await claim(verbs)
    scene.sandbox.faults.add(Answer(503), service="hub", path="/commit/", times=None)
    with pytest.raises(Transient):
        await publish(publisher, claimed)
    second = await again(scene, verbs, claimed.attempt)
    scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
    with pytest.raises(Refused):
        await publish(publisher, second)
    assert scene.seen("DELETE", "/api/repos/delete") == []


async def test_the_spool_is_empty_after_every_end(scene: Scene, verbs: Verbs, publisher: Publisher) -> None:
    scene.insert()
    claimed = await claim(verbs)
    with publisher.spool.folder(claimed.attempt) as folder:
        spool = folder.parent
    await publish(publisher, claimed)
    assert [file.name for file in spool.iterdir()] == ["lock"]
