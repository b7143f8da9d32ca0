"""The daemon's loop: it counts the time for which its host was suspended, and survives where threads are out."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.support.limits import no_more_threads
from watcher.engine.lease import Leases
from watcher.errors import LeaseLost, Outage
from watcher.process import event_loop
from watcher.process.event_loop import EventLoop
from watcher.settings.settings import environment
from watcher.supabase.client import supabase_client
from watcher.supabase.rpc import Rpc
from watcher.supabase.verbs import Verbs

LENGTH = 6000.0  # of a lease, in seconds: nothing here waits for its end


class Host:
    """A host that can be suspended, as its clock tells it."""

    def __init__(self) -> None:
        self._suspended = 0.0
        self.looks = 0

    def clock(self) -> float:
        self.looks += 1
        return time.monotonic() + self._suspended

    def suspend(self, seconds: float = LENGTH) -> None:
        self._suspended += seconds

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=partial(EventLoop, self.clock)) as runner:
            runner.run(main)


@pytest.fixture
def host() -> Host:
    return Host()


async def held(body: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    leases = Leases(cast("Verbs", None), length=LENGTH, renewal=LENGTH / 4)
    async with leases.held(1, requested_at=asyncio.get_running_loop().time()) as lease:
        await body(lease)


def test_a_host_that_was_suspended_does_not_believe_in_its_lease(host: Host) -> None:
    async def commit(lease: Any) -> None:
        lease.check()
        host.suspend()
        lease.check()

    with pytest.raises(LeaseLost, match="The lease of attempt 1 expired"):
        host.run(held(commit))


def test_work_that_waits_for_something_else_is_ended_soon_after_a_suspension(host: Host) -> None:
    waiting = threading.Event()

    def suspend_while_it_sleeps() -> None:
        waiting.wait()
        time.sleep(0.2)
        host.suspend()

    async def wait(_: Any) -> None:
        asyncio.get_running_loop().call_soon(waiting.set)
        # Its only timer is that of the lease, and the kernel would wait for it for more than an hour.
        await asyncio.Event().wait()

    suspending = threading.Thread(target=suspend_while_it_sleeps)
    suspending.start()
    with pytest.raises(LeaseLost, match="not renewed in time"):
        host.run(held(wait))
    suspending.join()


def test_timers_are_on_time_and_an_idle_loop_hardly_looks_at_its_clock(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "_LONGEST_WAIT", 0.25)

    async def sleep() -> None:
        began, looks = host.clock(), host.looks
        await asyncio.sleep(1.1)
        assert host.clock() - began >= 1.1
        assert host.looks - looks <= 30, "A few for each wait."

    host.run(sleep())


_LATER = ["unshare", "--time", "--boottime", "100000", "--fork"]


def can_be_elsewhere_in_time() -> bool:
    try:
        return subprocess.run([*_LATER, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_be_elsewhere_in_time(), reason="needs a time namespace: Linux, root, util-linux")
def test_its_clock_has_counted_what_the_host_was_suspended_for() -> None:
    program = """
import asyncio, time
from watcher.process.event_loop import EventLoop
with asyncio.Runner(loop_factory=EventLoop) as runner:
    print(runner.get_loop().time() - time.monotonic())
"""
    told = subprocess.run(
        [*_LATER, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(told.stdout) == pytest.approx(100_000, abs=60)


def test_the_command_runs_on_it(tmp_path: Path) -> None:
    program = """
import asyncio, watcher.app
from watcher.cli import main
async def run(settings, *, stopped):
    print(type(asyncio.get_running_loop()).__module__)
watcher.app.run = run
main()
"""
    given = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_1", "HF_TOKEN": "hf_1"}
    given |= {"PATH": environment()["PATH"], "WATCHER_SPOOL": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program, "run"], env=given, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "watcher.process.event_loop\n", "")


def test_a_thread_that_cannot_be_started_is_an_outage_of_this_host(host: Host) -> None:
    async def use_threads() -> None:
        with (
            no_more_threads(),
            pytest.raises(Outage, match=r"^This host cannot start more threads: .*TasksMax"),
        ):
            await asyncio.to_thread(os.getpid)
        with no_more_threads(), pytest.raises(Outage):
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert await asyncio.to_thread(os.getpid) == os.getpid()

    host.run(use_threads())


def test_a_call_of_supabase_for_which_no_thread_can_look_the_name_up_is_such_an_outage(host: Host) -> None:
    async def call() -> None:
        async with httpx.AsyncClient() as http:
            rpc = Rpc(supabase_client("http://localhost:9", "sb_secret_1", http))
            with no_more_threads(), pytest.raises(Outage, match="cannot start more threads"):
                await rpc.call("watcher_version")

    host.run(call())


def test_other_errors_of_its_executor_are_not_taken_for_that(host: Host) -> None:
    async def shut_down() -> None:
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="shutdown"):
            await asyncio.to_thread(os.getpid)

    host.run(shut_down())
