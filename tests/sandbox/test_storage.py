"""Storage, where no recording shows it; test_recorded_storage.py has what was recorded. And Storage's own faults."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from storage3 import AsyncStorageClient, SyncStorageClient
from storage3.exceptions import StorageApiError

from tests.sandbox.project import PATIENCE, Project, until

ANN, BEN = str(uuid4()), str(uuid4())
IMAGE: Any = {
    "content-type": "image/jpeg"
}  # the client's own type for this has more fields than one can send
BUCKET = "images"
LIMIT = 100_000
POLICY = """
create policy {0}_own on storage.objects for {0} to authenticated
{1} (bucket_id = 'images' and (storage.foldername(name))[1] = (select auth.uid())::text)
"""
RLS = ("403", "Unauthorized", "new row violates row-level security policy")
MISSING = ("404", "not_found", "Object not found")


@pytest.fixture(scope="module", autouse=True)
def buckets(project: Project) -> None:
    """Make a private bucket, where users have a folder each, and a public one."""
    for action, clause in (("select", "using"), ("insert", "with check"), ("delete", "using")):
        project.sql(POLICY.format(action, clause))
    limits = {"file_size_limit": LIMIT, "allowed_mime_types": ["image/jpeg", "image/png"]}
    with project.http("storage", project.keys.secret) as client:
        assert client.post("/bucket", json={"name": BUCKET, "public": False, **limits}).is_success
        assert client.post("/bucket", json={"name": "open", "public": True}).is_success


@pytest.fixture
def stored(project: Project) -> Callable[[], int]:
    """Count the files that hold the bytes of objects."""
    assert project.sandbox._folder is not None
    objects = project.sandbox._folder / "objects"
    return lambda: len(list(objects.iterdir()))


@pytest.fixture
async def http(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{project.url}/storage/v1", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def ann(project: Project, http: httpx.AsyncClient) -> AsyncStorageClient:
    return AsyncStorageClient(f"{http.base_url}", signed_in(project, ANN), http_client=http)


@pytest.fixture
async def service(project: Project, http: httpx.AsyncClient) -> AsyncStorageClient:
    return AsyncStorageClient(f"{http.base_url}", project.headers(project.keys.secret), http_client=http)


def signed_in(project: Project, user: str) -> dict[str, str]:
    return project.headers(token=project.token(user))


def new_key(user: str = ANN) -> str:
    """Return an unused key in the user's folder."""
    return f"{user}/{uuid4()}/1.jpg"


async def refusal(call: Awaitable[object]) -> tuple[str, str, str]:
    """Return the status, code and message that storage3 raises."""
    with pytest.raises(StorageApiError) as caught:
        await call
    return str(caught.value.status), caught.value.code, caught.value.message


def test_the_synchronous_client_uploads_downloads_and_removes(project: Project) -> None:
    key = new_key()
    with httpx.Client(timeout=PATIENCE) as client:
        url = f"{project.url}/storage/v1/"
        bucket = SyncStorageClient(url, signed_in(project, ANN), http_client=client).from_(BUCKET)
        bucket.upload(key, b"image", IMAGE)
        assert bucket.download(key) == b"image"
        assert [row["name"] for row in bucket.remove([key])] == [key]
        with pytest.raises(StorageApiError, match="Object not found"):
            bucket.download(key)


async def test_overwriting_leaves_one_version_of_the_bytes(
    stored: Callable[[], int], service: AsyncStorageClient
) -> None:
    key = new_key()
    before = stored()
    await service.from_(BUCKET).upload(key, b"first", IMAGE)
    await service.from_(BUCKET).update(key, b"second", IMAGE)
    assert await service.from_(BUCKET).download(key) == b"second"
    assert stored() == before + 1


async def test_an_upload_that_is_too_large_leaves_nothing(
    stored: Callable[[], int], ann: AsyncStorageClient
) -> None:
    before = stored()
    await ann.from_(BUCKET).upload(new_key(), b"x" * LIMIT, IMAGE)
    too_large = ("413", "Payload too large", "The object exceeded the maximum allowed size")
    assert await refusal(ann.from_(BUCKET).upload(new_key(), b"x" * (LIMIT + 1), IMAGE)) == too_large
    assert await refusal(ann.from_(BUCKET).upload(new_key(), b"x" * 50 * LIMIT, IMAGE)) == too_large
    assert stored() == before + 1


async def test_an_upload_that_breaks_off_leaves_nothing(
    project: Project, stored: Callable[[], int], http: httpx.AsyncClient
) -> None:
    key, before = new_key(), stored()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await until(lambda: stored() > before)
        raise httpx.WriteError("the tab was closed")

    headers = {**signed_in(project, ANN), **IMAGE}
    with pytest.raises(httpx.WriteError):
        await http.post(f"/object/{BUCKET}/{key}", headers=headers, content=broken())
    await until(lambda: stored() == before)
    missing = await http.head(f"/object/{BUCKET}/{key}", headers=signed_in(project, ANN))
    assert missing.status_code == 400


