"""Projects and Hubs, one for each file of tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils._http import close_session
from huggingface_hub.utils.tqdm import tqdm

from tests.sandbox import hubs
from tests.sandbox.project import Project, running
from watcher.sandbox.postgres import Postgres


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[Project]:
    """Give a project as they are made today: nothing is open unless it is granted."""
    with running(postgres) as project:
        yield project


@pytest.fixture(scope="module")
def old_project(postgres: Postgres) -> Iterator[Project]:
    """Give a project as they were made before: everything is open unless RLS closes it."""
    with running(postgres, auto_expose=True) as project:
        yield project


@pytest.fixture
def hub_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give the real huggingface_hub a cache of its own, and leave nothing of it running."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        tqdm, "monitor_interval", 0
    )  # otherwise a thread starts, even where bars are disabled
    yield
    close_session()


@pytest.fixture(scope="module")
def served_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hubs.Site]:
    """Serve a Hub."""
    with hubs.served(tmp_path_factory.mktemp("hub")) as site:
        yield site


@pytest.fixture
def site(hub_client: None, served_hub: hubs.Site) -> Iterator[hubs.Site]:
    """Give a Hub without repos or faults."""
    yield served_hub
    served_hub.clear()


@pytest.fixture
def data() -> Iterator[Path]:
    """Give a folder that the user `nobody` can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
