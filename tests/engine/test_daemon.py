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

import psycopg
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from psycopg.types.json import Jsonb

from tests.support.database import Worker
from tests.support.deprecations import CLOSED, CONTENT
from tests.support.scene import PICTURES, Scene
from tests.support.waiting import PATIENCE, until
from tests.support.watching import free_address, get
from watcher import app
from watcher.engine import outages, probes
from watcher.errors import Misconfigured
from watcher.process.instance import machine
from watcher.sandbox.faults import Answer, Delay, Hang, Hold
from watcher.settings import settings
from watcher.supabase.verbs import Verbs

pytestmark = [
    CONTENT,
    CLOSED,
]

Running = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]
Said = list[MutableMapping[str, Any]]


@pytest.fixture
def said() -> Iterator[Said]:
    """What the daemon logs."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as said:
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
        small = {"WATCHER_RENEWAL": 0.5, "WATCHER_POLL": 0.2, "WATCHER_POLL_ALIVE": 0.2}
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
        await until(lambda: scene.database.status(row) == "published")


async def test_it_looks_at_once_when_realtime_is_lost_and_at_the_short_interval_from_then_on(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running(poll=0.2, poll_alive=600):
        await until(lambda: count(said)["feed_alive"])
        scene.sandbox.realtime.mute()
        unannounced = await asyncio.to_thread(scene.insert)
        scene.sandbox.realtime.refuse(503, times=999)
        scene.sandbox.realtime.close_all(1006)
        await until(lambda: scene.database.status(unannounced) == "published")
        later = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(later) == "published")
    assert count(said)["feed_alive"] == 1


async def test_no_more_rows_are_claimed_than_there_are_slots_but_one_of_a_user_who_has_none(
    scene: Scene, running: Running
) -> None:
    eve, paths = scene.put()
    rows = [scene.database.insert(eve, paths) for _ in range(5)]
    held = scene.sandbox.faults.add(Hold("before"), service="storage", method="GET", times=None)

    def statuses(rows: list[UUID]) -> Counter[str]:
        return Counter(scene.database.status(row) for row in rows)

    async with running(slots=2):
        await until(lambda: held.reached >= 6)
        await asyncio.sleep(0.6)
        assert statuses(rows) == {"publishing": 2, "pending": 3}
        others = [await asyncio.to_thread(scene.insert) for _ in range(2)]
        await until(lambda: statuses(others) == {"publishing": 1, "pending": 1})
        await asyncio.sleep(0.6)
        assert statuses([*rows, *others]) == {"publishing": 3, "pending": 4}
        held.release()
        await until(lambda: statuses([*rows, *others]) == {"published": 7})
    assert all(scene.database.outcomes(row) == ["published"] for row in [*rows, *others])


async def test_a_row_that_came_while_only_other_kinds_had_a_free_slot_is_claimed_when_a_slot_ends(
    scene: Scene, running: Running, said: Said
) -> None:
    eve, paths = scene.put()  # of one user: another one's would find a slot
    fetching = scene.sandbox.faults.add(Hold("before"), service="storage", method="GET")
    async with running(slots=1, poll=60, poll_alive=600, pulse=600):
        await until(lambda: count(said)["feed_alive"])
        first = await asyncio.to_thread(scene.database.insert, eve, paths)
        await until(lambda: fetching.reached)
        claimed = scene.sandbox.faults.add(Hold("after"), path="watcher_claim")
        second = await asyncio.to_thread(scene.database.insert, eve, paths)
        await until(lambda: claimed.reached)
        claimed.release()
        fetching.release()
        await until(lambda: scene.database.status(second) == "published")
        assert scene.database.status(first) == "published"


async def test_a_name_that_another_machine_used_is_waited_for_whatever_wakes_the_daemon(
    scene: Scene, running: Running, said: Said
) -> None:
    Worker(scene.database, "test", machine="elsewhere").claim()
    async with running():
        await until(lambda: count(said)["name_taken"])
        rows = [await asyncio.to_thread(scene.insert)]
        scene.database.pass_time(31)
        rows.append(await asyncio.to_thread(scene.insert))
        await until(lambda: {scene.database.status(row) for row in rows} == {"published"})
    assert count(said)["name_taken"] == 1
    [line] = [line for line in said if line["event"] == "name_taken"]
    assert "Another host (elsewhere) runs a daemon as instance test" in line["reason"]


async def test_a_name_that_another_machine_goes_on_using_ends_the_daemon(
    scene: Scene, running: Running, said: Said
) -> None:
    other = Worker(scene.database, "test", machine="elsewhere")
    row = scene.insert()
    # Held until the other one has the name and most of the time has passed, so that the start may take long.
    claiming = scene.sandbox.faults.add(Hold("before"), path="watcher_claim")
    async with running() as task:
        await until(lambda: claiming.reached)
        other.claim(0)
        scene.database.pass_time(26)
        claiming.release()
        await until(lambda: count(said)["name_taken"])
        other.claim(0)
        with pytest.raises(Misconfigured, match="name of its own with WATCHER_INSTANCE"):
            await asyncio.wait_for(task, PATIENCE)
    assert scene.database.outcomes(row) == []


async def stuck(scene: Scene) -> UUID:
    """Insert a row whose images never come, and return when it is being worked on."""
    hung = scene.sandbox.faults.add(Hang(), service="storage", method="GET", times=None)
    row = await asyncio.to_thread(scene.insert)
    await asyncio.to_thread(hung.wait_reached)
    return row


async def test_strange_answers_do_not_end_the_daemon(scene: Scene, running: Running, said: Said) -> None:
    strange = (
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"claims": [{}]}',
        b"\xff\xfe",
        b"NaN",
        b"[" * 100_000,
    )
    endless = b'{"claims": [], "next_due_seconds": 1e400}'
    async with running():
        for answer in (*strange, endless):
            asked = scene.sandbox.faults.add(Answer(200, answer), service="rest", path="watcher_claim$")
            await asyncio.to_thread(asked.wait_reached)
        scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: count(said)["outage"])
        asked = scene.sandbox.faults.add(Answer(200, b'{"name": 1e400}'), service="hub", path="whoami")
        await asyncio.to_thread(asked.wait_reached)
        scene.sandbox.hub.access.restore(scene.sandbox.hub_token)
        await until(lambda: scene.database.status(row) == "published")
    assert "unexpected" not in count(said)


async def test_a_supabase_that_is_away_for_a_while_is_said_once_each_way(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running():
        away = scene.sandbox.faults.add(Answer(503), service="rest", path="watcher_claim$", times=4)
        await until(lambda: away.reached == 4 and count(said)["reachable"])
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(row) == "published")
    assert (count(said)["unreachable"], count(said)["reachable"]) == (1, 1)


Series = tuple[str, frozenset[str]]


async def scraped(address: str) -> dict[Series, float]:
    """What Prometheus would read: a number for each series, by its name and the values of its labels."""
    text = (await asyncio.to_thread(get, address, "/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, frozenset(one.labels.values())): one.value for one in samples}


def of(name: str, *labels: str) -> Series:
    return name, frozenset(labels)


async def test_what_it_does_is_counted(scene: Scene, running: Running, said: Said) -> None:
    address = free_address()
    async with running(metrics_address=address):
        await until(lambda: count(said)["feed_alive"])
        before = await scraped(address)
        good = await asyncio.to_thread(scene.insert)
        bad = await asyncio.to_thread(scene.insert, [b"GIF89a" + bytes(99)] * 3)
        await until(
            lambda: (scene.database.status(good), scene.database.status(bad)) == ("published", "failed")
        )
        after = await scraped(address)

    def grown(name: str, *labels: str) -> float:
        return after[of(name, *labels)] - before[of(name, *labels)]

    assert grown("watcher_attempts_total", "published", "") == 1
    assert grown("watcher_attempts_total", "failed", "image_not_jpeg_or_png") == 1
    sizes = sum(len(picture) for picture in PICTURES)
    assert grown("watcher_bytes_total", "uploaded") == sizes
    assert sizes < grown("watcher_bytes_total", "fetched") <= sizes + 6 * 105
    for stage, least in {"wait": 2, "fetch": 4, "look": 1, "upload": 1, "commit": 1, "complete": 1}.items():
        assert grown("watcher_stage_seconds_count", stage) >= least, stage
    assert after[of("watcher_ready")] == after[of("watcher_feed_alive")] == 1
    assert after[of("watcher_slots", "publish", "free")] == 4
    assert after[of("watcher_outage", "refused")] == after[of("watcher_outage", "unreachable")] == 0


async def test_the_tables_rows_are_counted_and_absent_while_it_does_not_answer(
    scene: Scene, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_ROWS_EVERY", 0.0)
    monkeypatch.setattr(probes, "_ROWS_WITHIN", PATIENCE)
    address = free_address()
    Worker(scene.database).call("set_training", settings=Jsonb({"enabled": True, "usd_a_day": 5}))
    async with running(metrics_address=address, slots=2) as task:
        bad = await asyncio.to_thread(scene.insert, [b"GIF89a" + bytes(99)] * 3)
        await until(lambda: scene.database.status(bad) == "failed")
        await stuck(scene)
        found = await scraped(address)
        statuses = ("pending", "deferred", "publishing", "failed", "published")
        assert [found[of("watcher_rows", status)] for status in statuses] == [0, 0, 1, 1, 0]
        assert found[of("watcher_failed_rows", "image_not_jpeg_or_png")] == 1
        assert of("watcher_oldest_row_seconds", "pending") not in found
        assert found[of("watcher_slots", "publish", "busy")] == 1
        assert found[of("watcher_slots", "publish", "free")] == 1
        states = ("running", "waiting", "overdue", "doubled")
        assert [found[of("watcher_trainings", state)] for state in states] == [0, 0, 0, 0]
        assert [found[of("watcher_training_usd", what)] for what in ("spent", "reserved", "budget")] == [
            0,
            0,
            5,
        ]
        assert found[of("watcher_training_budget_used_up")] == 0
        scene.sandbox.faults.add(Hang(), service="rest", path="watcher_status$", times=None)
        monkeypatch.setattr(probes, "_ROWS_WITHIN", 0.3)
        found = await scraped(address)
        absent = {"watcher_rows", "watcher_failed_rows", "watcher_trainings", "watcher_training_usd"}
        assert not {name for name, _ in found} & absent
        assert found[of("watcher_ready")] == 1, "Nobody waits for that but who asked."
        tell_to_stop()
        tell_to_stop()
        await asyncio.wait_for(task, PATIENCE)


async def test_a_row_that_was_replayed_waits_since_then_and_not_since_it_was_inserted(
    scene: Scene, running: Running
) -> None:
    address = free_address()
    worker = Worker(scene.database)
    row = await asyncio.to_thread(scene.insert)
    worker.fail(worker.claim_one(), "hub_refused", "The Hub refuses the card.")
    scene.database.pass_time(7200)
    async with running(metrics_address=address, slots=1):
        await stuck(scene)
        other = await asyncio.to_thread(scene.insert)  # in the slot for a user who has none running
        await until(lambda: scene.database.status(other) == "publishing")
        scene.database.run(
            "update public.trained_identities set status = 'pending', error_code = null, error_message = null where id = %s",
            (row,),
        )
        async with asyncio.timeout(PATIENCE):
            while (found := await scraped(address))[of("watcher_slots", "publish", "busy")] < 2:
                pass
        assert found[of("watcher_slots", "publish", "free")] == 0
        assert found[of("watcher_rows", "pending")] == 1
        assert 0 <= found[of("watcher_oldest_row_seconds", "pending")] < 7200
        tell_to_stop()
        tell_to_stop()


async def test_the_table_is_not_counted_more_often_than_every_few_seconds(
    scene: Scene, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_ROWS_EVERY", 600.0)
    address = free_address()
    async with running(metrics_address=address):
        await asyncio.gather(*(scraped(address) for _ in range(4)))
        assert len(scene.seen("POST", "watcher_status")) == 1


async def test_the_hubs_budget_is_shown_once_the_hub_has_told_it(scene: Scene, running: Running) -> None:
    address = free_address()
    async with running(metrics_address=address):
        assert of("watcher_hub_requests", "remaining") not in await scraped(address)
        scene.sandbox.hub.knobs.limit_requests(1000)
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.status(row) == "published")
        found = await scraped(address)
    assert found[of("watcher_hub_requests", "limit")] == 1000
    assert 980 < found[of("watcher_hub_requests", "remaining")] < 1000


async def test_probes_are_told_what_is_away_and_when_it_is_back(
    scene: Scene, running: Running, said: Said
) -> None:
    address = free_address()

    async def probed(path: str) -> tuple[int, str]:
        answer = await asyncio.to_thread(get, address, path)
        return answer.status_code, answer.text.strip()

    away = scene.sandbox.faults.add(Answer(503), service="hub", path="whoami", times=None)
    async with running(ready=False, metrics_address=address):
        await until(lambda: count(said)["unreachable"])
        status, why = await probed("/readyz")
        assert (status, why[:7]) == (503, "The Hub")
        assert await probed("/healthz") == (200, "ok")
        scene.sandbox.faults.remove(away)
        await until(lambda: count(said)["ready"])
        assert await probed("/readyz") == (200, "ok")
        scene.sandbox.hub.access.revoke(scene.sandbox.hub_token)
        await asyncio.to_thread(scene.insert)
        await until(lambda: count(said)["outage"])
        status, why = await probed("/readyz")
        assert (status, "refused the token" in why) == (503, True)
        assert await probed("/healthz") == (200, "ok")
        assert (await scraped(address))[of("watcher_outage", "refused")] == 1
        scene.sandbox.hub.access.restore(scene.sandbox.hub_token)
        await until(lambda: count(said)["outage_over"])
        assert (await probed("/readyz"))[0] == 200


async def looks(scene: Scene, number: int) -> None:
    """Wait until the daemon has looked so many times more whether an outage is over."""
    look = scene.sandbox.faults.add(Delay(0), service="hub", path="whoami", times=None)
    await until(lambda: look.reached >= number)
    scene.sandbox.faults.remove(look)


async def test_a_sweep_ends_no_outage_that_it_cannot_meet(
    scene: Scene, running: Running, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PAUSE_LONGEST", 0.2)
    refused = scene.sandbox.faults.add(
        Answer(403, {"message": "No."}), service="storage", method="GET", times=None
    )
    async with running():
        await until(lambda: count(said)["swept"])
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: count(said)["outage"])
        due = "update watcher.work set next_at = now() where kind = 'sweep' returning next_at"
        assert scene.database.run(due)
        await looks(scene, 1)
        before = scene.database.outcomes(row)
        await looks(scene, 3)
        assert count(said)["outage_over"] == 0
        assert scene.database.outcomes(row) == before, "Storage is asked, and not by a row."
        scene.sandbox.faults.remove(refused)
        await until(lambda: scene.database.status(row) == "published")
        await until(lambda: count(said)["outage_over"])
    assert (count(said)["outage"], count(said)["outage_over"]) == (1, 1)


async def test_a_row_that_fails_before_it_meets_what_is_refused_ends_no_outage(
    scene: Scene, running: Running, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PAUSE_LONGEST", 0.2)
    scene.sandbox.hub.knobs.limit_storage(0)
    async with running():
        good = await asyncio.to_thread(scene.insert)
        await until(lambda: count(said)["outage"])
        bad = await asyncio.to_thread(scene.insert, [b"GIF89a" + bytes(99)] * 3)
        await until(lambda: scene.database.status(bad) == "failed")
        before = len(scene.database.outcomes(good))
        await until(lambda: len(scene.database.outcomes(good)) >= before + 2)
        scene.sandbox.hub.knobs.limit_storage(None)
        await until(lambda: scene.database.status(good) == "published" and count(said)["outage_over"])
    assert (count(said)["outage"], count(said)["outage_over"]) == (1, 1)
    assert set(scene.database.outcomes(good)[:-1]) == {"released"}


async def test_an_outage_ends_although_the_repos_that_are_asked_about_are_disabled_for_ever(
    scene: Scene, running: Running, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PAUSE_LONGEST", 0.2)
    async with running():
        rows = [await asyncio.to_thread(scene.insert) for _ in range(2)]
        await until(lambda: {scene.database.status(row) for row in rows} == {"published"})
    said.clear()
    for repo in [*scene.repos(), "sandbox/identity-zed-"]:
        scene.sandbox.faults.add(
            Answer(403, {"error": "Access to this resource is disabled."}),
            service="hub",
            path=f"/{repo}.*/(info/lfs|commit)",
            times=None,
        )
    zed = await asyncio.to_thread(scene.insert, name="Zed")
    async with running():
        await until(lambda: count(said)["outage"])
        others = [await asyncio.to_thread(scene.insert) for _ in range(3)]
        await until(lambda: all(scene.database.status(row) == "published" for row in others))
        await until(lambda: count(said)["outage_over"])
    assert scene.database.status(zed) == "pending"
    assert all(scene.database.outcomes(row) == ["published"] for row in others)


async def test_each_claim_has_one_line_that_says_how_it_ended(
    scene: Scene, running: Running, said: Said
) -> None:
    async with running() as task:
        bad = await asyncio.to_thread(scene.insert, [b"GIF89a" + bytes(99)] * 3)
        good = await asyncio.to_thread(scene.insert)
        await until(
            lambda: (scene.database.status(good), scene.database.status(bad)) == ("published", "failed")
        )
        busy = Answer(503, "busy", {"retry-after": "600"})
        scene.sandbox.faults.add(busy, service="hub", path="/api/repos/create", times=1)
        later = await asyncio.to_thread(scene.insert)
        await until(lambda: scene.database.outcomes(later) == ["deferred"])
        back = await stuck(scene)
        tell_to_stop()
        tell_to_stop()
        await asyncio.wait_for(task, PATIENCE)
    ends = {"published", "failed", "deferred", "released", "lease_lost"}
    assert {
        str(row): [
            line["event"] for line in said if line.get("identity") == str(row) and line["event"] in ends
        ]
        for row in (good, bad, later, back)
    } == {str(good): ["published"], str(bad): ["failed"], str(later): ["deferred"], str(back): ["released"]}
    assert all("attempt" in line for line in said if "identity" in line)


async def test_a_predecessors_row_that_was_locked_just_then_is_taken_a_moment_later(
    scene: Scene, verbs: Verbs, running: Running
) -> None:
    row = scene.insert()
    dead: dict[str, Any] = {
        "instance": "test",
        "run": str(uuid4()),
        "slots": {"publish": 1},
        "lease": 600,
        "holding": [],
    }
    await verbs.claim(**dead, predecessor_is_dead=False, machine=machine())
    with psycopg.connect(scene.database.dsn()) as somebody:
        somebody.execute("select from public.trained_identities where id = %s for update", [row])
        async with running():
            await asyncio.sleep(0.5)
            somebody.rollback()
            await until(lambda: scene.database.status(row) == "published")


async def test_an_outage_is_reported_although_nothing_is_claimed_and_withdrawn_when_it_is_over(
    scene: Scene, running: Running, said: Said
) -> None:
    def reported() -> Any:
        return scene.database.value("select outages from watcher.instances where name = 'test'")

    async with running():
        scene.sandbox.hub.knobs.limit_storage(10)
        row = await asyncio.to_thread(scene.insert)
        await until(lambda: count(said)["outage"])
        await until(lambda: "storage limit reached" in reported().get("publish", ""))
        assert await asyncio.to_thread(scene.database.status, row) == "pending"
        scene.sandbox.hub.reset()
        await until(lambda: scene.database.status(row) == "published")
        await until(lambda: reported() == {})


async def test_a_pause_is_obeyed_and_shown_until_it_is_ended(
    scene: Scene, running: Running, said: Said
) -> None:
    address = free_address()
    async with running(metrics_address=address):
        scene.database.run("select public.watcher_pause('publish')", role="service_role")
        await until(lambda: len(scene.seen("POST", "watcher_claim")) > 1)
        row = await asyncio.to_thread(scene.insert)
        claims = len(scene.seen("POST", "watcher_claim"))
        await until(lambda: len(scene.seen("POST", "watcher_claim")) > claims + 3)
        assert scene.database.status(row) == "pending"
        assert (
            'watcher_paused{kind="publish"} 1.0' in (await asyncio.to_thread(get, address, "/metrics")).text
        )
        assert (await asyncio.to_thread(get, address, "/readyz")).status_code == 200
        scene.database.run("select public.watcher_resume()", role="service_role")
        await until(lambda: scene.database.status(row) == "published")
