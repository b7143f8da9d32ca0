"""The feed: rings when there is news, says it is alive only while it would, and never gives up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from tests.support.deprecations import CLOSED
from tests.support.scene import QUICK, Scene, claim
from tests.support.waiting import PATIENCE, until
from watcher.sandbox.faults import Answer
from watcher.supabase import realtime
from watcher.supabase.realtime import _BACKOFF_FIRST, Feed
from watcher.supabase.verbs import Verbs

pytestmark = CLOSED


@dataclass
class Listening:
    """A feed that lives, and how often it rang."""

    scene: Scene
    rings: int = 0

    def ring(self) -> None:
        self.rings += 1

    def sockets(self) -> int:
        return len(self.scene.seen("WEBSOCKET", "/realtime/v1"))


@asynccontextmanager
async def listening(
    scene: Scene, verbs: Verbs, *, pulse: float = 60, pulse_answer: float = 0.3
) -> AsyncIterator[tuple[Feed, Listening]]:
    bell = Listening(scene)
    feed = Feed(
        url=scene.sandbox.supabase_url,
        key=scene.sandbox.keys.secret,
        verbs=verbs,
        pulse=pulse,
        pulse_answer=pulse_answer,
        wake=bell.ring,
    )
    life = asyncio.create_task(feed.run_forever())
    try:
        yield feed, bell
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def rings_for_a_row(scene: Scene, feed: Feed, bell: Listening) -> None:
    """Assert that the feed is alive in truth."""
    await until(lambda: feed.alive)
    before = bell.rings
    await asyncio.to_thread(scene.insert)
    await until(lambda: bell.rings > before)


async def reconnects_for_an_unannounced_row(scene: Scene, feed: Feed, bell: Listening) -> None:
    """Assert that the feed, alive for a while and with a `pulse_answer` below 0.3 s, finds out that it is deaf."""
    scene.sandbox.realtime.drop_events(PATIENCE)
    missed = await asyncio.to_thread(scene.insert)
    await asyncio.sleep(0.3)
    scene.sandbox.realtime.drop_events(0)
    feed.check_announced(str(missed), age=0.3)
    await until(lambda: bell.sockets() == 2)


async def test_it_is_alive_only_once_postgres_is_subscribed_to_and_rings_then(
    scene: Scene, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.sandbox.realtime, "_timing", replace(QUICK, warm=2, cold=2))
    async with listening(scene, verbs) as (feed, bell):
        await until(lambda: bell.sockets() == 1)
        await asyncio.sleep(0.4)
        assert (feed.alive, bell.rings) == (False, 0)
        await until(lambda: feed.alive)
        assert bell.rings == 1, "What came before nobody will tell."


async def test_it_rings_for_what_can_be_claimed_and_not_for_the_rest(scene: Scene, verbs: Verbs) -> None:
    async with listening(scene, verbs) as (feed, bell):
        await rings_for_a_row(scene, feed, bell)
        before = bell.rings
        attempt = (await claim(verbs)).attempt
        await verbs.renew({attempt: {"images_published": 1}}, 20)
        await asyncio.sleep(0.3)
        assert bell.rings == before
        await verbs.release(attempt, "Again.", "unsure", answered=True)
        await until(lambda: bell.rings == before + 1)


@pytest.mark.parametrize("code", [1000, 1006, 1012])
async def test_it_comes_back_after_a_close(scene: Scene, verbs: Verbs, code: int) -> None:
    async with listening(scene, verbs) as (feed, bell):
        await until(lambda: feed.alive)
        scene.sandbox.realtime.close_all(code)
        await until(lambda: not feed.alive)
        await rings_for_a_row(scene, feed, bell)
        assert bell.rings >= 4, "Once for each subscription, once for the loss."


async def test_it_rings_when_it_is_lost_and_is_not_alive_then(scene: Scene, verbs: Verbs) -> None:
    async with listening(scene, verbs) as (feed, bell):
        await until(lambda: feed.alive)
        scene.sandbox.realtime.refuse(503, times=99)
        alive: list[bool] = []
        feed._wake = lambda: alive.append(feed.alive)
        scene.sandbox.realtime.close_all(1006)
        await until(lambda: bell.sockets() >= 3)
        assert alive == [False], "Once, and not for each connection that fails after it."


async def test_it_comes_back_after_more_refusals_than_the_library_would_take(
    scene: Scene, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.supabase.realtime._BACKOFF_FIRST", 0.02)
    monkeypatch.setattr("watcher.supabase.realtime._BACKOFF_LONGEST", 0.1)
    scene.sandbox.realtime.refuse(502, times=7)
    async with listening(scene, verbs) as (feed, bell):
        await rings_for_a_row(scene, feed, bell)
        assert bell.sockets() == 8


async def test_a_server_that_accepts_and_drops_is_not_asked_without_a_pause(
    scene: Scene, verbs: Verbs
) -> None:
    scene.sandbox.realtime.accept_then_drop(times=99)
    began = asyncio.get_running_loop().time()
    async with listening(scene, verbs) as (feed, bell):
        await until(lambda: bell.sockets() >= 3)
        assert not feed.alive
        assert asyncio.get_running_loop().time() - began >= _BACKOFF_FIRST / 2 + _BACKOFF_FIRST
        scene.sandbox.realtime.accept_then_drop(times=0)
        await rings_for_a_row(scene, feed, bell)


async def test_a_channel_that_went_deaf_is_noticed_by_its_pulse_and_built_anew(
    scene: Scene, verbs: Verbs
) -> None:
    async with listening(scene, verbs, pulse=0.3) as (feed, bell):
        await until(lambda: feed.alive)
        scene.sandbox.realtime.mute()
        await until(lambda: not feed.alive)
        assert scene.seen("POST", "watcher_beat")
        await rings_for_a_row(scene, feed, bell)


async def test_silence_is_no_reason_to_doubt_as_long_as_the_pulse_comes(scene: Scene, verbs: Verbs) -> None:
    async with listening(scene, verbs, pulse=0.2, pulse_answer=PATIENCE) as (feed, bell):
        await until(lambda: feed.alive)
        await until(lambda: len(scene.seen("POST", "watcher_beat")) >= 3)
        assert feed.alive
        assert bell.sockets() == 1


async def test_a_pulse_that_cannot_be_asked_for_proves_nothing(scene: Scene, verbs: Verbs) -> None:
    scene.sandbox.faults.add(Answer(503), service="rest", path="watcher_beat")
    async with listening(scene, verbs, pulse=0.2, pulse_answer=1) as (feed, bell):
        await until(lambda: bell.sockets() == 2)
        await rings_for_a_row(scene, feed, bell)


async def test_a_system_error_in_mid_life_is_survived(scene: Scene, verbs: Verbs) -> None:
    async with listening(scene, verbs) as (feed, bell):
        await until(lambda: feed.alive)
        scene.sandbox.realtime.system_error("ERROR 42704 (undefined_object)")
        await until(lambda: bell.sockets() == 2)
        await rings_for_a_row(scene, feed, bell)


async def test_a_row_that_was_not_announced_shows_that_it_is_deaf(scene: Scene, verbs: Verbs) -> None:
    async with listening(scene, verbs, pulse_answer=0.2) as (feed, bell):
        await until(lambda: feed.alive)
        await asyncio.sleep(0.6)
        await reconnects_for_an_unannounced_row(scene, feed, bell)
        await rings_for_a_row(scene, feed, bell)


async def test_a_row_that_was_announced_or_came_too_early_shows_nothing(scene: Scene, verbs: Verbs) -> None:
    early = scene.insert()
    async with listening(scene, verbs, pulse_answer=0.2) as (feed, bell):
        await until(lambda: feed.alive)
        announced = await asyncio.to_thread(scene.insert)
        await until(lambda: bell.rings == 2)
        await asyncio.sleep(0.6)
        feed.check_announced(str(announced), age=0.3)
        feed.check_announced(str(early), age=3600)
        feed.check_announced("00000000-0000-4000-8000-000000000000", age=0.1)
        await asyncio.sleep(0.3)
        assert feed.alive
        assert bell.sockets() == 1


async def test_of_a_row_before_so_many_others_that_it_is_forgotten_nothing_is_known(
    scene: Scene, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realtime, "_MAX_ANNOUNCED", 2)
    async with listening(scene, verbs, pulse_answer=0.2) as (feed, bell):
        await until(lambda: feed.alive)
        await asyncio.sleep(0.6)
        inserted_at = asyncio.get_running_loop().time()
        first, *_ = [await asyncio.to_thread(scene.insert) for _ in range(4)]
        await until(lambda: bell.rings == 5)
        await asyncio.sleep(0.3)
        feed.check_announced(str(first), age=asyncio.get_running_loop().time() - inserted_at)
        await asyncio.sleep(0.3)
        assert feed.alive
        await reconnects_for_an_unannounced_row(scene, feed, bell)


@pytest.mark.parametrize("after", [0, 0.005, 0.02, 0.05, 0.3])
async def test_nothing_is_left_running_whenever_it_is_cancelled(
    scene: Scene, verbs: Verbs, after: float
) -> None:
    before = asyncio.all_tasks()
    async with listening(scene, verbs):
        await asyncio.sleep(after)
    assert asyncio.all_tasks() == before


async def test_nothing_is_left_running_when_it_is_cancelled_between_two_lives(
    scene: Scene, verbs: Verbs
) -> None:
    before = asyncio.all_tasks()
    async with listening(scene, verbs) as (feed, _):
        await until(lambda: feed.alive)
        scene.sandbox.realtime.close_all(1006)
        await until(lambda: not feed.alive)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
