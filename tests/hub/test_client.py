"""What huggingface_hub 2.4.0 does by itself and what it does under our client, and the pace at which the Hub is asked."""

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import structlog
from httpx2 import _content
from huggingface_hub import CommitOperationAdd, HfApi, close_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory, get_session, http_backoff

from tests.support.pictures import jpeg
from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from watcher.errors import Transient
from watcher.hub.client import Client
from watcher.hub.rate_limit import RateLimit
from watcher.hub.repos import Hub
from watcher.hub.threads import in_thread
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
    hub._client.timeout = httpx2.Timeout(1)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Transient, match="timed out"):
            await hub.look(REPO, ROW)
    assert hung.reached == 1


UPLOADS = 32 * 2 * 5
"""At the same time: the most slots, each with two batches of five images."""


@contextmanager
def answering_all_at_once(requests: int) -> Iterator[str]:
    """Serve so many requests, none of them before all have come; gives the URL."""
    server = socket.create_server(("127.0.0.1", 0), backlog=requests)
    server.settimeout(30)

    def serve() -> None:
        with server, ExitStack() as stack:
            arrived = [stack.enter_context(server.accept()[0]) for _ in range(requests)]
            for connection in arrived:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    serving = threading.Thread(target=serve)
    serving.start()
    yield "http://{}:{}".format(*server.getsockname())
    serving.join()


def test_no_upload_waits_for_the_connection_of_another() -> None:
    with answering_all_at_once(UPLOADS) as url:
        client = Client(url)
        with ThreadPoolExecutor(UPLOADS) as threads:
            answers = list(threads.map(client.put, [url] * UPLOADS))
        client.close_for_good()
    assert [answer.status_code for answer in answers] == [200] * UPLOADS


# The pace.


def told(remaining: int, seconds: int, *, kind: str = "api") -> dict[str, str]:
    return {
        "RateLimit": f'"{kind}";r={remaining};t={seconds}',
        "RateLimit-Policy": f'"fixed window";"{kind}";q=1000;w=300',
    }


def test_nothing_is_slowed_down_while_there_is_plenty_or_nobody_has_said() -> None:
    rate_limit = RateLimit()
    assert rate_limit.pause() == 0
    rate_limit.update(told(900, 200))
    assert (rate_limit.remaining, rate_limit.pause()) == (900, 0)


def test_near_the_end_of_the_rate_limit_the_rest_is_spread_over_the_rest_of_the_window() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(99, 200))
    assert 1.9 < rate_limit.pause() <= 2


def test_no_pause_is_longer_than_ten_seconds_and_none_outlasts_the_window() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(0, 250))
    assert rate_limit.pause() == 10
    rate_limit.update(told(0, 0))
    assert rate_limit.pause() == 0


def test_what_is_left_is_known_until_the_window_ends() -> None:
    rate_limit = RateLimit()
    assert rate_limit.requests == {}
    rate_limit.update(told(99, 200))
    assert rate_limit.requests == {"remaining": 99, "limit": 1000}
    rate_limit.update(told(99, 0))
    assert rate_limit.requests == {}, "A new window has begun, and nobody has said what it allows."


def test_what_is_left_for_downloads_is_no_concern_of_ours() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(5, 200, kind="resolvers"))
    assert rate_limit.remaining is None


async def test_a_hub_that_runs_low_is_asked_more_slowly_and_never_refuses(scene: Scene, hub: Hub) -> None:
    scene.sandbox.hub.knobs.limit_requests(4, window=2)
    began = time.monotonic()
    for _ in range(6):
        await hub.check_token()
    assert time.monotonic() - began > 1
    assert all(seen.status == 200 for seen in scene.seen("GET", "/api/whoami-v2"))


async def test_what_a_thread_logs_has_the_fields_of_its_row() -> None:
    structlog.contextvars.bind_contextvars(identity="one")
    assert await in_thread(structlog.contextvars.get_contextvars) == {"identity": "one"}
