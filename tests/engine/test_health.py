"""What the daemon says of itself: to systemd, to probes, and that a claim loop that hangs says nothing any more."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.support.deprecations import CLOSED
from tests.support.scene import Scene
from tests.support.waiting import PATIENCE, until
from tests.support.watching import Manager
from watcher.engine.attempt import Attempts
from watcher.engine.daemon import Daemon
from watcher.engine.health import Health
from watcher.engine.lease import Leases
from watcher.engine.outages import Outages
from watcher.engine.reach import Reach
from watcher.engine.retry import Retry
from watcher.process.sd_notify import ServiceManager
from watcher.publishing.publisher import Publisher
from watcher.sandbox.faults import Hang
from watcher.settings import settings
from watcher.supabase.answers import Claims
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import Verbs

pytestmark = CLOSED

WATCHDOG = 1.0


def watched(manager: Manager, outages: Outages, *, watchdog: float = WATCHDOG) -> Health:
    """The health of a daemon that such a service manager has started."""
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(watchdog * 1e6))}
    return Health(ServiceManager(environment), outages, answer_within=0.3)


@pytest.mark.usefixtures("no_waiting")
async def test_it_is_ready_while_supabase_has_answered_lately_and_nothing_is_away(manager: Manager) -> None:
    outages = Outages()
    health = watched(manager, outages, watchdog=60)
    assert "Supabase and the Hub" in str(health.why_not_ready())
    health.started()
    assert health.why_not_ready() is None
    await asyncio.sleep(0.35)
    assert "Supabase has not responded" in str(health.why_not_ready())
    health.answered(asyncio.get_running_loop().time())
    assert health.why_not_ready() is None
    outages.mark_unreachable("Supabase could not be reached.")
    assert health.why_not_ready() == "Supabase could not be reached."
    outages.mark_reachable()
    outages.begin_refusal("The Hub refused the token.")
    assert health.why_not_ready() == "The Hub refused the token."
    [refusal] = outages.of("publish")
    assert outages.end_refusal(refusal)
    assert health.why_not_ready() is None
    health.stopping(5)
    assert health.why_not_ready() == "The daemon is stopping."
    assert health.why_dead() is None


async def test_the_status_is_one_line_and_said_when_it_changes(manager: Manager) -> None:
    outages = Outages()
    health = watched(manager, outages, watchdog=60)
    health.heartbeat()
    outages.mark_unreachable("Supabase could not\nbe reached.")
    health.heartbeat()
    health.heartbeat()
    outages.mark_reachable()
    health.feed_alive = True
    health.started()
    for health.running in (0, 1, 2):
        health.show()
    health.feed_alive = False
    health.show()
    outages.begin_refusal("The Hub refused " + "x" * 999)
    health.show()
    health.stopping(5)
    manager.wait_for("STATUS=Stopping")
    statuses = [message.line.removeprefix("STATUS=") for message in manager.told("STATUS=")]
    assert statuses == [
        "Starting: connecting to Supabase and the Hub.",
        "Starting: Supabase could not be reached.",
        "Waiting for rows.",
        "Working on 1 row.",
        "Working on 2 rows.",
        "Working on 2 rows. Realtime is down: polling every few seconds.",
        ("Outage: The Hub refused " + "x" * 999)[:200],
        "Stopping: 2 rows to finish or release.",
    ]
    assert [message.line for message in manager.told("EXTEND")] == ["EXTEND_TIMEOUT_USEC=5000000"]


@pytest.mark.usefixtures("no_waiting")
async def test_it_beats_neither_before_it_is_ready_nor_once_it_stops(manager: Manager) -> None:
    health = watched(manager, Outages(), watchdog=0.06)
    for step in (None, health.started, partial(health.stopping, 5)):
        if step is not None:
            step()
        for _ in range(5):
            await asyncio.sleep(0.02)
            health.heartbeat()
    manager.wait_for("STATUS=Stopping")
    lines = [message.line for message in manager.messages]
    assert lines.count("WATCHDOG=1") == 6
    assert "WATCHDOG=1" not in lines[: lines.index("READY=1")] + lines[lines.index("STOPPING=1") :]


@pytest.mark.usefixtures("no_waiting")
async def test_systemd_is_told_that_the_start_is_done_after_half_a_minute_of_outage(manager: Manager) -> None:
    outages = Outages()
    health = watched(manager, outages, watchdog=60)
    outages.mark_unreachable("Supabase is away.")
    for _ in range(8):
        health.heartbeat()
        await asyncio.sleep(5)
    assert health.why_not_ready() == "Supabase is away."
    outages.mark_reachable()
    health.started()
    health.stopping(5)
    manager.wait_for("STATUS=Stopping")
    lines = [message.line for message in manager.messages]
    assert lines.count("READY=1") == 1
    assert lines.index("STATUS=Starting: Supabase is away.") < lines.index("READY=1")
    assert lines.index("READY=1") < lines.index(
        "STATUS=Waiting for rows. Realtime is down: polling every few seconds."
    )
    assert (
        lines.count("WATCHDOG=1") == 2
    )  # with READY=1, and 5 s later; from the start on systemd expects them


class Stuck(Verbs):
    """A table whose third claim does not come back, however often it is told to, until it is let go."""

    claims = 0
    let_go = False

    async def claim(self, **arguments: Any) -> Claims:
        self.claims += 1
        while self.claims == 3 and not self.let_go:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
        return await super().claim(**arguments)


@pytest.fixture
def daemon(
    scene: Scene, verbs: Verbs, publisher: Publisher, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Verbs, Health, Outages], Daemon]:
    """Put a daemon together that looks five times a second."""
    quick = {"WATCHER_POLL": "0.2", "WATCHER_POLL_ALIVE": "0.2"}
    for name, value in (scene.sandbox.settings() | quick).items():
        monkeypatch.setenv(name, value)

    def made(verbs: Verbs, health: Health, outages: Outages) -> Daemon:
        leases = Leases(verbs, length=3, renewal=0.2)
        return Daemon(
            settings=settings.load(),
            verbs=verbs,
            leases=leases,
            attempts=Attempts(
                verbs=verbs,
                leases=leases,
                works={"publish": publisher},
                retry=Retry(),
                reach=Reach({}),
            ),
            outages=outages,
            health=health,
            slots={"publish": 4},
            machine="here",
            startup_check=verbs.check_version,
            probe=verbs.check_version,
        )

    return made


async def ended(daemon: Daemon, life: asyncio.Task[None]) -> None:
    daemon.stop()
    daemon.stop()
    await asyncio.wait_for(life, PATIENCE)


async def test_a_claim_loop_that_hangs_stops_the_watchdog_whatever_else_lives(
    rpc: Rpc, manager: Manager, daemon: Callable[[Verbs, Health, Outages], Daemon]
) -> None:
    stuck, outages = Stuck(rpc), Outages()
    health = watched(manager, outages)
    hanging = daemon(stuck, health, outages)
    life = asyncio.create_task(hanging.run())
    try:
        await until(lambda: stuck.claims == 3)
        await until(lambda: str(health.why_dead()).startswith("The claim loop has hung for"))
        assert health.why_not_ready() is not None
        beats = len(manager.told("WATCHDOG=1"))
        assert beats >= 2
        await asyncio.sleep(1.2 * WATCHDOG)
        assert len(manager.told("WATCHDOG=1")) == beats
        assert not life.done()
    finally:
        stuck.let_go = True
        await ended(hanging, life)


async def test_claims_that_are_not_answered_do_not_stop_it(
    scene: Scene, verbs: Verbs, manager: Manager, daemon: Callable[[Verbs, Health, Outages], Daemon]
) -> None:
    outages = Outages()
    health = watched(manager, outages)
    patient = daemon(verbs, health, outages)
    scene.sandbox.faults.add(Hang(), service="rest", path="watcher_claim$", times=None)
    life = asyncio.create_task(patient.run())
    try:
        await until(lambda: len(manager.told("WATCHDOG=1")) > 4)
        assert outages.reason == f"Supabase did not respond within {WATCHDOG / 2:g} s."
    finally:
        await ended(patient, life)