@pytest.mark.parametrize("name", ["a%23b.jpg", "a[1].jpg", 'a".jpg'])
async def test_a_key_with_unsafe_characters_is_refused(ann: AsyncStorageClient, name: str) -> None:
    status, code, _ = await refusal(ann.from_(BUCKET).upload(f"{ANN}/{name}", b"x", IMAGE))
    assert (status, code) == ("400", "InvalidKey")


async def test_a_forms_file_may_look_like_a_boundary(project: Project, http: httpx.AsyncClient) -> None:
    key = new_key()
    form = (
        '--X\r\nContent-Disposition: form-data; name="cacheControl"\r\n\r\n60\r\n'
        '--X\r\nContent-Disposition: form-data; name=""; filename="IMG_1.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n\r\n--Y\r\n\r\n--X--\r\n"
    )
    headers = {**signed_in(project, ANN), "content-type": "multipart/form-data; boundary=X"}
    answer = await http.post(f"/object/{BUCKET}/{key}", headers=headers, content=form)
    assert answer.status_code == 200
    found = await http.get(f"/object/{BUCKET}/{key}", headers=signed_in(project, ANN))
    assert (found.content, found.headers["cache-control"]) == (b"\r\n--Y\r\n", "max-age=60")


async def test_a_form_without_a_file_is_refused(project: Project, http: httpx.AsyncClient) -> None:
    form = '--X\r\nContent-Disposition: form-data; name="cacheControl"\r\n\r\n60\r\n--X--\r\n'
    headers = {**signed_in(project, ANN), "content-type": "multipart/form-data; boundary=X"}
    answer = await http.post(f"/object/{BUCKET}/{new_key()}", headers=headers, content=form)
    assert answer.json()["message"] == "No content provided"


async def test_a_raw_body_is_described_by_its_headers(project: Project, http: httpx.AsyncClient) -> None:
    path, described = f"/object/{BUCKET}/{new_key()}", base64.b64encode(b'{"of": "me"}').decode()
    headers = {**signed_in(project, ANN), **IMAGE, "cache-control": "max-age=60", "x-metadata": described}
    assert (await http.post(path, headers=headers, content=b"image")).is_success
    info = await http.get(path.replace("/object/", "/object/info/"), headers=signed_in(project, ANN))
    assert (info.json()["cache_control"], info.json()["metadata"]) == ("max-age=60", {"of": "me"})


