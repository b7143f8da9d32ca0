"""One claim carried to its end: each end is written back as what it is, once, by its holder alone."""

import asyncio
import math

import pytest

from tests.support.scene import PICTURES, Scene, claim
from watcher.engine.attempt import Attempts
from watcher.engine.lease import Lease, Leases
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import LeaseLost, Outage, Transient
from watcher.identity import Claim
from watcher.publishing.publisher import Publisher
from watcher.sandbox.faults import Answer, Hold, LoseAnswer
from watcher.supabase.verbs import Verbs

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def attempts(verbs: Verbs, publisher: Publisher, quick: Retry) -> Attempts:
    leases = Leases(verbs, length=20, renewal=5)
    return Attempts(verbs=verbs, leases=leases, works={"publish": publisher}, retry=quick)


async def carry(attempts: Attempts, verbs: Verbs) -> None:
    asked = asyncio.get_running_loop().time()
    await attempts.carry(await claim(verbs), requested_at=asked)


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
    assert (row["status"], row["error_code"]) == ("failed", "image_not_jpeg_or_png")
    assert row["error_message"].startswith("Image 4 (photo 4.jpg)")
    assert scene.repos() == []


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
    assert (scene.database.status(identity), scene.database.line(identity)["spent"]) == ("pending", 0)


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


class Odd:
    """A kind of work that raises where it is told to."""

    def __init__(self, place: str, error: Exception, verbs: Verbs) -> None:
        self._place = place
        self._error = error
        self._verbs = verbs

    def describe(self, claim: Claim) -> dict[str, object]:
        self._raise("describe")
        return {}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        self._raise("carry")
        fields = {"event": 1} if self._place == "log" else {}
        return Done("published", fields, self.write_back)

    async def write_back(self) -> None:
        self._raise("write back")

    def _raise(self, place: str) -> None:
        if place == self._place:
            raise self._error


@pytest.mark.parametrize("place", ["describe", "carry", "write back"])
@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("\ud800\x00\u2028"), Transient("\ud800\x00" * 3000, retry_after=math.inf)],
    ids=["a bug", "unprintable", "endless"],
)
async def test_whatever_is_raised_wherever_ends_the_attempt_which_counts(
    scene: Scene, verbs: Verbs, quick: Retry, place: str, error: Exception
) -> None:
    identity = scene.insert()
    leases = Leases(verbs, length=20, renewal=5)
    odd = Odd(place, error, verbs)
    attempts = Attempts(verbs=verbs, leases=leases, works={"publish": odd}, retry=quick)
    if place == "write back" and isinstance(error, Transient):
        with pytest.raises(LeaseLost, match="could not be recorded"):
            await carry(attempts, verbs)
        assert scene.database.outcomes(identity) == [None], "The lease expires, and the next claim counts it."
        return
    await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == ["deferred"]
    row, entry = scene.database.row(identity), scene.database.line(identity)
    assert (row["status"], entry["spent"]) == ("pending", 1)
    assert entry["next_at"] is not None


async def test_an_outcome_that_was_recorded_is_not_recorded_otherwise_after_a_bug(
    scene: Scene, verbs: Verbs, quick: Retry
) -> None:
    identity = scene.insert()
    leases = Leases(verbs, length=20, renewal=5)
    odd = Odd("log", KeyError("x"), verbs)
    attempts = Attempts(verbs=verbs, leases=leases, works={"publish": odd}, retry=quick)
    await carry(attempts, verbs)
    assert scene.database.outcomes(identity) == [None], "Its own write-back did nothing here."
