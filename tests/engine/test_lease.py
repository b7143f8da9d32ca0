"""Leases: renewed in one beat for all, believed in no longer than is safe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.scene import Scene, claim, until
from watcher.engine.lease import Lease, Leases
from watcher.errors import LeaseLost
from watcher.sandbox.faults import Answer, Delay, Hang, Hold, LoseAnswer
from watcher.sandbox.faults.actions import Action
from watcher.supabase.verbs import Verbs

LENGTH, RENEWAL = 1.2, 0.25
BELIEVED = LENGTH * 4 / 5
RENEW = "/rpc/watcher_renew$"


@pytest.fixture
async def leases(verbs: Verbs) -> AsyncIterator[Leases]:
    leases = Leases(verbs, length=LENGTH, renewal=RENEWAL)
    beat = asyncio.create_task(leases.renew_forever())
    yield leases
    beat.cancel()
    await asyncio.gather(beat, return_exceptions=True)


@asynccontextmanager
async def held(leases: Leases, verbs: Verbs) -> AsyncIterator[Lease]:
    asked = asyncio.get_running_loop().time()
    attempt = (await claim(verbs, lease=LENGTH)).attempt
    async with leases.held(attempt, requested_at=asked) as lease:
        yield lease


async def test_a_lease_that_is_renewed_outlasts_its_length(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    identity = scene.insert()
    async with held(leases, verbs) as lease:
        await asyncio.sleep(1.4 * LENGTH)
        lease.check()
        assert leases.attempts == [lease.attempt]
    assert leases.attempts == []
    assert scene.database.outcomes(identity) == [None]


async def test_one_lost_renewal_is_forgiven(scene: Scene, verbs: Verbs, leases: Leases) -> None:
    scene.insert()
    lost = scene.sandbox.faults.add(LoseAnswer(), service="rest", path=RENEW)
    async with held(leases, verbs) as lease:
        await asyncio.sleep(1.2 * LENGTH)
        lease.check()
    assert lost.reached == 1


@pytest.mark.parametrize(
    "trouble", [Hang(), Answer(503), Answer(401, {"message": "Invalid API key"}), Delay(0.5), LoseAnswer()]
)
async def test_hung_refused_slow_and_lost_renewals_all_end_the_belief_before_the_lease_ends(
    scene: Scene, verbs: Verbs, leases: Leases, trouble: Action
) -> None:
    scene.insert()
    scene.sandbox.faults.add(trouble, service="rest", path=RENEW, times=None)
    loop = asyncio.get_running_loop()
    asked = loop.time()
    with pytest.raises(LeaseLost):
        async with held(leases, verbs):
            await asyncio.sleep(10)
    assert BELIEVED - 0.01 <= loop.time() - asked < LENGTH


async def test_the_belief_counts_from_before_the_renewal_was_sent(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    loop = asyncio.get_running_loop()
    with pytest.raises(LeaseLost):
        async with held(leases, verbs):
            renewal = scene.sandbox.faults.add(Hold("after"), service="rest", path=RENEW)
            scene.sandbox.faults.add(Hang(), service="rest", path=RENEW, times=None, skip=1)
            await asyncio.to_thread(renewal.wait_reached, 2)
            reached = loop.time()
            await asyncio.sleep(0.1)
            renewal.release()
            await asyncio.sleep(10)
    assert loop.time() - reached < BELIEVED


async def test_a_row_that_is_gone_stops_the_body_at_the_next_beat(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    identity = scene.insert()
    began = asyncio.get_running_loop().time()
    with pytest.raises(LeaseLost):
        async with held(leases, verbs):
            scene.database.delete_account(scene.database.row(identity)["user_id"])
            await asyncio.sleep(10)
    assert asyncio.get_running_loop().time() - began < BELIEVED
    assert leases.attempts == []


async def test_one_lost_row_does_not_cost_the_others_their_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    gone, _ = scene.insert(), scene.insert()
    both = asyncio.Barrier(3)

    async def hold() -> bool:
        try:
            async with held(leases, verbs) as lease:
                await both.wait()
                await asyncio.sleep(1.2 * LENGTH)
                lease.check()
        except LeaseLost:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(hold()) for _ in range(2)]
        await both.wait()
        scene.database.delete_account(scene.database.row(gone)["user_id"])
    assert sorted(task.result() for task in tasks) == [False, True]


async def test_progress_rides_along_with_the_renewal(scene: Scene, verbs: Verbs, leases: Leases) -> None:
    identity = scene.insert()
    async with held(leases, verbs) as lease:
        lease.progress["images_published"] = 2
        await until(lambda: scene.database.row(identity)["images_published"] == 2, 2)
        assert all(one.path.endswith("renew") for one in scene.sandbox.faults.log()[-1:])


async def test_a_row_that_is_being_written_to_keeps_its_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    writer = scene.database.connect()
    async with held(leases, verbs) as lease:
        with writer.transaction():
            writer.execute("select from watcher.attempts for update")
            await asyncio.sleep(2.2 * RENEWAL)
            lease.check()
        await asyncio.sleep(LENGTH)
        lease.check()


async def test_the_bodys_own_time_out_is_not_taken_for_a_lost_lease(
    scene: Scene, verbs: Verbs, leases: Leases
) -> None:
    scene.insert()
    with pytest.raises(TimeoutError):
        async with held(leases, verbs), asyncio.timeout(0.01):
            await asyncio.sleep(10)


async def test_a_frozen_process_finds_its_belief_ended_before_it_does_anything_else(verbs: Verbs) -> None:
    leases = Leases(verbs, length=0.2, renewal=0.05)
    with pytest.raises(LeaseLost, match="expired"):
        async with leases.held(7, requested_at=asyncio.get_running_loop().time()) as lease:
            lease.check()
            time.sleep(0.17)  # noqa: ASYNC251  (the loop stands still, and no timer of its fires)
            lease.check()


async def test_a_claim_whose_answer_came_too_late_is_not_begun(verbs: Verbs) -> None:
    leases = Leases(verbs, length=LENGTH, renewal=RENEWAL)
    with pytest.raises(LeaseLost):
        async with leases.held(7, requested_at=asyncio.get_running_loop().time() - LENGTH) as lease:
            with pytest.raises(LeaseLost):
                lease.check()
            await asyncio.sleep(0)
            pytest.fail("went on")
