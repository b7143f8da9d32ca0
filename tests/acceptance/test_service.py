"""Under a service manager: it says when it is ready, how it is, that it lives, and that it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.person import Person
from tests.acceptance.places import PHOTOS, hold, inserted
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE
from tests.support.watching import Manager
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer

WATCHDOG = 1.0
"""Seconds."""


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager


def under(manager: Manager) -> dict[str, str]:
    """What a service finds in its environment."""
    return {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}


def test_it_tells_its_life_in_order_and_beats_while_it_works(
    stage: Stage, sandbox: Sandbox, person: Person, manager: Manager
) -> None:
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    with Watcher(stage, WATCHER_GRACE="20", **under(manager)) as watcher:
        manager.wait_for("READY=1")
        held.wait_reached()
        manager.wait_for("STATUS=Working on 1 row.")
        manager.wait_for("WATCHDOG=1", count=5)
        watcher.send(signal.SIGTERM)
        stopping = manager.wait_for("STOPPING=1")
        manager.wait_for("STATUS=Stopping: 1 row ")
        time.sleep(WATCHDOG)
        held.release()
        assert watcher.wait() == 0
    audit(stage, person.row(identity), PHOTOS)
    assert manager.steps == ["STATUS", "READY", "STOPPING", "EXTEND_TIMEOUT_USEC"]
    [extended] = manager.told("EXTEND_TIMEOUT_USEC=")
    assert extended.line == "EXTEND_TIMEOUT_USEC=25000000"
    last = manager.told("WATCHDOG=1")[-1]
    assert last.at <= stopping.at, "A beat would set the watchdog of a stopping service going again."


def test_an_outage_at_the_start_is_waited_out_and_said_and_realtime_is_not_waited_for(
    stage: Stage, sandbox: Sandbox, manager: Manager
) -> None:
    away = sandbox.faults.add(Answer(503), service="rest", path="/rpc/", times=None)
    sandbox.realtime.refuse(503, times=10**6)
    try:
        with Watcher(stage, **under(manager)) as watcher:
            manager.wait_for("STATUS=Starting: Supabase could not be reached")
            time.sleep(WATCHDOG)
            assert manager.steps == ["STATUS"]
            assert manager.told("WATCHDOG=1") == []
            sandbox.faults.remove(away)
            manager.wait_for("READY=1")
            manager.wait_for("STATUS=Waiting for rows. Realtime is down")
            watcher.stop()
    finally:
        sandbox.realtime.refuse(503, times=0)


def test_a_daemon_that_is_frozen_beats_no_more_and_says_where_it_hung(stage: Stage, manager: Manager) -> None:
    with Watcher(stage, **under(manager)) as watcher:
        manager.wait_for("WATCHDOG=1", count=3)
        watcher.send(signal.SIGSTOP)
        time.sleep(WATCHDOG)
        beats = len(manager.told("WATCHDOG=1"))
        time.sleep(WATCHDOG)
        assert len(manager.told("WATCHDOG=1")) == beats
        watcher.send(signal.SIGABRT)
        watcher.send(signal.SIGCONT)
        assert watcher.wait() == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in watcher.text


def test_who_is_set_up_wrongly_never_gets_ready_and_the_journal_has_the_reason_as_an_error(
    stage: Stage, sandbox: Sandbox, manager: Manager
) -> None:
    sandbox.faults.add(Answer(503), service="hub", path="whoami", times=1)
    reading, writing = os.pipe()
    journal = os.fstat(writing)
    settings = {
        **stage.settings,
        **under(manager),
        "HF_TOKEN": "hf_nobody",
        "WATCHER_SPOOL": str(stage.folder / "spool"),
        "JOURNAL_STREAM": f"{journal.st_dev}:{journal.st_ino}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "run"],
        env=environment(settings, stage.folder),
        stderr=writing,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writing)
    with os.fdopen(reading) as said:
        waited, last = said.read().splitlines()
    assert done.returncode == 78
    assert waited.startswith("<4>{")
    assert json.loads(waited[3:])["event"] == "unreachable"
    assert last.startswith("<3>watcher: The Hub refused the token")
    assert "READY" not in manager.steps
