"""A deleted row, carried by real attempts: all of it is gone, and nothing is taken for gone too early."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import structlog

from tests.support.deprecations import CONTENT
from tests.support.scene import PICTURES, Scene, carry
from tests.support.waiting import until
from watcher.engine.attempt import Attempts
from watcher.erasing.sweeper import Sweeper
from watcher.errors import Outage
from watcher.sandbox.faults import Answer, Cut, Hold, LoseAnswer
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT

DELETE = "delete from public.trained_identities where id = %s"


async def published(scene: Scene, verbs: Verbs, attempts: Attempts) -> tuple[UUID, str]:
    identity = scene.insert()
    await carry(attempts, verbs, "publish")
    return identity, scene.database.row(identity)["model_id"]


def delete(scene: Scene, identity: UUID) -> None:
    user = scene.database.row(identity)["user_id"]
    scene.database.run(DELETE, [identity], role="authenticated", user=user)


def left(scene: Scene) -> dict[str, object]:
    """All that is left anywhere of what was to go."""
    store = scene.sandbox.hub.store
    count = scene.database.value
    things = {
        "repos": scene.repos(),
        "large files": store.bytes.uncollected(),
        "photos": count("select count(*) from storage.objects"),
        "names": count("select count(*) from watcher.names"),
        "lines": count("select count(*) from watcher.erase_lines"),
        "open": count("select count(*) from watcher.erasures where finished_at is null"),
    }
    return {thing: what for thing, what in things.items() if what}


async def test_a_published_row_that_is_deleted_is_gone_everywhere(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}
    [receipt] = scene.database.run("select * from watcher.erasures")
    assert (receipt["repos"], receipt["photos"]) == (1, 3)


async def test_a_repo_that_is_deleted_alone_leaves_its_large_files(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    """What the sandbox imitates, so that the other tests can see it."""
    _, name = await published(scene, verbs, attempts)
    scene.sandbox.hub.store.delete(scene.repo(name))
    assert len(scene.sandbox.hub.store.bytes.uncollected()) == 3


async def test_a_row_that_waits_and_one_that_failed_are_gone(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    failing = scene.insert([*PICTURES, b"GIF89a"])
    await carry(attempts, verbs, "publish")
    waiting = scene.insert()
    delete(scene, waiting)
    delete(scene, failing)
    for _ in range(2):
        await carry(attempts, verbs, "erase")
    scene.database.pass_time(170)
    for _ in scene.database.run("select 1 from watcher.work where kind = 'erase'"):
        await carry(attempts, verbs, "erase")
    assert left(scene) == {}


@pytest.mark.parametrize("place", ["/api/repos/create", "/commit/main"])
async def test_what_lands_late_after_the_deletion_goes_when_it_is_looked_at_again(
    scene: Scene, verbs: Verbs, attempts: Attempts, place: str
) -> None:
    identity = scene.insert()
    held = scene.sandbox.faults.add(Hold("before"), service="hub", path=place)
    publishing = asyncio.create_task(carry(attempts, verbs, "publish"))
    await asyncio.to_thread(held.wait_reached)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    scene.database.run(
        "update watcher.attempts set ended_at = null, outcome = null"
    )  # as if it had been killed
    delete(scene, identity)
    scene.database.pass_time(21)
    await carry(attempts, verbs, "erase")
    assert scene.database.value("select count(*) from watcher.erasures where finished_at is null") == 1
    before = len(scene.seen("POST", place))
    held.release()
    await until(lambda: scene.repos() or before)
    await asyncio.sleep(0.3)
    scene.database.pass_time(150)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


async def test_storage_that_says_yes_and_does_nothing_is_not_believed(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    scene.sandbox.faults.add(Answer(200, []), service="storage", method="DELETE")
    await carry(attempts, verbs, "erase")
    assert scene.database.outcomes(identity, "erase") == ["deferred"]
    reason = scene.database.work(identity, "erase")["last_reason"]
    assert reason == "Supabase Storage still has 3 of 3 pictures that it was told to delete."
    scene.database.pass_time(30)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


@pytest.mark.parametrize("fault", [LoseAnswer(), LoseAnswer(500), Cut("request"), Answer(503)], ids=str)
@pytest.mark.parametrize("place", ["/object/identity-images$", "/lfs-files/batch", "/api/repos/delete"])
async def test_an_answer_that_is_lost_is_asked_for_again(
    scene: Scene, verbs: Verbs, attempts: Attempts, place: str, fault: object
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    scene.sandbox.faults.add(fault, path=place)  # type: ignore[arg-type]
    await carry(attempts, verbs, "erase")
    assert set(left(scene)) <= {"lines", "open"}, "The photos' paths are refused for a while."
    scene.database.pass_time(150)
    for _ in scene.database.run("select 1 from watcher.work where kind = 'erase'"):
        await carry(attempts, verbs, "erase")
    assert left(scene) == {}


@pytest.mark.parametrize("killed", [False, True])
async def test_a_path_is_refused_while_a_deletion_of_ours_may_still_land(
    scene: Scene, verbs: Verbs, attempts: Attempts, killed: bool
) -> None:
    """Storage deletes by the key: the photo of a new row under the same path went with the old one's."""
    identity, _ = await published(scene, verbs, attempts)
    row = scene.database.row(identity)
    delete(scene, identity)
    held = scene.sandbox.faults.add(Hold("before"), service="storage", method="DELETE")
    erasing = asyncio.create_task(carry(attempts, verbs, "erase"))
    await asyncio.to_thread(held.wait_reached)
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)
    if killed:
        scene.database.run("update watcher.attempts set ended_at = null, outcome = null where kind = 'erase'")
        scene.database.run("update watcher.work set turn_at = null, next_at = null where kind = 'erase'")
        scene.database.pass_time(21)
    await carry(attempts, verbs, "erase")
    assert scene.database.value("select count(*) from storage.objects") == 0
    scene.database.store(row["image_paths"])
    with pytest.raises(psycopg.Error, match="is being deleted; upload it under another name"):
        scene.database.insert(row["user_id"], row["image_paths"])
    held.release()
    scene.database.pass_time(150)
    await carry(attempts, verbs, "erase")
    assert scene.database.value("select count(*) from watcher.erasures where finished_at is null") == 0
    assert scene.database.insert(row["user_id"], scene.database.upload(row["user_id"]))


