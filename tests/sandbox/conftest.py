"""Projects to ask over HTTP, one for each file of tests."""

from collections.abc import Iterator

import pytest

from sandbox.served import Project, served
from watcher.sandbox.postgres import Postgres


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[Project]:
    """A project as they are made today: nothing is open unless it is granted."""
    with served(postgres, auto_expose=False) as project:
        yield project


@pytest.fixture(scope="module")
def old_project(postgres: Postgres) -> Iterator[Project]:
    """A project as they were made: all is open unless RLS closes it."""
    with served(postgres, auto_expose=True) as project:
        yield project
