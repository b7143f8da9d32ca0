"""What storage3 meets when Storage fares badly: an object without its bytes, one that is late, a slow link."""

import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx
import pytest
from storage3 import AsyncStorageClient
from storage3.exceptions import StorageApiError

from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Cut, Delay, LoseAnswer, Truncate

BUCKET = "images"
IMAGE = {"content-type": "image/jpeg"}
MISSING = ("404", "not_found", "Object not found")


@pytest.fixture(scope="module")
def sandbox(postgres: Postgres) -> Iterator[Sandbox]:
    with Sandbox(postgres=postgres) as sandbox:
        headers = {"apikey": sandbox.keys.secret}
        new = httpx.post(f"{sandbox.supabase_url}/storage/v1/bucket", json={"name": BUCKET}, headers=headers)
        assert new.is_success
        # The thread in which actions run stays as long as the sandbox: it starts here and not in a test.
        nothing = {"bucket": BUCKET, "key": "none", "times": 0}
        assert httpx.post(f"{sandbox.control_url}/actions/storage_hide", json=nothing).is_success
        yield sandbox


@pytest.fixture(autouse=True)
def _well_again(sandbox: Sandbox) -> Iterator[None]:
    yield
    sandbox.faults.clear()


@pytest.fixture
async def images(sandbox: Sandbox) -> AsyncIterator[AsyncStorageClient]:
    """The client, with the secret key; it waits a second at most for any byte."""
    headers = {"apikey": sandbox.keys.secret, "authorization": f"Bearer {sandbox.keys.secret}"}
    async with httpx.AsyncClient(timeout=1) as http:
        yield AsyncStorageClient(f"{sandbox.supabase_url}/storage/v1/", headers, http_client=http)


@pytest.fixture
async def control(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Another process, for all that the sandbox knows."""
    async with httpx.AsyncClient(base_url=sandbox.control_url) as control:
        yield control


async def refusal(images: AsyncStorageClient, key: str) -> tuple[str, str, str]:
    with pytest.raises(StorageApiError) as caught:
        await images.from_(BUCKET).download(key)
    return str(caught.value.status), caught.value.code, caught.value.message


async def uploaded(images: AsyncStorageClient, content: bytes = b"image") -> str:
    key = f"{uuid4()}.jpg"
    await images.from_(BUCKET).upload(key, content, IMAGE)
    return key


async def test_a_row_without_its_bytes_is_there_and_cannot_be_downloaded(
    images: AsyncStorageClient, control: httpx.AsyncClient
) -> None:
    key, other = await uploaded(images), await uploaded(images)
    assert (await control.post("/actions/storage_lose_bytes", json={"bucket": BUCKET, "key": key})).is_success
    assert await refusal(images, key) == ("500", "Internal", "Internal Server Error")
    assert await images.from_(BUCKET).exists(key)
    assert await images.from_(BUCKET).download(other) == b"image"
    assert len(await images.from_(BUCKET).remove([key])) == 1
    assert await refusal(images, key) == MISSING


async def test_bytes_of_nothing_cannot_be_lost(control: httpx.AsyncClient) -> None:
    asked = await control.post("/actions/storage_lose_bytes", json={"bucket": BUCKET, "key": "none"})
    assert asked.status_code == 400
    assert "there is no object 'none' in bucket 'images'" in asked.json()["error"]


async def test_a_late_object_is_missing_until_it_has_been_looked_for_often_enough(
    images: AsyncStorageClient, control: httpx.AsyncClient
) -> None:
    key, other = await uploaded(images), await uploaded(images)
    assert (
        await control.post("/actions/storage_hide", json={"bucket": BUCKET, "key": key, "times": 3})
    ).is_success
    assert await refusal(images, key) == MISSING
    assert not await images.from_(BUCKET).exists(key)
    assert await images.from_(BUCKET).download(other) == b"image"
    assert await refusal(images, key) == MISSING
    assert await images.from_(BUCKET).download(key) == b"image"


async def test_an_object_that_is_late_to_everybody_is_late_by_its_signed_url(
    sandbox: Sandbox, images: AsyncStorageClient
) -> None:
    key = await uploaded(images)
    url = (await images.from_(BUCKET).create_signed_url(key, 60))["signedUrl"]
    sandbox.storage.knobs.hide(BUCKET, key)
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(url)).json()["code"] == "NoSuchKey"
        assert (await anybody.get(url)).content == b"image"


async def test_a_slow_link_takes_its_time_both_ways(
    images: AsyncStorageClient, control: httpx.AsyncClient
) -> None:
    rule = {"action": "rate", "bytes_per_second": 400_000, "service": "storage", "times": None}
    assert (await control.post("/faults", json=rule)).status_code == 201
    began = time.monotonic()
    key = await uploaded(images, b"x" * 100_000)
    there = time.monotonic()
    assert await images.from_(BUCKET).download(key) == b"x" * 100_000
    assert there - began > 0.2
    assert time.monotonic() - there > 0.2


async def test_a_storage_that_is_too_slow_for_the_client_is_a_time_out(
    sandbox: Sandbox, images: AsyncStorageClient
) -> None:
    key = await uploaded(images)
    sandbox.faults.add(Delay(30), service="storage", method="GET")
    with pytest.raises(httpx.ReadTimeout):
        await images.from_(BUCKET).download(key)


async def test_a_download_that_breaks_off_is_an_error_and_one_that_ends_early_is_not(
    sandbox: Sandbox, images: AsyncStorageClient
) -> None:
    key = await uploaded(images, b"x" * 100_000)
    sandbox.faults.add(Cut(), service="storage", path=key)
    with pytest.raises(httpx.RemoteProtocolError):
        await images.from_(BUCKET).download(key)
    sandbox.faults.add(Truncate(), service="storage", path=key)
    assert await images.from_(BUCKET).download(key) == b"x" * 50_000


async def test_an_upload_whose_answer_is_lost_has_been_done(
    sandbox: Sandbox, images: AsyncStorageClient
) -> None:
    sandbox.faults.add(LoseAnswer(), service="storage", method="POST")
    with pytest.raises(httpx.RemoteProtocolError):
        await images.from_(BUCKET).upload("once.jpg", b"image", IMAGE)
    with pytest.raises(StorageApiError) as caught:
        await images.from_(BUCKET).upload("once.jpg", b"image", IMAGE)
    assert (str(caught.value.status), caught.value.code) == ("409", "Duplicate")
