"""The verbs over HTTP: what each answers, and what each error means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import httpx
import pytest

from tests.support.database import migrate
from tests.support.scene import PICTURES, Scene, claim
from tests.support.waiting import PATIENCE
from watcher.engine.retry import Retry
from watcher.errors import LeaseLost, Misconfigured, Outage, Transient, Wait
from watcher.identity import Publication
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer, Hang, Hold, LoseAnswer, Truncate
from watcher.supabase.client import supabase_client
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import SCHEMA, Verbs

PUBLICATION = Publication("https://hub/acme/ada", "c0ffee")
WAIT = Wait("Not yet.", seconds=2, within=15, code="image_missing", last_words="Image 2 is gone.")
# How an attempt may end: the verb, the status it leaves, the outcome in the history.
ENDS: dict[str, tuple[Callable[[Verbs, int], Awaitable[object]], str, str]] = {
    "complete": (
        lambda rows, attempt: rows.complete(attempt, PUBLICATION, {"a": 1}, answered=True),
        "published",
        "published",
    ),
    "fail": (
        lambda rows, attempt: rows.fail(attempt, "image_missing", "Image 2 is gone.", answered=True),
        "failed",
        "failed",
    ),
    "defer": (
        lambda rows, attempt: rows.defer(attempt, "The Hub is away.", 60.0, answered=True),
        "pending",
        "deferred",
    ),
    "release": (
        lambda rows, attempt: rows.release(attempt, "Stopping.", "unsure", answered=True),
        "pending",
        "released",
    ),
    "wait": (lambda rows, attempt: rows.wait(attempt, WAIT, answered=True), "pending", "waited"),
}
OLDER = {"schema": "20200101000000", "serves": "0.1.0"}
NEWER_FOR_US = {"schema": "29991231000000", "serves": "0.1.0"}
NEWER_FOR_OTHERS = {"schema": "29991231000000", "serves": "0.10.0"}


@asynccontextmanager
async def client(url: str, key: str, seconds: float = PATIENCE) -> AsyncIterator[Verbs]:
    async with httpx.AsyncClient(timeout=seconds) as http:
        yield Verbs(Rpc(supabase_client(url, key, http)))


async def test_a_claim_tells_all_that_an_attempt_needs(scene: Scene, verbs: Verbs) -> None:
    identity = scene.insert(name="Zoë 李")
    claimed = await claim(verbs)
    row = scene.database.row(identity)
    assert (claimed.kind, claimed.identity_id) == ("publish", str(identity))
    assert claimed.details == {
        "user_id": str(row["user_id"]),
        "identity_name": "Zoë 李",
        "image_paths": row["image_paths"],
        "created_at": row["created_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model_id": None,
        "objects": [[len(picture), f'"{md5(picture).hexdigest()}"', ANY] for picture in PICTURES],
        "failed_by_image": None,
    }
    assert (claimed.look_only, claimed.never_tried) == (False, True)
    assert claimed.age >= 0


async def test_a_claim_says_when_the_next_row_falls_due(scene: Scene, verbs: Verbs) -> None:
    scene.insert()
    attempt = (await claim(verbs)).attempt
    await verbs.defer(attempt, "Later.", 60, answered=True)
    answer = await verbs.claim(
        instance="test",
        run=str(uuid4()),
        slots={"publish": 4},
        lease=20,
        holding=[],
        predecessor_is_dead=False,
        machine="here",
    )
    assert answer.claims == ()
    assert answer.next_due is not None
    assert 0 < answer.next_due <= 60


async def test_renewing_tells_who_still_holds_and_shows_progress(scene: Scene, verbs: Verbs) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    assert await verbs.renew({attempt: {"images_published": 2}, attempt + 1: {}}, 20) == ({attempt}, set())
    assert scene.database.row(identity)["images_published"] == 2


async def test_a_name_is_reserved_once_and_moves_on_when_it_is_refused(scene: Scene, verbs: Verbs) -> None:
    scene.insert()
    attempt = (await claim(verbs)).attempt
    name = await verbs.reserve(attempt, "acme", "ada")
    assert name == await verbs.reserve(attempt, "acme", "ada")
    other = await verbs.reserve(attempt, "acme", "ada", name)
    assert int(other.rpartition("-")[2]) == int(name.rpartition("-")[2]) + 1


@pytest.mark.parametrize("verb", ENDS)
async def test_a_write_back_whose_answer_was_lost_is_done_when_it_is_said_again(
    scene: Scene, verbs: Verbs, quick: Retry, verb: str
) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    await verbs.reserve(attempt, "acme", "ada")
    rule = scene.sandbox.faults.add(LoseAnswer(), service="rest", path=f"/rpc/watcher_{verb}$")
    end, status, outcome = ENDS[verb]
    await quick(end, verbs, attempt)
    assert rule.reached == 1
    assert len(scene.seen("POST", f"watcher_{verb}")) == 2
    assert scene.database.status(identity) == status
    assert scene.database.outcomes(identity) == [outcome]


async def test_a_name_whose_answer_was_lost_is_the_same_when_asked_again(
    scene: Scene, verbs: Verbs, quick: Retry
) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    scene.sandbox.faults.add(LoseAnswer(), service="rest", path="/rpc/watcher_reserve$")
    assert await quick(verbs.reserve, attempt, "acme", "ada") == scene.database.row(identity)["model_id"]
    assert scene.database.value("select count(*) from watcher.names") == 1


async def test_rows_whose_claim_was_lost_are_handed_out_again_unspent(scene: Scene, verbs: Verbs) -> None:
    identity = scene.insert()
    run: dict[str, Any] = {
        "instance": "test",
        "run": str(uuid4()),
        "slots": {"publish": 1},
        "lease": 20,
        "holding": [],
    }
    scene.sandbox.faults.add(LoseAnswer(), service="rest", path="/rpc/watcher_claim$")
    with pytest.raises(Transient):
        await verbs.claim(**run, predecessor_is_dead=True, machine="here")
    [again] = (await verbs.claim(**run, predecessor_is_dead=True, machine="here")).claims
    assert again.identity_id == str(identity)
    assert scene.database.line(identity)["spent"] == 1


@pytest.mark.parametrize("verb", [*ENDS, "reserve"])
async def test_nothing_is_written_for_a_row_that_is_ours_no_longer(
    scene: Scene, verbs: Verbs, verb: str
) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    scene.database.delete_account(scene.database.row(identity)["user_id"])
    with pytest.raises(LeaseLost):
        if verb == "reserve":
            await verbs.reserve(attempt, "acme", "ada")
        else:
            await ENDS[verb][0](verbs, attempt)


async def test_a_wait_says_whether_there_is_still_time(scene: Scene, verbs: Verbs) -> None:
    identity = scene.insert()
    assert await verbs.wait((await claim(verbs)).attempt, WAIT, answered=True)
    scene.database.pass_time(15)
    assert not await verbs.wait((await claim(verbs)).attempt, WAIT, answered=True)
    assert scene.database.row(identity)["error_message"] == "Image 2 is gone."


async def test_another_machine_of_the_same_name_is_named(scene: Scene, verbs: Verbs) -> None:
    scene.insert()
    await claim(verbs)
    answer = await verbs.claim(
        instance="test", run=str(uuid4()), slots={"publish": 1}, lease=20, holding=[], predecessor_is_dead=True,
        machine="there",
    )  # fmt: skip
    assert answer.name_taken is not None
    assert (answer.claims, answer.name_taken.machine) == ((), "here")
    assert 29 < answer.name_taken.seconds <= 30


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "two\nlines\u2028", "x" * 10**6])
async def test_text_that_cannot_be_stored_as_it_is_is_stored_all_the_same(
    scene: Scene, verbs: Verbs, text: str
) -> None:
    identity = scene.insert()
    await verbs.defer((await claim(verbs)).attempt, text, answered=True)
    scene.database.pass_time(10)
    wait = Wait(text, seconds=2, within=15, code="image_missing", last_words=text)
    await verbs.wait((await claim(verbs)).attempt, wait, answered=True)
    scene.database.pass_time(2)
    await verbs.release((await claim(verbs)).attempt, text, "unsure", answered=True)
    await verbs.fail((await claim(verbs)).attempt, "hub_refused", f"{text}.", answered=True)
    assert scene.database.outcomes(identity) == ["deferred", "waited", "released", "failed"]
    assert len(scene.database.row(identity)["error_message"]) <= 2000


@pytest.mark.parametrize("key", ["sb_secret_revoked", "eyJhbGciOiJIUzI1NiJ9.e30.xxxx", "sb_publishable_none"])
async def test_a_key_that_is_refused_is_an_outage(sandbox: Sandbox, key: str) -> None:
    async with client(sandbox.supabase_url, key) as rows:
        with pytest.raises(Outage) as caught:
            await rows.beat()
    assert key not in str(caught.value)


async def test_the_publishable_key_is_told_to_be_the_wrong_one(sandbox: Sandbox) -> None:
    async with client(sandbox.supabase_url, sandbox.keys.publishable) as rows:
        with pytest.raises(Outage, match="to the project's secret key"):
            await rows.beat()


async def test_a_right_that_was_lost_is_an_outage(scene: Scene, verbs: Verbs) -> None:
    scene.database.run("revoke execute on function public.watcher_beat() from service_role")
    try:
        with pytest.raises(Outage, match="may not call watcher_beat"):
            await verbs.beat()
    finally:
        scene.database.run("grant execute on function public.watcher_beat() to service_role")
    await verbs.beat()


async def test_a_database_without_our_functions_is_said_to_need_migrating(scene: Scene, verbs: Verbs) -> None:
    scene.database.run("alter function public.watcher_version() rename to elsewhere")
    scene.database.run("notify pgrst, 'reload schema'")
    try:
        with pytest.raises(Misconfigured, match="run `watcher migrate`"):
            await verbs.check_version()
    finally:
        scene.database.run("alter function public.elsewhere() rename to watcher_version")
        scene.database.run("notify pgrst, 'reload schema'")
    await verbs.check_version()


async def test_the_schema_that_the_migrations_make_is_the_one_we_want(scene: Scene, verbs: Verbs) -> None:
    assert scene.database.value("select max(version) from watcher.migrations") == SCHEMA
    await verbs.check_version()


async def test_a_newer_schema_will_do_as_long_as_it_serves_this_program(scene: Scene, verbs: Verbs) -> None:
    scene.sandbox.faults.add(Answer(200, NEWER_FOR_US), path="watcher_version")
    await verbs.check_version()
    scene.sandbox.faults.add(Answer(200, NEWER_FOR_OTHERS), path="watcher_version")
    with pytest.raises(Misconfigured, match="upgrade Watcher"):
        await verbs.check_version()
    scene.sandbox.faults.add(Answer(200, OLDER), path="watcher_version")
    with pytest.raises(Misconfigured, match="run `watcher migrate`"):
        await verbs.check_version()


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(502, "<html><h1>502 Bad Gateway</h1></html>", {"content-type": "text/html"}),
        Answer(503, {"message": "name resolution failed"}),
        Answer(504, {"message": "The upstream server is timing out", "code": "504"}),
        Answer(429, {"message": "API rate limit exceeded"}),
        Answer(500, None),
        LoseAnswer(),
        Hang(),
    ],
    ids=["html", "json without a code", "json", "rate", "empty", "lost", "hung"],
)
async def test_trouble_on_the_way_is_worth_another_try(sandbox: Sandbox, trouble: Any) -> None:
    sandbox.faults.add(trouble, service="rest")
    async with client(sandbox.supabase_url, sandbox.keys.secret, 0.5) as rows:
        with pytest.raises(Transient) as caught:
            await rows.beat()
    assert "<html" not in str(caught.value)


async def test_nobody_listening_is_worth_another_try(sandbox: Sandbox) -> None:
    async with client("http://127.0.0.1:9", sandbox.keys.secret) as rows:
        with pytest.raises(Transient, match="could not be reached for watcher_beat"):
            await rows.beat()


@pytest.mark.usefixtures("scene")  # whose sandbox's threads may stay
async def test_a_database_that_is_down_is_worth_another_try() -> None:
    # Its own Postgres, for everybody else's connections would end with it.
    with Postgres() as postgres, Sandbox(postgres=postgres) as own:
        migrate(own.db_url)
        async with client(own.supabase_url, own.keys.secret) as rows:
            await rows.beat()
            postgres.halt()
            with pytest.raises(Transient):
                await rows.beat()
            postgres.start()
            await Retry(tries=9, first=0.1)(rows.beat)


@pytest.mark.parametrize("verb", ENDS)
async def test_a_write_back_whose_answer_is_cut_short_is_neither_done_nor_lost(
    scene: Scene, verbs: Verbs, verb: str
) -> None:
    identity = scene.insert()
    attempt = (await claim(verbs)).attempt
    await verbs.reserve(attempt, "sandbox", "ada")
    end, status, _ = ENDS[verb]
    scene.sandbox.faults.add(Truncate(after=3), service="rest", path=".*watcher_.*")
    with pytest.raises(Transient, match="malformed"):
        await end(verbs, attempt)
    await end(verbs, attempt)
    assert scene.database.row(identity)["status"] == status


async def test_a_claim_whose_answer_is_cut_short_is_asked_for_again(scene: Scene, verbs: Verbs) -> None:
    identity = scene.insert()
    scene.sandbox.faults.add(Truncate(after=40), service="rest", path=".*watcher_.*")
    asked: dict[str, Any] = {
        "instance": "i",
        "run": str(uuid4()),
        "slots": {"publish": 1},
        "lease": 20,
        "holding": [],
    }
    with pytest.raises(Transient, match="malformed"):
        await verbs.claim(**asked, predecessor_is_dead=False, machine="here")
    [again] = (await verbs.claim(**asked, predecessor_is_dead=False, machine="here")).claims
    assert again.identity_id == str(identity)


async def test_a_name_that_is_cut_short_is_not_taken_for_one(scene: Scene, verbs: Verbs) -> None:
    scene.insert()
    attempt = (await claim(verbs)).attempt
    scene.sandbox.faults.add(Truncate(after=20), service="rest", path=".*watcher_.*")
    with pytest.raises(Transient, match="malformed"):
        await verbs.reserve(attempt, "sandbox", "ada")
    assert (await verbs.reserve(attempt, "sandbox", "ada")).startswith("sandbox/identity-ada-")


async def test_calls_queue_in_front_of_rest_and_a_claim_passes_them(scene: Scene, verbs: Verbs) -> None:
    held = scene.sandbox.faults.add(Hold("before"), service="rest", path="watcher_release", times=None)
    releases = [
        asyncio.create_task(verbs.release(number, "Enough.", "unsure", answered=True))
        for number in range(1000, 1020)
    ]
    await asyncio.to_thread(held.wait_reached, count=8)
    scene.insert()
    assert (await claim(verbs)).never_tried
    assert held.reached == 8
    held.release()
    assert {type(one) for one in await asyncio.gather(*releases, return_exceptions=True)} == {LeaseLost}
