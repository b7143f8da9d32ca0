"""Projects and Hubs to ask over HTTP, one for each file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils._http import close_session
from huggingface_hub.utils.tqdm import tqdm

from tests.sandbox import hubs
from tests.sandbox.served import Project, served
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


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The real huggingface_hub, with a cache of its own and nothing left running."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # its thread starts even where bars are disabled
    yield
    close_session()


@pytest.fixture(scope="module")
def served_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hubs.Site]:
    """A Hub."""
    with hubs.served(tmp_path_factory.mktemp("hub")) as site:
        yield site


@pytest.fixture
def site(hub_client: None, served_hub: hubs.Site) -> Iterator[hubs.Site]:
    """A Hub without repos or faults."""
    yield served_hub
    served_hub.clear()
