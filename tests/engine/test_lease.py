"""Leases: renewed in one call for all, believed in no longer than is safe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.scene import Scene, claim
from tests.support.waiting import PATIENCE, until
from watcher.engine.lease import Lease, Leases
from watcher.errors import LeaseLost, Outage, Permanent, Transient
from watcher.sandbox.faults import Answer, Delay, Hang, Hold, LoseAnswer
from watcher.sandbox.faults.actions import Action
from watcher.supabase.verbs import Verbs

# Renewed often, and long enough that a busy machine loses none; a lease that has to end is a SHORT one.
LONG, SHORT, RENEWAL = 60.0, 1.2, 0.1
BELIEVED = 4 / 5
RENEW = "/rpc/watcher_renew$"


@asynccontextmanager
async def renewing(verbs: Verbs, length: float) -> AsyncIterator[Leases]:
    leases = Leases(verbs, length=length, renewal=RENEWAL)
    renewals = asyncio.create_task(leases.renew_forever())
    try:
        yield leases
    finally:
        renewals.cancel()
        await asyncio.gather(renewals, return_exceptions=True)


@pytest.fixture
async def leases(verbs: Verbs) -> AsyncIterator[Leases]:
    async with renewing(verbs, LONG) as leases:
        yield leases


@asynccontextmanager
async def held(leases: Leases, verbs: Verbs, length: float = LONG) -> AsyncIterator[Lease]:
    asked = asyncio.get_running_loop().time()
    attempt = (await claim(verbs, lease=length)).attempt
    async with leases.held(attempt, requested_at=asked) as lease:
        assert end_of(lease) == pytest.approx(asked + BELIEVED * length)
        yield lease


def end_of(lease: Lease) -> float:
    """Until when the lease is believed in, in the loop's time."""
    end = lease._window.when()
    assert end is not None
    return end


async def renewed(lease: Lease) -> None:
    """Return after the next renewal."""
    before = end_of(lease)
    await until(lambda: end_of(lease) > before)
    lease.check()