async def test_a_range_ends_with_the_object(
    project: Project, http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    key = new_key()
    await service.from_(BUCKET).upload(key, b"0123456789", IMAGE)
    headers = {**project.headers(project.keys.secret), "range": "bytes=8-99"}
    answer = await http.get(f"/object/authenticated/{BUCKET}/{key}", headers=headers)
    assert (answer.status_code, answer.headers["content-range"], answer.text) == (206, "bytes 8-9/10", "89")
    beyond = await http.get(
        f"/object/authenticated/{BUCKET}/{key}", headers={**headers, "range": "bytes=10-"}
    )
    assert (beyond.status_code, beyond.json()["code"]) == (416, "InvalidRange")


async def test_a_public_bucket_can_be_read_without_a_token(
    http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    await service.from_("open").upload("a.txt", b"hello", {"content-type": "text/plain"})
    assert (await http.get("/object/public/open/a.txt")).content == b"hello"
    assert (await http.get("/object/open/a.txt")).content == b"hello"


async def test_a_signed_urls_token_is_good_for_one_object_and_one_direction(
    http: httpx.AsyncClient, ann: AsyncStorageClient
) -> None:
    key, other = new_key(), new_key()
    signed = await ann.from_(BUCKET).create_signed_upload_url(key)
    await ann.from_(BUCKET).upload_to_signed_url(key, signed["token"], b"image", IMAGE)
    assert await ann.from_(BUCKET).download(key) == b"image"
    to_download = str((await ann.from_(BUCKET).create_signed_url(key, 60))["signedUrl"]).partition("token=")[
        2
    ]
    for path, token in ((other, signed["token"]), (key, to_download)):
        url = f"/object/upload/sign/{BUCKET}/{path}"
        refused = await http.put(url, params={"token": token}, headers=IMAGE, content=b"x")
        assert refused.json()["code"] == "InvalidSignature"
    refused = await http.get(f"/object/sign/{BUCKET}/{key}", params={"token": signed["token"]})
    assert refused.json()["code"] == "InvalidSignature"


async def test_a_folder_is_listed_with_its_folders_and_searched_in_any_case(ann: AsyncStorageClient) -> None:
    top = f"{ANN}/{uuid4()}"
    for name in ("b.jpg", "A.jpg", "sub/one.jpg", "sub/two.jpg"):
        await ann.from_(BUCKET).upload(f"{top}/{name}", b"x", IMAGE)
    listed = await ann.from_(BUCKET).list(top)
    assert [(entry["name"], entry["id"] is None) for entry in listed] == [
        ("A.jpg", False),
        ("b.jpg", False),
        ("sub", True),
    ]
    second = await ann.from_(BUCKET).list(
        top, {"limit": 1, "offset": 1, "sortBy": {"column": "created_at", "order": "desc"}}
    )
    assert [entry["name"] for entry in second] == ["A.jpg"]
    assert [entry["name"] for entry in await ann.from_(BUCKET).list(top, {"search": "B"})] == ["b.jpg"]


async def test_the_second_kind_of_listing_is_read_page_by_page(service: AsyncStorageClient) -> None:
    top = f"{ANN}/{uuid4()}"
    for name in ("a.jpg", "b.jpg", "sub/one.jpg", "sub/two.jpg", "z.jpg"):
        await service.from_(BUCKET).upload(f"{top}/{name}", b"x", IMAGE)
    seen: list[str] = []
    asked: Any = {"prefix": f"{top}/", "limit": 2, "with_delimiter": True}
    while True:
        page = await service.from_(BUCKET).list_v2(asked)
        seen += [entry.name for entry in page.objects] + [entry.name for entry in page.folders]
        if not page.hasNext:
            break
        assert page.nextCursor is not None
        asked["cursor"] = page.nextCursor
    assert sorted(seen) == [f"{top}/{name}" for name in ("a.jpg", "b.jpg", "sub/", "z.jpg")]


async def test_moving_needs_an_update_policy_and_copying_does_not(
    ann: AsyncStorageClient, service: AsyncStorageClient
) -> None:
    key, twin, moved = new_key(), new_key(), new_key()
    await ann.from_(BUCKET).upload(key, b"image", IMAGE)
    assert await refusal(ann.from_(BUCKET).move(key, moved)) == MISSING
    await ann.from_(BUCKET).copy(key, twin)
    await service.from_(BUCKET).move(key, moved)
    assert await ann.from_(BUCKET).download(twin) == await ann.from_(BUCKET).download(moved) == b"image"
    assert not await ann.from_(BUCKET).exists(key)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/object/list/images", {"prefix": "", "limit": "many"}, "body/limit must be integer"),
        ("/object/sign/images/a", {"expiresIn": 0}, "body/expiresIn must be >= 1"),
    ],
)
async def test_the_message_says_what_is_wrong_with_a_body(
    project: Project, http: httpx.AsyncClient, path: str, body: object, message: str
) -> None:
    answer = await http.post(path, headers=project.headers(project.keys.secret), json=body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


# Faults.


async def uploaded(service: AsyncStorageClient) -> str:
    key = new_key()
    await service.from_(BUCKET).upload(key, b"image", IMAGE)
    return key


async def test_an_object_that_lost_its_bytes_exists_and_cannot_be_downloaded(
    project: Project, service: AsyncStorageClient
) -> None:
    key, other = await uploaded(service), await uploaded(service)
    project.control("storage_lose_bytes", bucket=BUCKET, key=key)
    download = service.from_(BUCKET).download
    assert await refusal(download(key)) == ("500", "Internal", "Internal Server Error")
    assert await service.from_(BUCKET).exists(key)
    assert await download(other) == b"image"
    assert len(await service.from_(BUCKET).remove([key])) == 1
    assert await refusal(download(key)) == MISSING


def test_only_an_object_can_lose_its_bytes(project: Project) -> None:
    asked = {"bucket": BUCKET, "key": "none"}
    answer = httpx.post(f"{project.sandbox.control_url}/actions/storage_lose_bytes", json=asked)
    assert answer.status_code == 400
    assert "there is no object 'none' in bucket 'images'" in answer.json()["error"]


async def test_a_hidden_object_is_missing_for_as_many_requests_as_asked(
    project: Project, service: AsyncStorageClient
) -> None:
    key, other = await uploaded(service), await uploaded(service)
    project.control("storage_hide", bucket=BUCKET, key=key, times=3)
    download = service.from_(BUCKET).download
    assert await refusal(download(key)) == MISSING
    assert not await service.from_(BUCKET).exists(key)
    assert await download(other) == b"image"
    assert await refusal(download(key)) == MISSING
    assert await download(key) == b"image"


async def test_a_hidden_object_is_missing_by_its_signed_url_too(
    project: Project, service: AsyncStorageClient
) -> None:
    key = await uploaded(service)
    url = str((await service.from_(BUCKET).create_signed_url(key, 60))["signedUrl"])
    project.sandbox.storage.knobs.hide(BUCKET, key)
    async with httpx.AsyncClient(timeout=PATIENCE) as anybody:
        assert (await anybody.get(url)).json()["code"] == "NoSuchKey"
        assert (await anybody.get(url)).content == b"image"
