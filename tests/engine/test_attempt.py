"""One claim carried to its end: each end is written back as what it is, once, by its holder alone."""

import asyncio
from collections import UserDict
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NoReturn
from uuid import UUID

import pytest
import structlog

from tests.support.deprecations import CONTENT
from tests.support.scene import PICTURES, Scene, carry, claim
from watcher.engine import attempt as attempt_module
from watcher.engine.attempt import Attempts
from watcher.engine.lease import Lease
from watcher.engine.reach import Checks, Reach
from watcher.engine.work import Done
from watcher.errors import LeaseLost, Misconfigured, Outage, Permanent, Transient, Wait, WatcherError
from watcher.identity import Claim, Publication
from watcher.sandbox.faults import Answer, Hang, Hold, LoseAnswer
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import Verbs

Said = list[MutableMapping[str, Any]]

pytestmark = CONTENT


@pytest.fixture
def said() -> Iterator[Said]:
    """What is logged."""
    with structlog.testing.capture_logs() as said:
        yield said


def events(said: Said) -> list[str]:
    return [line["event"] for line in said]


async def test_a_row_is_published_and_says_where(scene: Scene, verbs: Verbs, attempts: Attempts) -> None:
    identity = scene.insert(name="李雷")
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert (row["status"], row["images_published"]) == ("published", 3)
    assert row["huggingface_repo_url"] == f"{scene.sandbox.hub_url}/{row['model_id']}"
    assert row["commit_sha"] == scene.sandbox.hub.store.head(scene.repo(row["model_id"])).oid
    assert row["training_config"]["identity_name"] == "李雷"


@pytest.mark.parametrize("verb", ["complete", "reserve"])
async def test_a_lost_answer_of_the_table_costs_nothing(
    scene: Scene, verbs: Verbs, attempts: Attempts, verb: str
) -> None:
    identity = scene.insert()
    scene.sandbox.faults.add(LoseAnswer(), service="rest", path=f"watcher_{verb}$")
    await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == ["published"]
    assert len(scene.repos()) == 1


