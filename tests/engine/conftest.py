"""What several of these tests begin with."""

from collections.abc import Iterator

import pytest

from tests.support.watching import Manager
from watcher.engine.outages import Outages


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A service manager, as systemd would be."""
    with Manager() as manager:
        yield manager


@pytest.fixture
def outages() -> Outages:
    """No outage so far."""
    return Outages()