async def test_trouble_with_photos_does_not_keep_the_repo(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    scene.sandbox.faults.add(Answer(503), service="storage", method="DELETE", times=None)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == []
    assert scene.database.outcomes(identity, "erase") == ["deferred"]


async def test_a_repo_whose_row_is_still_there_stays_and_the_reason_is_said(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    """A trigger of the app that sorts behind ours turns a deletion into a mark on the row."""
    identity, name = await published(scene, verbs, attempts)
    run = scene.database.run
    run("create function public.cancel() returns trigger language plpgsql as 'begin return null; end'")
    run(
        "create trigger z before delete on public.trained_identities for each row execute function public.cancel()"
    )
    try:
        delete(scene, identity)
    finally:
        run("drop function public.cancel() cascade")
    await carry(attempts, verbs, "erase")
    assert scene.repos() == [name]
    assert scene.database.value("select count(*) from storage.objects") == 3
    assert "cancelled the row's deletion" in scene.database.work(identity, "erase")["last_reason"]
    delete(scene, identity)
    scene.database.pass_time(30)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


async def test_a_locked_bucket_holds_nothing_up_for_good(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    with psycopg.connect(scene.database.dsn("supabase_admin")) as locker:
        locker.execute("lock table storage.objects in row exclusive mode")
        locker.execute("select from storage.objects for update")
        erasing = asyncio.create_task(carry(attempts, verbs, "erase"))
        await until(lambda: scene.seen("DELETE", "/object/identity-images"))
        locker.rollback()
    await erasing
    assert left(scene) == {}


async def test_a_refusal_about_one_repo_stops_neither_the_photos_nor_the_daemon(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, name = await published(scene, verbs, attempts)
    other, others = await published(scene, verbs, attempts)
    delete(scene, identity)
    refusal = {"error": "This repo is disabled."}
    scene.sandbox.faults.add(Answer(403, refusal), service="hub", path="/api/repos/delete")
    await carry(attempts, verbs, "erase")
    assert scene.database.outcomes(identity, "erase") == ["deferred"]
    assert sorted(scene.repos()) == sorted([name, others])
    assert scene.database.value("select count(*) from storage.objects") == 3
    scene.database.pass_time(30)
    delete(scene, other)
    for _ in range(2):
        await carry(attempts, verbs, "erase")
    assert left(scene) == {}


async def test_the_only_erasure_that_is_refused_is_an_outage_of_erasing(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    delete(scene, identity)
    scene.sandbox.faults.add(Answer(403, {"error": "No."}), service="hub", path="/api/repos/delete")
    with pytest.raises(Outage) as caught:
        await carry(attempts, verbs, "erase")
    assert (caught.value.certain, caught.value.of_kind) == (False, True)
    assert scene.database.outcomes(identity, "erase") == ["released"]
    assert "photos" not in left(scene)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


async def test_a_repo_that_was_found_to_be_ours_is_erased_though_its_history_is_gone(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, name = await published(scene, verbs, attempts)
    delete(scene, identity)
    scene.sandbox.faults.add(Answer(422, {"error": "Not now."}), service="hub", path="/api/repos/delete")
    await carry(attempts, verbs, "erase")
    assert scene.database.value("select bool_or(ours) from watcher.erase_lines") is True
    repo = scene.repo(name)
    for number, commit in enumerate(scene.sandbox.hub.store.commits(repo)):
        scene.write(name, message=f"{number} after {commit.oid}")
    scene.database.pass_time(3600)
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


async def test_a_repo_of_somebody_else_under_the_name_is_untouched(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, name = await published(scene, verbs, attempts)
    scene.sandbox.hub.store.delete(scene.repo(name))
    scene.make_repo(name)
    scene.write(name, message="Identity: of somebody else")
    delete(scene, identity)
    await carry(attempts, verbs, "erase")
    assert scene.repos() == [name]
    assert len(scene.commits(name)) == 2
    assert scene.database.value("select repos from watcher.erasures") == 0
    assert scene.database.value("select count(*) from watcher.erase_lines") == 0


async def test_a_soft_deleted_account_is_gone_after_the_sweep(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity, _ = await published(scene, verbs, attempts)
    user = scene.database.row(identity)["user_id"]
    headers = {"apikey": scene.sandbox.keys.secret, "authorization": f"Bearer {scene.sandbox.keys.secret}"}
    answer = scene.http.request(
        "DELETE",
        f"{scene.sandbox.supabase_url}/auth/v1/admin/users/{user}",
        headers=headers,
        json={"should_soft_delete": True},
    )
    assert answer.is_success
    assert scene.database.status(identity) == "published"
    scene.database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    await carry(attempts, verbs, "sweep")
    await carry(attempts, verbs, "erase")
    assert left(scene) == {}


@pytest.fixture
async def events() -> AsyncIterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_the_sweep_says_once_what_it_holds_back(
    scene: Scene, verbs: Verbs, attempts: Attempts, events: list[structlog.typing.EventDict]
) -> None:
    users = [scene.database.user() for _ in range(4)]
    for user in users:
        scene.database.upload(user, 1)
    scene.database.overwrite("delete from auth.users")
    scene.database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    for _ in range(3):
        await carry(attempts, verbs, "sweep")
        scene.database.pass_time(30)
    assert [event for event in events if event["log_level"] == "warning"] == [
        {"event": "sweep_held", "log_level": "warning", "users": 4, "names": 0, "uploads": 0}
        | {key: value for key, value in events[0].items() if key in {"identity", "attempt"}}
    ]
    assert isinstance(attempts.works["sweep"], Sweeper)


async def test_the_sweep_says_once_that_a_part_of_it_failed(
    scene: Scene, verbs: Verbs, attempts: Attempts, events: list[structlog.typing.EventDict]
) -> None:
    user = scene.database.row(scene.insert())["user_id"]
    scene.database.run(
        "update auth.users set deleted_at = now() where id = %s", [user], role="supabase_admin"
    )
    scene.database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    with psycopg.connect(scene.database.dsn("supabase_admin")) as locker:
        locker.execute("select from public.trained_identities for update")
        for _ in range(2):
            await carry(attempts, verbs, "sweep")
            scene.database.run("update watcher.work set next_at = now() where kind = 'sweep'")
        locker.rollback()
    assert [event["failed"] for event in events if event["event"] == "sweep_failed"] == [1]


async def test_no_log_line_names_a_person_a_file_or_a_repo(
    scene: Scene, verbs: Verbs, attempts: Attempts, events: list[structlog.typing.EventDict]
) -> None:
    identity, name = await published(scene, verbs, attempts)
    row = scene.database.row(identity)
    scene.sandbox.faults.add(
        Answer(404, {"error": f"{name} is not there"}), service="hub", path="/api/repos/delete"
    )
    delete(scene, identity)
    await carry(attempts, verbs, "erase")
    missing = scene.insert()
    scene.remove(scene.database.row(missing)["image_paths"][1])
    await carry(attempts, verbs, "publish")
    kept = scene.database.run(
        "select reason from watcher.attempts union select last_reason from watcher.work"
    )
    text = json.dumps([events, kept], default=str)
    for word in (name.partition("/")[2], row["image_paths"][0], "photo 2.jpg", str(row["user_id"]), "Ada"):
        assert word not in text
