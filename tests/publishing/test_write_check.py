"""What the repos of other rows show of the right to write to one."""

import re

import pytest

from tests.support.scene import Scene, claim
from watcher.errors import Outage
from watcher.hub.repos import Hub
from watcher.identity import Publication
from watcher.publishing.write_check import WriteCheck
from watcher.sandbox.faults import Answer
from watcher.supabase.verbs import Verbs


@pytest.fixture
async def newest(scene: Scene, verbs: Verbs, hub: Hub) -> tuple[str, ...]:
    """The repos of two users, the last one first."""
    names = []
    for _ in range(2):
        scene.insert()
        attempt = (await claim(verbs)).attempt
        name = await verbs.reserve(attempt, hub.namespace, "ada")
        await hub.create(name)
        await verbs.complete(attempt, Publication(hub.url(name), "c0ffee"), {"a": 1}, answered=True)
        names.append(name)
    return tuple(reversed(names))


def disable(scene: Scene, repo: str) -> None:
    scene.sandbox.faults.add(
        Answer(403, {"error": "Access to this resource is disabled."}),
        service="hub",
        path=re.escape(repo),
        times=None,
    )


async def test_one_repo_that_takes_an_upload_is_enough(
    scene: Scene, verbs: Verbs, hub: Hub, newest: tuple[str, ...]
) -> None:
    row = str(scene.insert())
    check = WriteCheck(verbs, hub)
    assert await check(row)
    disable(scene, newest[0])
    assert await check(row)
    disable(scene, newest[1])
    with pytest.raises(Outage, match="disabled"):
        await check(row)


@pytest.mark.parametrize("gone", [0, 1])
async def test_one_that_is_refused_shows_nothing_where_the_other_is_gone(
    scene: Scene, verbs: Verbs, hub: Hub, newest: tuple[str, ...], gone: int
) -> None:
    await hub.delete(newest[gone])
    disable(scene, newest[1 - gone])
    assert not await WriteCheck(verbs, hub)(str(scene.insert()))
