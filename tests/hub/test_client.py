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
from tests.support.waiting import PATIENCE, wait_until
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


UPLOADS = 32 * 10
"""At the same time: as many batches as the most slots, each of ten images that are sent together."""


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
    assert rate_limit.is_scarce
    assert rate_limit.pause() == 0
    # 10 of the 1000 are left unused.
    assert 2.2 < rate_limit.pause() <= 201 / 90


def test_what_is_being_sent_counts_as_used() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(101, 200))
    with rate_limit.in_flight():
        while_sending = rate_limit.is_scarce
    assert (while_sending, rate_limit.is_scarce) == (True, False)


@pytest.mark.parametrize("remaining", [0, 10])
def test_once_none_is_left_but_the_reserve_nobody_sends_before_the_window_ends(remaining: int) -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(remaining, 250))
    assert 249 < rate_limit.pause() <= 251


def test_a_response_that_was_overtaken_does_not_raise_what_remains_and_a_new_window_does() -> None:
    rate_limit = RateLimit()
    for remaining, seconds, known in [
        (50, 200, 50),
        (60, 200, 50),
        (40, 199, 40),
        (990, 300, 990),
        (30, 199, 990),
    ]:
        rate_limit.update(told(remaining, seconds))
        assert rate_limit.remaining == known


def test_what_is_left_is_known_until_the_window_ends() -> None:
    rate_limit = RateLimit()
    assert rate_limit.requests == {}
    rate_limit.update(told(99, 200))
    assert rate_limit.requests == {"remaining": 99, "limit": 1000}
    rate_limit = RateLimit()
    began = time.monotonic()
    rate_limit.update(told(99, 0))
    assert rate_limit.remaining == 99
    # Then a new window has begun, and nobody has said what it allows.
    wait_until(lambda: rate_limit.requests == {})
    assert time.monotonic() - began > 1
    assert not rate_limit.is_scarce


def test_what_is_left_for_downloads_is_no_concern_of_ours() -> None:
    rate_limit = RateLimit()
    rate_limit.update(told(5, 200, kind="resolvers"))
    assert rate_limit.remaining is None


async def no_thread_asks() -> None:
    """Wait until every thread that asks the Hub has ended, also those whose caller was cancelled."""
    await asyncio.to_thread(
        wait_until, lambda: not [one for one in threading.enumerate() if one.name == "hub"]
    )


async def test_a_hub_that_runs_low_is_asked_more_slowly_and_never_refuses(scene: Scene, hub: Hub) -> None:
    scene.sandbox.hub.knobs.limit_requests(4, window=2)
    began = time.monotonic()
    for _ in range(6):
        await hub.check_token()
    assert time.monotonic() - began > 1
    assert all(seen.status == 200 for seen in scene.seen("GET", "/api/whoami-v2"))


async def test_two_that_share_a_limit_use_it_up_and_are_not_refused(scene: Scene) -> None:
    quota = 60
    scene.sandbox.hub.knobs.limit_requests(quota, window=300)
    token = {"Authorization": f"Bearer {scene.sandbox.hub_token}"}
    url = f"{scene.sandbox.hub_url}/api/whoami-v2"
    clients = [Client(url) for _ in range(2)]

    async def ask(client: Client) -> None:
        while True:
            await in_thread(lambda: client.get(url, headers=token))

    tasks = [asyncio.create_task(ask(client)) for client in clients for _ in range(3)]
    # The last tenth is spread over five minutes.
    await asyncio.to_thread(wait_until, lambda: len(scene.seen("GET", "/api/whoami-v2")) >= 0.9 * quota)
    await asyncio.to_thread(wait_until, lambda: all(client.rate_limit.is_scarce for client in clients))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await no_thread_asks()
    assert 429 not in {seen.status for seen in scene.seen("GET", "/api/whoami-v2")}
    for client in clients:
        client.close_for_good()


async def test_a_request_whose_caller_was_cancelled_is_not_sent(scene: Scene, hub: Hub) -> None:
    await hub.create(REPO)
    scene.sandbox.hub.knobs.limit_requests(1, window=300)
    await hub.check_token()
    look = asyncio.create_task(hub.look(REPO, ROW))
    turn = asyncio.create_task(hub.turn())
    await asyncio.sleep(0.05)
    for task in (look, turn):
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await no_thread_asks()
    assert not scene.seen("GET", "/commits/main")


async def test_what_a_thread_logs_has_the_fields_of_its_row() -> None:
    structlog.contextvars.bind_contextvars(identity="one")
    assert await in_thread(structlog.contextvars.get_contextvars) == {"identity": "one"}
