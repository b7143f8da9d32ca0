"""The daemon's life as its operator sees it: settings in, signals in, rows published, a word where one is due."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from scene import Scene, until

from watcher import app, settings
from watcher.errors import Misconfigured
from watcher.rows import Rows
from watcher.sandbox.faults import Answer, Hang, Hold

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning"),
]

Running = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]
Said = list[MutableMapping[str, Any]]


@pytest.fixture
def said() -> Iterator[Said]:
    """What the daemon logs."""
    with structlog.testing.capture_logs() as said:
        yield said


def count(said: Said) -> Counter[str]:
    return Counter(line["event"] for line in said)


def tell_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def running(scene: Scene, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    """Run the daemon with these settings until the block ends."""

    @asynccontextmanager
    async def run(*, ready: bool = True, **more: object) -> AsyncIterator[asyncio.Task[None]]:
        small = {"WATCHER_LEASE": 3, "WATCHER_RENEWAL": 0.5, "WATCHER_POLL": 0.2, "WATCHER_POLL_ALIVE": 0.2}
        named = {f"WATCHER_{name.upper()}": value for name, value in more.items()}
        own = {"WATCHER_SPOOL": tmp_path, "WATCHER_INSTANCE": "test"}
        for name, value in (scene.sandbox.settings() | small | own | named).items():
            monkeypatch.setenv(name, str(value))
        task = asyncio.create_task(app.run(settings.load()))
        try:
            if ready:
                await until(lambda: task.done() or count(said)["ready"])
            yield task
        finally:
            while not task.done():
                tell_to_stop()
                await asyncio.wait([task], timeout=0.1)
            task.exception()

    return run


async def test_a_row_is_published_as_soon_as_it_is_inserted(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running(poll=60, poll_alive=600):
        await until(lambda: count(said)["feed_alive"])
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(row) == "published", 5)


async def test_a_row_is_published_also_when_realtime_is_away(scene: Scene, running: Running) -> None:
    scene.sandbox.realtime.refuse(503, times=99)
    async with running():
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(row) == "published", 5)


async def test_no_more_rows_are_claimed_than_there_are_slots(scene: Scene, running: Running) -> None:
    rows = [scene.insert() for _ in range(5)]
    held = scene.sandbox.faults.add(Hold("before"), service="storage", times=None)

    def statuses() -> Counter[str]:
        return Counter(scene.database.status(row) for row in rows)

    async with running(slots=2):
        await until(lambda: held.reached >= 6)
        await asyncio.sleep(0.6)
        assert statuses() == {"publishing": 2, "pending": 3}
        held.release()
        await until(lambda: statuses() == {"published": 5}, 15)
    assert all(scene.database.outcomes(row) == ["published"] for row in rows)


async def test_rows_of_a_dead_predecessor_are_taken_over_at_once(
    scene: Scene, rows: Rows, running: Running
) -> None:
    row = scene.insert()
    dead: dict[str, Any] = {"instance": "test", "run": str(uuid4()), "limit": 1, "lease": 600, "holding": []}
    await rows.claim(**dead, predecessor_is_dead=False)
    async with running():
        await until(lambda: scene.database.status(row) == "published", 5)
    assert scene.database.outcomes(row) == ["silent", "published"]


async def test_who_is_told_to_stop_finishes_what_runs_and_claims_no_more(
    scene: Scene, running: Running, said: Said
) -> None:
    row = scene.insert()
    held = scene.sandbox.faults.add(Hold("after"), service="hub", path="/commit/")
    async with running(slots=1) as task:
        await asyncio.to_thread(held.wait_reached)
        tell_to_stop()
        later = await asyncio.to_thread(scene.insert)
        await asyncio.sleep(0.5)
        assert not task.done()
        held.release()
        await asyncio.wait_for(task, 5)
    assert (scene.database.status(row), scene.database.status(later)) == ("published", "pending")
    assert count(said)["stopped"] == 1


async def stuck(scene: Scene) -> UUID:
    """Insert a row whose images never come, and return when it is being worked on."""
    hung = scene.sandbox.faults.add(Hang(), service="storage", method="GET", times=None)
    row = await asyncio.to_thread(scene.insert)
    await asyncio.to_thread(hung.wait_reached)
    return row


async def test_what_does_not_finish_within_the_grace_is_given_back_unspent(
    scene: Scene, running: Running
) -> None:
    async with running(grace=2) as task:
        row = await stuck(scene)
        began = asyncio.get_running_loop().time()
        tell_to_stop()
        await asyncio.wait_for(task, 4)
        assert 0.5 < asyncio.get_running_loop().time() - began < 2.5
    assert (scene.database.status(row), scene.database.line(row)["spent"]) == ("pending", 0)


async def test_a_second_signal_gives_everything_back_now(scene: Scene, running: Running) -> None:
    async with running(grace=60) as task:
        row = await stuck(scene)
        tell_to_stop()
        await asyncio.sleep(0.2)
        assert not task.done()
        tell_to_stop()
        await asyncio.wait_for(task, 3)
    assert scene.database.outcomes(row) == ["released"]


async def test_a_claim_whose_answer_comes_after_the_stop_is_given_back(
    scene: Scene, running: Running
) -> None:
    async with running() as task:
        before = scene.sandbox.faults.add(Hold("after"), service="rest", path="watcher_claim$")
        await asyncio.to_thread(before.wait_reached)
        row = await asyncio.to_thread(scene.insert)
        held = scene.sandbox.faults.add(Hold("after"), service="rest", path="watcher_claim$")
        before.release()
        await asyncio.to_thread(held.wait_reached)
        assert scene.database.status(row) == "publishing"
        tell_to_stop()
        await asyncio.sleep(0.1)
        held.release()
        await asyncio.wait_for(task, 5)
    assert (scene.database.status(row), scene.database.line(row)["spent"]) == ("pending", 0)
    assert scene.database.outcomes(row) == ["released"]


async def test_an_outage_is_said_once_pauses_the_claims_and_ends_by_itself(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running():
        scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
        rows = [await asyncio.to_thread(scene.insert) for _ in range(2)]
        await until(lambda: count(said)["outage"])
        await asyncio.sleep(2.5)
        assert {scene.database.status(row) for row in rows} == {"pending"}
        assert count(said)["outage"] == 1
        assert sum(len(scene.database.attempts(row)) for row in rows) <= 4
        assert 1 <= len(scene.seen("GET", "whoami")) <= 4
        scene.sandbox.hub.access.restore(scene.sandbox.hub_token)
        await until(lambda: {scene.database.status(row) for row in rows} == {"published"}, 10)
        assert count(said)["outage_over"] == 1
    for row in rows:
        assert set(scene.database.outcomes(row)[:-1]) <= {"released"}, "Not the row's fault."


async def test_a_supabase_that_is_away_for_a_while_is_said_once_each_way(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running():
        away = scene.sandbox.faults.add(Answer(503), service="rest", path="watcher_claim$", times=4)
        await until(lambda: away.reached == 4 and count(said)["supabase_reachable"])
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(row) == "published")
    assert (count(said)["supabase_unreachable"], count(said)["supabase_reachable"]) == (1, 1)


@pytest.mark.parametrize("path", ["watcher_version$", "/api/whoami-v2"])
async def test_what_is_away_at_the_start_is_waited_for_and_said_once(
    scene: Scene, running: Running, said: Said, path: str
) -> None:
    scene.sandbox.faults.add(Answer(503, {"message": "upstream"}), path=path, times=2)
    async with running():
        assert (count(said)["unreachable"], count(said)["ready"]) == (1, 1)


async def test_who_is_told_to_stop_while_the_start_hangs_stops(
    scene: Scene, running: Running, said: Said
) -> None:
    hung = scene.sandbox.faults.add(Hang(), service="hub", path="whoami")
    async with running(ready=False) as task:
        await asyncio.to_thread(hung.wait_reached)
        tell_to_stop()
        await asyncio.wait_for(task, 3)
    assert count(said)["ready"] == 0


@pytest.mark.parametrize("refused", ["token", "key", "schema", "instance"])
async def test_what_is_refused_at_the_first_look_is_said_in_a_sentence(
    scene: Scene, running: Running, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused == "token":
        scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
    elif refused == "key":
        scene.sandbox.faults.add(Answer(401, {"message": "Invalid API key"}), service="rest")
    elif refused == "schema":
        scene.sandbox.faults.add(
            Answer(404, {"code": "PGRST202", "message": "Could not find"}), service="rest"
        )
    async with running() as task:
        if refused == "instance":
            with pytest.raises(Misconfigured, match="Another watcher runs as instance test"):
                await app.run(settings.load())
        else:
            with pytest.raises(Misconfigured):
                await task
