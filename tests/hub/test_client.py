"""Habits of huggingface_hub 2.4.0 that are kept from it: first as it is, then under our client."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from httpx2 import _content
from huggingface_hub import CommitOperationAdd, HfApi, close_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory, get_session, http_backoff

from tests.support.pictures import jpeg
from tests.support.scene import Scene
from watcher.errors import Transient
from watcher.hub.repos import Hub
from watcher.sandbox.faults import Hang, Hold

REPO, ROW = "sandbox/identity-ada-1", "5d0f2c1e-0000-4000-8000-000000000001"


@contextmanager
def as_it_comes() -> Iterator[None]:
    set_client_factory(default_client_factory)
    try:
        yield
    finally:
        close_session()


def test_as_it_comes_the_library_asks_for_ever_while_another_repo_is_being_created(scene: Scene) -> None:
    scene.sandbox.hub.knobs.conflict(times=40)
    with as_it_comes():
        HfApi(scene.sandbox.hub_url, scene.sandbox.hub_token).create_repo(REPO, private=True)
    assert len(scene.seen("POST", "/api/repos/create")) == 41


async def test_a_creation_beside_another_is_one_request(scene: Scene, hub: Hub) -> None:
    scene.sandbox.hub.knobs.conflict(times=40)
    with pytest.raises(Transient, match="creating another repo"):
        await hub.create(REPO)
    assert len(scene.seen("POST", "/api/repos/create")) == 1


async def test_creations_of_one_daemon_come_one_after_the_other(scene: Scene, hub: Hub) -> None:
    hung = scene.sandbox.faults.add(Hang(), service="hub", path="/api/repos/create")
    first = asyncio.create_task(hub.create(REPO))
    await asyncio.to_thread(hung.wait_reached)
    second = asyncio.create_task(hub.create(f"{REPO}0"))
    await asyncio.sleep(0.1)
    assert len(scene.seen("POST", "/api/repos/create")) == 1
    scene.sandbox.faults.clear()
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], Transient)
    await second


def test_as_it_comes_the_library_asks_how_each_batch_is_to_be_sent_and_may_put_images_into_the_commit(
    scene: Scene, tmp_path: Path
) -> None:
    scene.sandbox.hub.knobs.images_as("regular")
    file = tmp_path / "1"
    file.write_bytes(jpeg(1))
    with as_it_comes():
        api = HfApi(scene.sandbox.hub_url, scene.sandbox.hub_token)
        api.create_repo(REPO, private=True)
        api.preupload_lfs_files(REPO, [CommitOperationAdd("images/image_001.jpg", file)])
    assert len(scene.seen("POST", "/preupload/")) == 1
    assert not scene.seen("PUT", "/_lfs/")


def test_as_it_comes_httpx2_reads_a_quarter_of_what_ours_does() -> None:
    assert "CHUNK_SIZE = 65_536" in inspect.getsource(_content)
    assert "self._stream.read(self.CHUNK_SIZE)" in inspect.getsource(_content)
    assert _content.IteratorByteStream.CHUNK_SIZE == 4 * 65_536


def meet_nobody() -> None:
    with pytest.raises(httpx2.ConnectError):
        http_backoff("GET", "http://127.0.0.1:9/", max_retries=0)


def test_as_it_comes_the_library_closes_everybodys_client_when_one_thread_cannot_connect() -> None:
    with as_it_comes():
        shared = get_session()
        meet_nobody()
        assert shared.is_closed


async def test_a_thread_that_cannot_connect_leaves_the_others_alone(scene: Scene, hub: Hub) -> None:
    await hub.create(REPO)
    empty = await hub.look(REPO, ROW)
    held = scene.sandbox.faults.add(Hold("after"), service="hub", path="/commits/main")
    other = asyncio.create_task(hub.look(REPO, ROW))
    await asyncio.to_thread(held.wait_reached)
    stranger = threading.Thread(target=meet_nobody)
    stranger.start()
    await asyncio.to_thread(stranger.join)
    held.release()
    assert await other == empty
    assert not get_session().is_closed
    assert await hub.look(REPO, ROW) == empty


async def test_a_look_that_hangs_ends_in_time_though_the_library_asks_for_none(
    scene: Scene, hub: Hub
) -> None:
    await hub.create(REPO)
    hung = scene.sandbox.faults.add(Hang(), service="hub", path=f"^/api/models/{REPO}$")
    hub._client.timeout = httpx2.Timeout(0.2)
    async with asyncio.timeout(5):
        with pytest.raises(Transient, match="timed out"):
            await hub.look(REPO, ROW)
    assert hung.reached == 1
