"""What tests of the operator's commands share."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.scene import Scene
from watcher.operator.doctor import Finding, examine
from watcher.settings import settings

Look = Callable[..., list[Finding]]


@pytest.fixture
def look(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Look:
    """What doctor finds, with the settings as they are or as they are given."""

    def found(**given: str) -> list[Finding]:
        own = {"WATCHER_SPOOL": str(tmp_path / "spool"), "WATCHER_INSTANCE": "attic"}
        for name, value in (scene.sandbox.settings() | own | given).items():
            monkeypatch.setenv(name, value)

        async def all_of_it() -> list[Finding]:
            return [finding async for finding in examine(settings.load())]

        return asyncio.run(all_of_it())

    return found