async def test_what_cannot_be_published_is_failed_with_code_and_sentence(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert([*PICTURES, b"GIF89a" + bytes(99)])
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"], row["model_id"]) == ("failed", "image_not_jpeg_or_png", None)
    assert row["error_message"].startswith("Image 4 (photo 4.jpg)")


async def test_what_may_go_better_later_is_deferred_as_long_as_the_service_asks(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    busy = Answer(503, "busy", {"retry-after": "600"})
    scene.sandbox.faults.add(busy, service="hub", path="/commit/", times=None)
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert row["status"] == "pending"
    assert 590 < (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= 600
    assert scene.database.outcomes(identity) == ["deferred"]
    assert len(scene.seen("POST", "/commit/")) == 1, "Such a time is left to the table."


async def test_an_outage_gives_the_row_back_unspent_and_is_passed_on(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
    with pytest.raises(Outage):
        await carry(attempts, verbs)
    assert (scene.database.status(identity), scene.database.line(identity)["spent"]) == ("pending", 0)
    assert scene.database.outcomes(identity) == ["released"]


async def test_who_is_told_to_stop_gives_the_row_back(scene: Scene, verbs: Verbs, attempts: Attempts) -> None:
    identity = scene.insert()
    held = scene.sandbox.faults.add(Hold("before"), service="storage")
    task = asyncio.create_task(carry(attempts, verbs))
    await asyncio.to_thread(held.wait_reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    line = scene.database.line(identity)
    assert (scene.database.status(identity), line["spent"], line["shutdowns"]) == ("pending", 0, 1)


async def test_who_is_told_to_stop_while_writing_back_says_it_to_the_end(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert([*PICTURES, b"GIF89a" + bytes(99)])
    held = scene.sandbox.faults.add(Hold("before"), service="rest", path="watcher_fail$")
    task = asyncio.create_task(carry(attempts, verbs))
    await asyncio.to_thread(held.wait_reached)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    held.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.database.status(identity) == "failed"


async def test_a_row_that_is_gone_is_written_to_no_more(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    held = scene.sandbox.faults.add(Hold("after"), service="hub", path="/commit/")
    task = asyncio.create_task(carry(attempts, verbs))
    await asyncio.to_thread(held.wait_reached)
    scene.database.delete_account(scene.database.row(identity)["user_id"])
    held.release()
    with pytest.raises(LeaseLost):
        await task
    for verb in ("fail", "defer", "release"):
        assert scene.seen("POST", f"watcher_{verb}") == []


async def test_what_cannot_be_written_back_is_left_to_the_lease(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert([*PICTURES, b"GIF89a" + bytes(99)])
    scene.sandbox.faults.add(Answer(503), service="rest", path="watcher_fail$", times=None)
    with pytest.raises(LeaseLost):
        await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == [None]


async def test_a_reason_that_postgres_cannot_store_is_written_back_all_the_same(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    scene.sandbox.faults.add(
        Answer(503, b"no\x00 " * 9999), service="hub", path="/api/repos/create", times=None
    )
    await carry(attempts, verbs)
    [attempt] = scene.database.attempts(identity)
    assert attempt["outcome"] == "deferred"
    assert attempt["reason"].startswith("The Hub returned an error: no no")


# Whatever an attempt raises, ends it.


@dataclass(frozen=True)
class Faulty:
    """A kind of work with a bug at one step; without one, it publishes without asking anybody."""

    announced: ClassVar[bool] = True
    routine: ClassVar[bool] = False

    verbs: Verbs
    at: str = ""
    bug: BaseException = RuntimeError("A bug.")  # noqa: RUF009  (it is raised, and never changed)

    def step(self, name: str) -> None:
        if name == self.at:
            raise self.bug

    def describe(self, claim: Claim) -> Mapping[str, object]:
        self.step("describe")
        return {}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        self.step("carry")
        await self.verbs.reserve(claim.attempt, "sandbox", "ada")
        return Done("published", Fields(self), partial(self.write_back, claim))

    async def write_back(self, claim: Claim) -> None:
        self.step("write-back")
        await self.verbs.complete(claim.attempt, Publication("https://hub/x", "c0ffee"), {}, answered=True)


class Fields(UserDict[str, object]):
    """The fields of the last line in the log, which may have a bug, too."""

    def __init__(self, work: Faulty) -> None:
        super().__init__()
        self.work = work

    def keys(self) -> Any:
        self.work.step("on_settled")
        return super().keys()


BUGS = [
    RuntimeError("A bug."), KeyError("name"), ValueError("\ud800\x00"), RecursionError(), MemoryError(),
    ExceptionGroup("two", [ValueError("one"), KeyError("two")]), WatcherError("Of no known kind."),
]  # fmt: skip


@pytest.mark.parametrize("step", ["describe", "carry", "write-back"])
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
async def test_a_bug_at_any_step_ends_the_attempt_and_counts(
    scene: Scene, verbs: Verbs, attempts: Attempts, said: Said, step: str, bug: Exception
) -> None:
    identity = scene.insert()
    faulty = replace(attempts, works={"publish": Faulty(verbs, step, bug)})
    if step == "write-back" and isinstance(bug, WatcherError):
        # What the table answers is no bug: the lease runs out, as if the answer had been lost.
        with pytest.raises(LeaseLost):
            await carry(faulty, verbs)
        return
    await carry(faulty, verbs)
    assert scene.database.outcomes(identity) == ["deferred"]
    line = scene.database.line(identity)
    assert (line["spent"], line["last_reason"]) == (1, "Unexpected error in the daemon; see its log.")
    assert events(said)[-2:] == ["unexpected", "deferred"]


@pytest.mark.parametrize("step", ["describe", "carry", "write-back"])
async def test_a_row_that_meets_a_bug_every_time_ends_within_its_budget(
    scene: Scene, verbs: Verbs, attempts: Attempts, step: str
) -> None:
    identity = scene.insert()
    faulty = replace(attempts, works={"publish": Faulty(verbs, step)})
    for _ in range(9 if step == "write-back" else 8):  # it has a name then, and is looked at once more
        await carry(faulty, verbs)
        scene.database.pass_time(3600)
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"].endswith("Unexpected error in the daemon; see its log.")


async def test_a_bug_after_the_outcome_is_recorded_changes_nothing(
    scene: Scene, verbs: Verbs, attempts: Attempts, said: Said
) -> None:
    identity = scene.insert()
    await carry(replace(attempts, works={"publish": Faulty(verbs, "on_settled")}), verbs)
    assert scene.database.outcomes(identity) == ["published"]
    assert events(said)[-1] == "unexpected"
    assert scene.seen("POST", "watcher_defer") == []


ENDINGS = {
    "fail": Permanent("hub_refused", "No."),
    "defer": Transient("Not now."),
    "wait": Wait("Not yet.", seconds=2, within=15, code="image_missing", last_words="Gone."),
    "release": Outage("Nothing goes."),
}


@pytest.mark.parametrize("verb", ENDINGS)
async def test_a_bug_while_the_end_is_recorded_is_logged_and_the_attempt_counts(
    scene: Scene, rpc: Rpc, attempts: Attempts, said: Said, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*arguments: object, **named: object) -> NoReturn:
        raise RuntimeError("A bug.")

    identity = scene.insert()
    verbs = Verbs(rpc)
    monkeypatch.setattr(verbs, verb, broken)
    faulty = replace(attempts, verbs=verbs, works={"publish": Faulty(verbs, "carry", ENDINGS[verb])})
    if verb in {"fail", "wait"}:
        await carry(faulty, verbs)
        assert scene.database.outcomes(identity) == ["deferred"]
        assert events(said)[-2:] == ["unexpected", "deferred"]
    else:
        with pytest.raises(Outage if verb == "release" else LeaseLost):
            await carry(faulty, verbs)
        assert scene.database.outcomes(identity) == [None], "Its lease runs out."
        assert set(events(said)[-2:]) == {"unexpected", "lease_lost"}
    assert scene.database.line(identity)["spent"] == 1


# Whatever a service answers.

STRANGE = {
    "nothing": b"", "null": b"null", "a list": b"[]", "an object": b"{}", "html": b"<html><h1>502</h1></html>",
    "a surrogate": b'{"error": "\\ud800\\u0000 no", "oid": "\\ud800", "name": "\\udfff"}',
    "no utf-8": b'{"error": "\xff\xfe"}',
    "nan": b"NaN", "too much": b"1e400", "less than nothing": b"-1", "a megabyte": b"x" * 2**20,
    "a deep hole": b"[" * 100_000,
}  # fmt: skip
CALLS = {
    "create": ("hub", "/api/repos/create"),
    "commits": ("hub", "/commits/"),
    "info": ("hub", "/api/models/[^/]+/[^/]+$"),
    "batch": ("hub", "/info/lfs/objects/batch"),
    "upload": ("hub", "/_lfs/"),
    "commit": ("hub", "/commit/"),
    "fetch": ("storage", "/object/authenticated/"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_whatever_a_service_answers_ends_the_attempt(
    scene: Scene, verbs: Verbs, attempts: Attempts, call: str, status: int
) -> None:
    service, path = CALLS[call]
    for what, body in STRANGE.items():
        identity = scene.insert()
        before = 0
        if call == "commits":
            # They are listed where an earlier attempt may have made the repo.
            before = 1
            earlier = (await claim(verbs)).attempt
            scene.make_repo(await verbs.reserve(earlier, "sandbox", "ada"))
            await verbs.release(earlier, "Stopping.", "shutdown", answered=True)
        fault = scene.sandbox.faults.add(Answer(status, body), service=service, path=path, times=None)
        await carry(attempts, verbs)
        assert fault.reached, what
        scene.sandbox.faults.clear()
        row, line = scene.database.row(identity), scene.database.line(identity)
        assert scene.database.outcomes(identity)[before:] in (["published"], ["failed"], ["deferred"]), what
        assert row["status"] != "pending" or line["spent"] == 1, what
        scene.database.delete_account(row["user_id"])


@pytest.mark.parametrize("verb", ["reserve", "complete", "fail", "defer", "wait", "release"])
async def test_whatever_the_table_answers_the_attempt_is_over(
    scene: Scene, verbs: Verbs, attempts: Attempts, verb: str
) -> None:
    bug = None if verb in {"reserve", "complete"} else ENDINGS[verb]
    work = Faulty(verbs, "" if bug is None else "carry", bug or RuntimeError())
    for what, body in STRANGE.items():
        identity = scene.insert()
        fault = scene.sandbox.faults.add(
            Answer(200, body), service="rest", path=f"watcher_{verb}$", times=None
        )
        deferred = verb == "reserve" and what != "null"  # which says that the attempt has lost its row
        if deferred:
            await carry(replace(attempts, works={"publish": work}), verbs)
        else:
            with pytest.raises((LeaseLost, Outage)):
                await carry(replace(attempts, works={"publish": work}), verbs)
        assert fault.reached, what
        scene.sandbox.faults.clear()
        assert scene.database.outcomes(identity) == (["deferred"] if deferred else [None]), what
        assert scene.database.line(identity)["spent"] == 1, what
        scene.database.delete_account(scene.database.row(identity)["user_id"])


@pytest.mark.parametrize(
    "headers",
    [
        *({"retry-after": value} for value in (
            "inf", "-inf", "nan", "-1", "0", "1e400", "1e308", "", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400,
        )),
        {"ratelimit": '"api";r=0;t=' + "9" * 400},
        {"ratelimit": f'"api";r={"9" * 400};t=5', "ratelimit-policy": f'"fixed window";"api";q={"9" * 400};w=300'},
        {"ratelimit": '"api";r=-1;t=-1'},
    ],
    ids=str,
)  # fmt: skip
async def test_a_time_that_is_none_is_not_waited_for(
    scene: Scene, verbs: Verbs, attempts: Attempts, headers: dict[str, str]
) -> None:
    identity = scene.insert()
    busy = Answer(429, "busy", headers)
    scene.sandbox.faults.add(busy, service="hub", path="/commit/", times=None)
    await carry(attempts, verbs)
    row, line = scene.database.row(identity), scene.database.line(identity)
    assert (row["status"], line["spent"]) == ("pending", 1)
    assert 3 < (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= 3600
    assert scene.database.outcomes(identity) == ["deferred"]


# Refusals that may be one row's alone.

DISABLED = Answer(403, {"error": "Access to this resource is disabled."})
QUOTA = Answer(403, {"error": "Private repository storage limit reached, please upgrade your plan"})


async def refused(scene: Scene, verbs: Verbs, attempts: Attempts, *, everybody: bool) -> UUID:
    """Insert a row and carry it to its refusal, which is its own or everybody's."""
    identity = scene.insert()
    if everybody:
        with pytest.raises(Outage):
            await carry(attempts, verbs)
    else:
        await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == ["released" if everybody else "deferred"]
    return identity


async def published(scene: Scene, verbs: Verbs, attempts: Attempts) -> str:
    """Publish a row, and return its repo."""
    identity = scene.insert()
    await carry(attempts, verbs)
    return str(scene.database.row(identity)["model_id"])


async def test_a_refusal_where_another_row_has_just_passed_is_this_rows_alone(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    await published(scene, verbs, attempts)
    scene.sandbox.faults.add(DISABLED, service="hub", path="/commit/")
    identity = await refused(scene, verbs, attempts, everybody=False)
    assert len(scene.seen("GET", "whoami")) == 1
    line = scene.database.line(identity)
    assert (line["spent"], line["unsures"]) == (1, 0)
    assert "this identity's repo: Access to this resource is disabled." in line["last_reason"]


@pytest.mark.parametrize("answer", [Answer(401, {"error": "Invalid"}), Answer(403, "<html>no</html>")])
async def test_a_token_that_is_refused_is_everybodys_outage(
    scene: Scene, verbs: Verbs, attempts: Attempts, answer: Answer
) -> None:
    await published(scene, verbs, attempts)
    for path in ("/commit/", "whoami"):
        scene.sandbox.faults.add(answer, service="hub", path=path)
    identity = await refused(scene, verbs, attempts, everybody=True)
    line = scene.database.line(identity)
    assert (line["spent"], line["unsures"]) == (0, 0)
    assert "<html>" not in scene.database.attempts(identity)[0]["reason"]


async def test_a_full_account_is_everybodys_outage_and_nobody_is_asked(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    scene.sandbox.faults.add(QUOTA, service="hub", path="/api/repos/create")
    identity = await refused(scene, verbs, attempts, everybody=True)
    assert scene.seen("GET", "whoami") == []
    assert scene.database.line(identity)["unsures"] == 0


@pytest.mark.parametrize("may_write", [True, False])
async def test_where_nobody_has_passed_the_right_to_write_is_asked_for_on_another_rows_repo(
    scene: Scene, verbs: Verbs, attempts: Attempts, reach: Reach, may_write: bool
) -> None:
    repo = await published(scene, verbs, attempts)
    scene.sandbox.faults.add(DISABLED, service="hub", path="/commit/")
    if not may_write:
        scene.sandbox.faults.add(DISABLED, service="hub", path=f"{repo}.git/info/lfs")
    fresh = replace(attempts, reach=Reach(checks_of(reach)))
    before = len(scene.seen("POST", f"{repo}.git/info/lfs"))
    identity = await refused(scene, verbs, fresh, everybody=not may_write)
    assert len(scene.seen("POST", f"{repo}.git/info/lfs")) == before + 1
    assert scene.database.line(identity)["spent"] == int(may_write)
    assert scene.database.line(identity)["unsures"] == 0
    assert len(scene.commits(repo)) == 2


async def test_where_there_is_nothing_to_ask_it_is_an_outage_until_a_second_row_decides(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    scene.sandbox.faults.add(DISABLED, service="hub", path="/commit/")
    first = await refused(scene, verbs, attempts, everybody=True)
    assert scene.database.line(first)["unsures"] == 1
    second = scene.insert()
    await carry(attempts, verbs)
    assert scene.database.outcomes(second) == ["published"], "Whoever was not refused is tried first."
    scene.sandbox.faults.add(DISABLED, service="hub", path="/commit/")
    await carry(attempts, verbs)
    assert scene.database.outcomes(first) == ["released", "deferred"]


async def test_a_second_row_that_is_refused_makes_it_an_outage_and_gives_back_what_the_first_has_spent(
    scene: Scene, verbs: Verbs, attempts: Attempts, reach: Reach
) -> None:
    await published(scene, verbs, attempts)
    fresh = replace(attempts, reach=Reach(checks_of(reach)))
    scene.sandbox.faults.add(DISABLED, service="hub", path="/commit/", times=None)
    first = await refused(scene, verbs, fresh, everybody=False)
    assert scene.database.line(first)["spent"] == 1
    await refused(scene, verbs, fresh, everybody=True)
    assert scene.database.line(first)["spent"] == 0


def checks_of(reach: Reach) -> dict[str, Checks]:
    """The checks of a memory, for one that knows nothing yet."""
    return {name: service.checks for name, service in reach._services.items()}


@pytest.mark.parametrize("trouble", [Hang(), Answer(503), Answer(200, b"[]")], ids=["hung", "503", "strange"])
async def test_a_question_that_is_not_answered_leaves_it_with_the_row(
    scene: Scene, verbs: Verbs, attempts: Attempts, trouble: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "_JUDGE_WITHIN", 0.3)
    scene.sandbox.faults.add(DISABLED, service="hub", path="/api/repos/create")
    scene.sandbox.faults.add(trouble, service="hub", path="whoami", times=None)
    await refused(scene, verbs, attempts, everybody=False)
    scene.sandbox.faults.clear()


async def test_who_is_told_to_stop_while_asking_gives_the_row_back(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    scene.sandbox.faults.add(DISABLED, service="hub", path="/api/repos/create")
    hung = scene.sandbox.faults.add(Hang(), service="hub", path="whoami", times=None)
    task = asyncio.create_task(carry(attempts, verbs))
    await asyncio.to_thread(hung.wait_reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    scene.sandbox.faults.clear()
    assert scene.database.outcomes(identity) == ["released"]
    assert scene.database.line(identity)["shutdowns"] == 1


@pytest.mark.parametrize(("others", "attempts_made"), [(True, 8), (False, 24)])
async def test_a_row_that_alone_is_refused_ends_within_its_budget(
    scene: Scene, verbs: Verbs, attempts: Attempts, others: bool, attempts_made: int
) -> None:
    if others:
        await published(scene, verbs, attempts)
    identity = scene.insert()
    scene.sandbox.faults.add(DISABLED, service="hub", path="/api/repos/create", times=None)
    for _ in range(attempts_made):
        with suppress(Outage):
            await carry(attempts, verbs)
        scene.database.overwrite(
            "update watcher.work set turn_at = now(), next_at = null where kind = 'publish'"
        )
    await carry(attempts, verbs)  # a last look
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert "Access to this resource is disabled." in row["error_message"]


@pytest.mark.parametrize("service", ["a photo", "every photo"])
async def test_a_photo_that_storage_refuses_is_its_rows_alone_unless_it_refuses_every_one(
    scene: Scene, verbs: Verbs, attempts: Attempts, service: str
) -> None:
    identity = scene.insert()
    path = "photo 2" if service == "a photo" else "authenticated"
    scene.sandbox.faults.add(DISABLED, service="storage", path=path, times=None)
    with nullcontext() if service == "a photo" else pytest.raises(Outage, match="Check SUPABASE_SECRET_KEY"):
        await carry(attempts, verbs)
    assert scene.database.line(identity)["spent"] == int(service == "a photo")
    reason = scene.database.attempts(identity)[0]["reason"]
    assert reason.startswith("Image 2 could not be fetched") == (service == "a photo")


# What the Hub does not accept may be the row's fault, or ours.

UNACCEPTED = Answer(400, {"error": "No."})


async def test_what_the_hub_does_not_accept_fails_the_row_once_another_was_accepted(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert()
    scene.sandbox.faults.add(UNACCEPTED, service="hub", path="/commit/")
    await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == ["deferred"]
    await published(scene, verbs, attempts)
    scene.sandbox.faults.add(UNACCEPTED, service="hub", path="/commit/")
    scene.database.overwrite("update watcher.work set turn_at = now(), next_at = null where kind = 'publish'")
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"], row["model_id"]) == ("failed", "hub_refused", None)
    assert row["error_message"] == "The Hub refused what was sent: No. (HTTP 400)"


async def test_what_the_hub_accepts_of_nobody_is_an_outage_after_three_rows(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    fault = scene.sandbox.faults.add(UNACCEPTED, service="hub", path="validate-yaml", times=None)
    rows = [scene.insert() for _ in range(3)]
    for _ in range(2):
        await carry(attempts, verbs)
    for _ in range(20):
        with pytest.raises(Outage, match="accepted none") as caught:
            await carry(attempts, verbs)
        assert caught.value.of_kind
    assert [scene.database.line(row)["spent"] for row in rows] == [0, 0, 0]
    assert {scene.database.status(row) for row in rows} == {"pending"}
    scene.sandbox.faults.remove(fault)
    scene.database.overwrite("update watcher.work set turn_at = now(), next_at = null where kind = 'publish'")
    for _ in rows:
        await carry(attempts, verbs)
    assert {scene.database.status(row) for row in rows} == {"published"}
    assert scene.database.run("select from watcher.rejections") == []


async def test_a_setting_that_became_unusable_is_an_outage_and_no_bug(
    scene: Scene, verbs: Verbs, attempts: Attempts, said: Said
) -> None:
    identity = scene.insert()
    refused = Misconfigured("HF_TOKEN is read-only.")
    with pytest.raises(Outage, match="read-only"):
        await carry(replace(attempts, works={"publish": Faulty(verbs, "carry", refused)}), verbs)
    assert scene.database.outcomes(identity) == ["released"]
    line = scene.database.line(identity)
    assert (line["spent"], line["unsures"], line["shutdowns"]) == (0, 0, 0)
    assert "unexpected" not in events(said)


# What may land late.


@pytest.mark.parametrize(
    ("fault", "answered"),
    [
        (None, True),
        (LoseAnswer(), False),
        (LoseAnswer(504), False),
        (Answer(503, "busy", {"retry-after": "600"}), False),
        (Answer(409, {"error": "You already created this model repo"}), True),
        (Answer(403, {"error": "Access to this resource is disabled."}), True),
    ],
    ids=["answered", "lost", "504", "503", "taken", "refused"],
)
async def test_every_end_says_whether_all_that_changes_something_was_answered(
    scene: Scene, verbs: Verbs, attempts: Attempts, fault: Any, answered: bool
) -> None:
    identity = scene.insert()
    if fault is not None:
        scene.sandbox.faults.add(fault, service="hub", path="/api/repos/create")
    with suppress(Outage):
        await carry(attempts, verbs)
    [attempt] = scene.database.attempts(identity)
    assert attempt["answered"] == answered


@pytest.mark.parametrize("place", ["/api/repos/create", "/commit/"])
async def test_who_is_told_to_stop_in_the_middle_of_a_request_says_that_it_may_land(
    scene: Scene, verbs: Verbs, attempts: Attempts, place: str
) -> None:
    identity = scene.insert()
    held = scene.sandbox.faults.add(Hold("before"), service="hub", path=place)
    task = asyncio.create_task(carry(attempts, verbs))
    await asyncio.to_thread(held.wait_reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.release()
    [attempt] = scene.database.attempts(identity)
    assert (attempt["outcome"], attempt["answered"]) == ("released", False)


# Waiting.


async def test_a_row_whose_image_comes_a_little_later_waits_without_a_slot(
    scene: Scene, verbs: Verbs, attempts: Attempts, said: Said
) -> None:
    identity = scene.insert()
    path = scene.database.row(identity)["image_paths"][1]
    scene.remove(path)
    await carry(attempts, verbs)
    assert events(said)[-1] == "waited"
    assert (scene.database.status(identity), scene.database.line(identity)["spent"]) == ("pending", 0)
    scene.upload(path, PICTURES[1])
    scene.database.pass_time(2)
    await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == ["waited", "published"]


async def test_a_row_whose_image_stays_missing_fails_and_says_so_once(
    scene: Scene, verbs: Verbs, attempts: Attempts, said: Said
) -> None:
    identity = scene.insert()
    scene.remove(scene.database.row(identity)["image_paths"][1])
    for _ in range(3):
        await carry(attempts, verbs)
        scene.database.pass_time(2)
    assert [event for event in events(said) if event != "claimed"] == ["waited"] * 3
    scene.database.pass_time(15)
    await carry(attempts, verbs)
    row = scene.database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "image_missing")
    assert row["error_message"] == "Image 2 (photo 2.jpg) is not in the bucket; upload it, then try again."
    assert said[-1]["event"] == "failed"
    # The log names no file.
    unnamed = row["error_message"].replace(" (photo 2.jpg)", "")
    assert (said[-1]["code"], said[-1]["reason"]) == ("image_missing", unnamed)