async def test_a_renewal_extends_the_lease_and_the_belief_in_it(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    identity = scene.insert()
    async with held(leases, verbs) as lease:
        [before] = scene.database.attempts(identity)
        await renewed(lease)
        [after] = scene.database.attempts(identity)
        assert after["lease_expires_at"] > before["lease_expires_at"]
        assert leases.attempts == [lease.attempt]
    assert leases.attempts == []
    assert scene.database.outcomes(identity) == [None]


async def test_one_lost_renewal_is_forgiven(scene: Scene, verbs: Verbs, leases: Leases) -> None:
    scene.insert()
    lost = scene.sandbox.faults.add(LoseAnswer(), service="rest", path=RENEW)
    async with held(leases, verbs) as lease:
        await until(lambda: lost.reached)
        await renewed(lease)


@pytest.mark.parametrize(
    "trouble", [Hang(), Answer(503), Answer(401, {"message": "Invalid API key"}), Delay(0.5), LoseAnswer()]
)
async def test_no_renewal_that_is_hung_refused_slow_or_lost_extends_the_belief(
    scene: Scene, verbs: Verbs, trouble: Action
) -> None:
    scene.insert()
    scene.sandbox.faults.add(trouble, service="rest", path=RENEW, times=None)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    ends = asked
    async with renewing(verbs, SHORT) as leases:
        with pytest.raises(LeaseLost):
            async with held(leases, verbs, SHORT) as lease:
                ends = end_of(lease)
                await asyncio.sleep(PATIENCE)
        assert end_of(lease) == ends <= loop.time()


async def test_the_belief_counts_from_before_the_renewal_was_sent(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    renewal = scene.sandbox.faults.add(Hold("after"), service="rest", path=RENEW)
    async with held(leases, verbs) as lease:
        await asyncio.to_thread(renewal.wait_reached)
        reached = asyncio.get_running_loop().time()
        scene.sandbox.faults.add(Hang(), service="rest", path=RENEW, times=None)
        renewal.release()
        await renewed(lease)
        assert end_of(lease) < reached + BELIEVED * LONG


async def test_a_row_that_is_gone_stops_the_body_at_the_next_renewal(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    identity = scene.insert()
    with pytest.raises(LeaseLost):
        async with held(leases, verbs) as lease:
            ends = end_of(lease)
            scene.database.delete_account(scene.database.row(identity)["user_id"])
            await asyncio.sleep(PATIENCE)
    assert end_of(lease) < ends, "It did not wait for the end of the belief."
    assert leases.attempts == []


async def test_one_lost_row_does_not_cost_the_others_their_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    gone, _ = scene.insert(), scene.insert()
    both, deleted = asyncio.Barrier(3), asyncio.Event()

    async def hold() -> bool:
        try:
            async with held(leases, verbs) as lease:
                await both.wait()
                await deleted.wait()
                for _ in range(2):  # the first may have been answered before the deletion
                    await renewed(lease)
        except LeaseLost:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hold()) for _ in range(2)]
        await both.wait()
        scene.database.delete_account(scene.database.row(gone)["user_id"])
        deleted.set()
    assert sorted(task.result() for task in tasks) == [False, True]


async def test_progress_rides_along_with_the_renewal(scene: Scene, verbs: Verbs, leases: Leases) -> None:
    identity = scene.insert()
    async with held(leases, verbs) as lease:
        lease.progress["images_published"] = 2
        await until(lambda: scene.database.row(identity)["images_published"] == 2)
        assert all(one.path.endswith("renew") for one in scene.sandbox.faults.log()[-1:])


async def test_a_row_that_is_being_written_to_keeps_its_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    writer = scene.database.connect()
    async with held(leases, verbs) as lease:
        with writer.transaction():
            writer.execute("select from watcher.attempts for update")
            renewals = len(scene.seen("POST", "watcher_renew"))
            await until(lambda: len(scene.seen("POST", "watcher_renew")) > renewals + 2)
            lease.check()
        await renewed(lease)


async def test_the_bodys_own_time_out_is_not_taken_for_a_lost_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    with pytest.raises(TimeoutError):
        async with held(leases, verbs), asyncio.timeout(0.01):
            await asyncio.sleep(PATIENCE)


async def test_a_frozen_process_finds_its_belief_ended_before_it_does_anything_else(
    verbs: Verbs, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    with pytest.raises(LeaseLost, match="expired"):
        async with leases.held(7, requested_at=now) as lease:
            lease.check()
            # No timer fires before the loop has the next turn.
            monkeypatch.setattr(loop, "time", lambda: now + BELIEVED * LONG)
            try:
                lease.check()
            finally:
                monkeypatch.undo()


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        (None, True),
        (Permanent("hub_refused", "No."), True),
        (Outage("No."), True),
        (LeaseLost("Not sent."), True),
        (KeyError("that is an answer"), True),
        (Transient("Time-out."), False),
        (RuntimeError("A bug, perhaps in reading the answer."), False),
        (asyncio.CancelledError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_request_may_land_late_unless_it_is_known_to_have_ended(
    verbs: Verbs, error: BaseException | None, answered: bool
) -> None:
    leases = Leases(verbs, length=20, renewal=5)
    async with leases.held(7, requested_at=asyncio.get_running_loop().time()) as lease:
        seen = [lease.answered]
        with suppress(BaseException), lease.mutating(KeyError):
            seen.append(lease.answered)
            if error is not None:
                raise error
        seen.append(lease.answered)
        with lease.mutating():
            pass
        # What comes later does not make up for it.
        assert [*seen, lease.answered] == [True, False, answered, answered]


async def test_a_claim_whose_answer_came_too_late_is_not_begun(verbs: Verbs, leases: Leases) -> None:
    with pytest.raises(LeaseLost):
        async with leases.held(7, requested_at=asyncio.get_running_loop().time() - LONG) as lease:
            with pytest.raises(LeaseLost):
                lease.check()
            await asyncio.sleep(0)
            pytest.fail("went on")
