"""One stage for each file of tests, cleared after every test.

The sandbox, or where SUPABASE_URL is set the Supabase and the Hub that the environment names: then without -n, since
files that run at the same time would share one table and take each other's rows, and with no other watcher running.
"""

import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher, running
from tests.acceptance.stage import Stage, elsewhere, opened
from tests.support.waiting import PATIENCE
from watcher.sandbox import Sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the fixture `sandbox` is marked; what is marked is skipped where there is none."""
    for item in items:
        if item.path.parent != Path(__file__).parent or not isinstance(item, pytest.Function):
            continue
        if "sandbox" in item.fixturenames:
            item.add_marker(pytest.mark.faults)
        if elsewhere() and item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.skip(reason="asks for what only the sandbox can give"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemons said beside the failure of a test."""
    report = yield
    if report.failed:
        report.sections += [(f"daemon {daemon.instance}", "".join(daemon.lines[-300:])) for daemon in running]
        for daemon in [one for one in running if one.process.poll() is not None]:
            running.discard(daemon)
    return report


@pytest.fixture(scope="module")
def services() -> Iterator[Stage]:
    """The services, for all tests of a file."""
    with tempfile.TemporaryDirectory(prefix="acceptance-") as folder, opened(Path(folder)) as stage:
        yield stage


@pytest.fixture
def stage(services: Stage) -> Iterator[Stage]:
    """The services, with nothing in them that a test made."""
    yield services
    if services.sandbox is not None:
        services.sandbox.faults.clear()
    services.clear()


@pytest.fixture
def sandbox(stage: Stage) -> Sandbox:
    """The sandbox, for a test that asks it for faults or figures."""
    assert stage.sandbox is not None
    stage.sandbox.faults.reset()
    return stage.sandbox


@pytest.fixture(scope="module")
def daemon(services: Stage) -> Iterator[Watcher]:
    """One daemon for all tests of a file, for those that do it no harm. It shows progress often, and hardly polls."""
    with Watcher(services, WATCHER_RENEWAL="1", WATCHER_POLL_ALIVE="600") as running:
        yield running.ready()
        running.stop()


@pytest.fixture
def person(stage: Stage) -> Person:
    """Somebody with an account."""
    return Person(stage)


@pytest.fixture
def people(stage: Stage) -> Callable[[], Person]:
    """As many as are wanted."""
    return lambda: Person(stage)


@pytest.fixture(autouse=True)
def _nothing_stays_running() -> Iterator[None]:
    """A test that leaves a thread behind fails; those in which the sandbox works end with it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name != "AnyIO worker thread":
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"The test left {thread} behind."
