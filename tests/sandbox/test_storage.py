"""Storage: what the real clients get from it, and what only a raw request can show."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from storage3 import AsyncStorageClient, SyncStorageClient
from storage3.exceptions import StorageApiError

from watcher.sandbox import gateway
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.server import Server
from watcher.sandbox.storage import Storage

ANN, BEN = str(uuid4()), str(uuid4())
NEVER = 4102444800
IMAGE = {"content-type": "image/jpeg"}
BUCKET = "images"
LIMIT = 100_000
POLICY = """
create policy {0}_own on storage.objects for {0} to authenticated
{1} (bucket_id = 'images' and (storage.foldername(name))[1] = (select auth.uid())::text)
"""


@dataclass(frozen=True)
class Project:
    """A Supabase with nothing but Storage."""

    url: str
    keys: Keys
    postgres: Postgres
    folder: Path

    def headers(self, user: str = "", **claims: object) -> dict[str, str]:
        """What a client sends that is signed in as `user`; without one it holds the secret key."""
        if not user:
            return {"apikey": self.keys.secret, "authorization": f"Bearer {self.keys.secret}"}
        token = self.keys.sign({"sub": user, "role": "authenticated", "exp": NEVER, **claims})
        return {"apikey": self.keys.publishable, "authorization": f"Bearer {token}"}

    def sql(self, statement: str) -> None:
        """Run a statement as the role that a developer has."""
        with psycopg.connect(self.postgres.dsn("storage", "postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="module")
def project(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("objects")
    keys = Keys()
    postgres.create("storage")
    database = Database(postgres.dsn("storage", "authenticator"), postgres.dsn("storage"))
    app = gateway.app({"storage": Storage(database, keys, folder).routes()}, keys)
    server = Server({"supabase": (app, 0)})
    server.start()
    try:
        here = Project(f"http://127.0.0.1:{server.ports['supabase']}/storage/v1", keys, postgres, folder)
        for action, clause in (("select", "using"), ("insert", "with check"), ("delete", "using")):
            here.sql(POLICY.format(action, clause))
        limits = {"file_size_limit": LIMIT, "allowed_mime_types": ["image/jpeg", "image/png"]}
        with httpx.Client(base_url=here.url, headers=here.headers()) as client:
            assert client.post("/bucket", json={"name": BUCKET, "public": False, **limits}).is_success
            assert client.post("/bucket", json={"name": "open", "public": True}).is_success
        yield here
    finally:
        server.run(database.close())
        server.stop()
        postgres.drop("storage")


@pytest.fixture
async def http(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=project.url) as client:
        yield client


@pytest.fixture
async def ann(project: Project) -> AsyncIterator[AsyncStorageClient]:
    async with httpx.AsyncClient() as client:
        yield AsyncStorageClient(project.url + "/", project.headers(ANN), http_client=client)


@pytest.fixture
async def service(project: Project) -> AsyncIterator[AsyncStorageClient]:
    async with httpx.AsyncClient() as client:
        yield AsyncStorageClient(project.url + "/", project.headers(), http_client=client)


def fresh(user: str = ANN) -> str:
    """A key in the user's own folder that nobody has used."""
    return f"{user}/{uuid4()}/1.jpg"


async def refusal(call: Awaitable[object]) -> tuple[str, str, str]:
    """How storage3 words what Storage refused."""
    with pytest.raises(StorageApiError) as caught:
        await call
    return str(caught.value.status), caught.value.code, caught.value.message


REFUSED_RANGE = (
    '{"statusCode":"416","error":"invalid_range","message":"invalid range provided","code":"InvalidRange"}'
)
RLS = ("403", "Unauthorized", "new row violates row-level security policy")
MISSING = ("404", "not_found", "Object not found")


async def test_what_a_user_uploads_is_what_she_downloads(ann: AsyncStorageClient) -> None:
    key, content = fresh(), bytes(range(256)) * 300
    uploaded = await ann.from_(BUCKET).upload(key, content, {**IMAGE, "metadata": {"of": "me"}})
    assert uploaded.full_path == f"{BUCKET}/{key}"
    assert await ann.from_(BUCKET).download(key) == content
    info = await ann.from_(BUCKET).info(key)
    assert (info["size"], info["content_type"], info["metadata"]) == (76_800, "image/jpeg", {"of": "me"})
    assert await ann.from_(BUCKET).exists(key)


def test_the_synchronous_client_is_served_alike(project: Project) -> None:
    key = fresh()
    with httpx.Client() as client:
        bucket = SyncStorageClient(project.url + "/", project.headers(ANN), http_client=client).from_(BUCKET)
        bucket.upload(key, b"image", IMAGE)
        assert bucket.download(key) == b"image"
        assert [row["name"] for row in bucket.remove([key])] == [key]
        with pytest.raises(StorageApiError, match="Object not found"):
            bucket.download(key)


async def test_a_user_reaches_no_folder_but_her_own(
    ann: AsyncStorageClient, service: AsyncStorageClient
) -> None:
    key = fresh(BEN)
    assert await refusal(ann.from_(BUCKET).upload(key, b"x", IMAGE)) == RLS
    await service.from_(BUCKET).upload(key, b"x", IMAGE)
    assert await refusal(ann.from_(BUCKET).download(key)) == MISSING
    assert await ann.from_(BUCKET).list(BEN) == []
    assert await ann.from_(BUCKET).remove([key]) == []
    assert await service.from_(BUCKET).download(key) == b"x"


async def test_a_key_is_taken_once(ann: AsyncStorageClient) -> None:
    key = fresh()
    await ann.from_(BUCKET).upload(key, b"first", IMAGE)
    again = ann.from_(BUCKET).upload(key, b"second", IMAGE)
    assert await refusal(again) == ("409", "Duplicate", "The resource already exists")
    over = ann.from_(BUCKET).upload(key, b"second", {**IMAGE, "upsert": "true"})
    assert await refusal(over) == RLS  # there is no UPDATE policy
    assert await ann.from_(BUCKET).download(key) == b"first"


async def test_overwriting_leaves_one_version_of_the_bytes(
    project: Project, service: AsyncStorageClient
) -> None:
    key = fresh()
    before = len(list(project.folder.iterdir()))
    await service.from_(BUCKET).upload(key, b"first", IMAGE)
    await service.from_(BUCKET).update(key, b"second", IMAGE)
    assert await service.from_(BUCKET).download(key) == b"second"
    assert len(list(project.folder.iterdir())) == before + 1


async def test_a_bucket_takes_only_its_types_and_sizes(project: Project, ann: AsyncStorageClient) -> None:
    before = len(list(project.folder.iterdir()))
    bucket = ann.from_(BUCKET)
    await bucket.upload(fresh(), b"x" * LIMIT, IMAGE)
    large = ("413", "Payload too large", "The object exceeded the maximum allowed size")
    assert await refusal(bucket.upload(fresh(), b"x" * (LIMIT + 1), IMAGE)) == large
    assert await refusal(bucket.upload(fresh(), b"x" * 50 * LIMIT, IMAGE)) == large
    text = ("415", "invalid_mime_type", "mime type text/plain is not supported")
    assert await refusal(bucket.upload(fresh(), b"x")) == text  # storage3 calls everything text
    assert len(list(project.folder.iterdir())) == before + 1


@pytest.mark.parametrize("name", ["Köln.jpg", "a%23b.jpg", "a[1].jpg", 'a".jpg'])
async def test_a_key_with_unsafe_characters_is_refused(ann: AsyncStorageClient, name: str) -> None:
    status, code, _ = await refusal(ann.from_(BUCKET).upload(f"{ANN}/{name}", b"x", IMAGE))
    assert (status, code) == ("400", "InvalidKey")


async def test_a_double_slash_is_kept_and_a_dot_segment_refused(
    project: Project, http: httpx.AsyncClient
) -> None:
    headers = {**project.headers(ANN), **IMAGE}
    kept = await http.post(f"/object/{BUCKET}/{ANN}//a.jpg", headers=headers, content=b"x")
    assert kept.json()["Key"] == f"{BUCKET}/{ANN}//a.jpg"
    assert (await http.get(f"/object/{BUCKET}/{ANN}//a.jpg", headers=headers)).content == b"x"
    dots = await http.post(f"/object/{BUCKET}/{ANN}/a%2F..%2Fb.jpg", headers=headers, content=b"x")
    assert dots.json()["message"].endswith("contains dot path segment")


async def test_a_browsers_form_is_understood(project: Project, http: httpx.AsyncClient) -> None:
    key = fresh()
    form = (
        '--X\r\nContent-Disposition: form-data; name="cacheControl"\r\n\r\n60\r\n'
        '--X\r\nContent-Disposition: form-data; name=""; filename="IMG_1.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n\r\n--Y\r\n\r\n--X--\r\n"
    )
    headers = {**project.headers(ANN), "content-type": "multipart/form-data; boundary=X"}
    answer = await http.post(f"/object/{BUCKET}/{key}", headers=headers, content=form)
    assert answer.status_code == 200
    found = await http.get(f"/object/{BUCKET}/{key}", headers=project.headers(ANN))
    assert (found.content, found.headers["cache-control"]) == (b"\r\n--Y\r\n", "max-age=60")


async def test_a_raw_body_is_described_by_its_headers(project: Project, http: httpx.AsyncClient) -> None:
    path, described = f"/object/{BUCKET}/{fresh()}", base64.b64encode(b'{"of": "me"}').decode()
    headers = {**project.headers(ANN), **IMAGE, "cache-control": "max-age=60", "x-metadata": described}
    assert (await http.post(path, headers=headers, content=b"image")).is_success
    info = await http.get(path.replace("/object/", "/object/info/"), headers=project.headers(ANN))
    assert (info.json()["cache_control"], info.json()["metadata"]) == ("max-age=60", {"of": "me"})


async def test_a_form_without_a_file_is_refused(project: Project, http: httpx.AsyncClient) -> None:
    form = '--X\r\nContent-Disposition: form-data; name="cacheControl"\r\n\r\n60\r\n--X--\r\n'
    headers = {**project.headers(ANN), "content-type": "multipart/form-data; boundary=X"}
    answer = await http.post(f"/object/{BUCKET}/{fresh()}", headers=headers, content=form)
    assert answer.json()["message"] == "No content provided"


async def test_an_upload_that_breaks_off_leaves_nothing(project: Project, http: httpx.AsyncClient) -> None:
    key, before = fresh(), len(list(project.folder.iterdir()))

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.sleep(0.1)
        raise httpx.WriteError("the tab was closed")

    headers = {**project.headers(ANN), **IMAGE}
    with pytest.raises(httpx.WriteError):
        await http.post(f"/object/{BUCKET}/{key}", headers=headers, content=broken())
    await asyncio.sleep(0.1)
    assert len(list(project.folder.iterdir())) == before
    assert (await http.head(f"/object/{BUCKET}/{key}", headers=project.headers(ANN))).status_code == 400


async def test_uploads_side_by_side_outrun_a_policy_that_counts(
    project: Project, http: httpx.AsyncClient
) -> None:
    project.sql(
        """create function public.full(folder text) returns bool language sql security definer as
           'select count(*) >= 2 from storage.objects where (storage.foldername(name))[2] = folder'"""
    )
    project.sql(
        """create policy counted on storage.objects as restrictive for insert to authenticated
           with check (not public.full((storage.foldername(name))[2]))"""
    )
    headers = {**project.headers(ANN), **IMAGE}

    async def upload(folder: str, number: int) -> int:
        path = f"/object/{BUCKET}/{ANN}/{folder}/{number}.jpg"
        return (await http.post(path, headers=headers, content=slowly())).status_code

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(0.3)
        yield b"y"

    try:
        assert [await upload("one-by-one", number) for number in range(3)] == [200, 200, 400]
        assert await asyncio.gather(*(upload("at-once", number) for number in range(4))) == [200] * 4
    finally:
        project.sql("drop policy counted on storage.objects")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("bytes=0-3", (206, "bytes 0-3/10", "0123")),
        ("bytes=8-", (206, "bytes 8-9/10", "89")),
        ("bytes=8-99", (206, "bytes 8-9/10", "89")),
        ("bytes=-3", (206, "bytes 7-9/10", "789")),
        ("bytes=10-", (416, None, REFUSED_RANGE)),
        ("bytes=0-1,4-5", (416, None, REFUSED_RANGE)),
        ("bytes=abc", (416, None, REFUSED_RANGE)),
    ],
)
async def test_one_range_can_be_asked_for(
    project: Project,
    http: httpx.AsyncClient,
    service: AsyncStorageClient,
    asked: str,
    answered: tuple[int, str | None, str],
) -> None:
    key = fresh()
    await service.from_(BUCKET).upload(key, b"0123456789", IMAGE)
    headers = {**project.headers(), "range": asked, "if-range": '"stale"'}
    answer = await http.get(f"/object/authenticated/{BUCKET}/{key}", headers=headers)
    assert (answer.status_code, answer.headers.get("content-range"), answer.text) == answered


async def test_an_etag_spares_the_second_download(
    project: Project, http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    key = fresh()
    await service.from_(BUCKET).upload(key, b"image", IMAGE)
    path = f"/object/{BUCKET}/{key}"
    first = await http.get(path, headers=project.headers())
    again = await http.get(path, headers={**project.headers(), "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await http.head(path, headers=project.headers())
    for name in ("etag", "content-length", "content-type", "last-modified"):
        assert head.headers[name] == first.headers[name]


async def test_a_bad_token_is_told_on_one_path_and_hidden_on_the_other(
    project: Project, http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    key = fresh()
    await service.from_(BUCKET).upload(key, b"image", IMAGE)
    expired = project.headers(ANN, exp=1)
    strict = await http.get(f"/object/authenticated/{BUCKET}/{key}", headers=expired)
    assert (strict.status_code, strict.json()["statusCode"]) == (400, "403")
    assert strict.json()["message"] == '"exp" claim timestamp check failed'
    tolerant = await http.get(f"/object/{BUCKET}/{key}", headers=expired)
    assert (tolerant.status_code, tolerant.json()["code"]) == (400, "NoSuchBucket")


async def test_an_unknown_role_is_an_error_of_the_databases(
    project: Project, http: httpx.AsyncClient
) -> None:
    headers = project.headers(ANN, role="nobody_has_this_role")
    answer = await http.get(f"/object/authenticated/{BUCKET}/{fresh()}", headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (500, "database error, code: 22023")


async def test_a_row_whose_bytes_are_gone_is_an_internal_error(
    project: Project, http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    key = fresh()
    await service.from_(BUCKET).upload(key, b"image", IMAGE)
    (project.folder / (await service.from_(BUCKET).info(key))["version"]).unlink()
    answer = await http.get(f"/object/{BUCKET}/{key}", headers=project.headers())
    assert (answer.status_code, answer.json()["code"]) == (500, "InternalError")
    assert len(await service.from_(BUCKET).remove([key])) == 1


async def test_a_public_bucket_is_open_to_anybody(
    http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    await service.from_("open").upload("a.txt", b"hello", {"content-type": "text/plain"})
    assert (await http.get("/object/public/open/a.txt")).content == b"hello"
    assert (await http.get("/object/open/a.txt")).content == b"hello"
    assert (await http.get(f"/object/public/{BUCKET}/a.txt")).json()["code"] == "NoSuchBucket"


async def test_a_signed_url_opens_one_object_for_a_time(
    project: Project, http: httpx.AsyncClient, ann: AsyncStorageClient
) -> None:
    key, other = fresh(), fresh()
    await ann.from_(BUCKET).upload(key, b"image", IMAGE)
    await ann.from_(BUCKET).upload(other, b"other", IMAGE)
    url = (await ann.from_(BUCKET).create_signed_url(key, 60))["signedUrl"]
    assert (await http.get(url)).content == b"image"
    assert (await http.get(url.replace(key, other))).json()["code"] == "InvalidSignature"
    stale = project.keys.sign({"url": f"{BUCKET}/{key}", "scope": "download", "exp": 1})
    expired = await http.get(f"/object/sign/{BUCKET}/{key}", params={"token": stale})
    assert (expired.json()["code"], expired.json()["statusCode"]) == ("InvalidJWT", "400")
    both = await ann.from_(BUCKET).create_signed_urls([key, fresh()], 60)
    assert [bool(one["error"]) for one in both] == [False, True]


async def test_a_signed_upload_needs_no_token_but_its_own(
    project: Project, http: httpx.AsyncClient, ann: AsyncStorageClient
) -> None:
    key = fresh()
    assert await refusal(ann.from_(BUCKET).create_signed_upload_url(fresh(BEN))) == RLS
    signed = await ann.from_(BUCKET).create_signed_upload_url(key)
    await ann.from_(BUCKET).upload_to_signed_url(key, signed["token"], b"image", IMAGE)
    assert await ann.from_(BUCKET).download(key) == b"image"
    path = f"/object/upload/sign/{BUCKET}/{fresh()}"
    wrong = await http.put(path, params={"token": signed["token"]}, headers=IMAGE, content=b"x")
    assert wrong.json()["code"] == "InvalidSignature"


async def test_a_token_to_download_with_is_none_to_upload_with_and_the_other_way_round(
    http: httpx.AsyncClient, ann: AsyncStorageClient
) -> None:
    key = fresh()
    to_upload = await ann.from_(BUCKET).create_signed_upload_url(key)
    await ann.from_(BUCKET).upload(key, b"image", IMAGE)
    to_download = (await ann.from_(BUCKET).create_signed_url(key, 60))["signedUrl"].partition("token=")[2]
    upload = f"/object/upload/sign/{BUCKET}/{key}"
    refused = await http.put(upload, params={"token": to_download}, headers=IMAGE, content=b"x")
    assert refused.json()["code"] == "InvalidSignature"
    refused = await http.get(f"/object/sign/{BUCKET}/{key}", params={"token": to_upload["token"]})
    assert refused.json()["code"] == "InvalidSignature"


async def test_a_folder_is_listed_with_its_folders(ann: AsyncStorageClient) -> None:
    top = f"{ANN}/{uuid4()}"
    for name in ("b.jpg", "A.jpg", "sub/one.jpg", "sub/two.jpg"):
        await ann.from_(BUCKET).upload(f"{top}/{name}", b"x", IMAGE)
    listed = await ann.from_(BUCKET).list(top)
    assert [(entry["name"], entry["id"] is None) for entry in listed] == [
        ("A.jpg", False),
        ("b.jpg", False),
        ("sub", True),
    ]
    newest = {"limit": 1, "offset": 1, "sortBy": {"column": "created_at", "order": "desc"}}
    assert [entry["name"] for entry in await ann.from_(BUCKET).list(top, newest)] == ["A.jpg"]
    assert [entry["name"] for entry in await ann.from_(BUCKET).list(top, {"search": "B"})] == ["b.jpg"]


async def test_a_second_kind_of_listing_goes_page_by_page(service: AsyncStorageClient) -> None:
    top = f"{ANN}/{uuid4()}"
    for name in ("a.jpg", "b.jpg", "sub/one.jpg", "sub/two.jpg", "z.jpg"):
        await service.from_(BUCKET).upload(f"{top}/{name}", b"x", IMAGE)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await service.from_(BUCKET).list_v2(
            {"prefix": f"{top}/", "limit": 2, "with_delimiter": True, **cursor}
        )
        seen += [entry.name.removeprefix(f"{top}/") for entry in (*page.objects, *page.folders)]
        if not page.hasNext:
            break
        assert page.nextCursor is not None
        cursor = {"cursor": page.nextCursor}
    assert sorted(seen) == ["a.jpg", "b.jpg", "sub/", "z.jpg"]


async def test_moving_asks_for_an_update_policy_and_copying_does_not(
    ann: AsyncStorageClient, service: AsyncStorageClient
) -> None:
    key, twin, moved = fresh(), fresh(), fresh()
    await ann.from_(BUCKET).upload(key, b"image", IMAGE)
    assert await refusal(ann.from_(BUCKET).move(key, moved)) == MISSING
    await ann.from_(BUCKET).copy(key, twin)
    await service.from_(BUCKET).move(key, moved)
    assert await ann.from_(BUCKET).download(twin) == await ann.from_(BUCKET).download(moved) == b"image"
    assert not await ann.from_(BUCKET).exists(key)


async def test_deleting_one_tells_missing_from_forbidden(
    project: Project, http: httpx.AsyncClient, ann: AsyncStorageClient
) -> None:
    key = fresh()
    await ann.from_(BUCKET).upload(key, b"image", IMAGE)
    path = f"/object/{BUCKET}/{key}"
    assert (await http.delete(path, headers=project.headers(BEN))).json()["message"] == "Access denied"
    assert (await http.delete(path, headers=project.headers(ANN))).json() == {
        "message": "Successfully deleted"
    }
    assert (await http.delete(path, headers=project.headers(ANN))).json()["code"] == "NoSuchKey"


async def test_a_bucket_is_deleted_when_it_is_empty(service: AsyncStorageClient) -> None:
    await service.create_bucket("short-lived", options={"public": False, "file_size_limit": "20MB"})
    assert (await service.get_bucket("short-lived")).file_size_limit == 20_000_000
    await service.from_("short-lived").upload("a", b"x", IMAGE)
    status, code, _ = await refusal(service.delete_bucket("short-lived"))
    assert (status, code) == ("409", "ResourceNotEmpty")
    await service.empty_bucket("short-lived")
    await service.update_bucket("short-lived", {"public": True})
    assert (await service.get_bucket("short-lived")).public
    await service.delete_bucket("short-lived")
    assert "short-lived" not in [bucket.id for bucket in await service.list_buckets()]


async def test_users_see_no_buckets(ann: AsyncStorageClient) -> None:
    assert await ann.list_buckets() == []
    gone = ("404", "Bucket not found", "Bucket not found")
    assert await refusal(ann.get_bucket(BUCKET)) == gone
    assert await refusal(ann.create_bucket("mine")) == RLS


async def test_what_is_not_here_is_an_unknown_route(project: Project, http: httpx.AsyncClient) -> None:
    answer = await http.post("/upload/resumable", headers=project.headers(ANN))
    assert (answer.status_code, answer.json()["message"]) == (404, "Route POST:/upload/resumable not found")


@pytest.mark.parametrize(
    ("request_", "body", "message"),
    [
        ("POST /object/list/images", {}, "body must have required property 'prefix'"),
        ("POST /object/list/images", {"prefix": "", "limit": "many"}, "body/limit must be integer"),
        ("DELETE /object/images", {"prefixes": []}, "body/prefixes must NOT have fewer than 1 items"),
        ("POST /object/sign/images/a", {"expiresIn": 0}, "body/expiresIn must be >= 1"),
    ],
)
async def test_a_malformed_body_is_named(
    project: Project, http: httpx.AsyncClient, request_: str, body: object, message: str
) -> None:
    answer = await http.request(*request_.split(), headers=project.headers(), json=body)
    assert answer.status_code == 400
    assert answer.json() == {
        "statusCode": "400",
        "error": "Error",
        "message": message,
        "code": "InvalidRequest",
    }


async def test_storage_answers_at_once_while_postgres_is_away(
    project: Project, http: httpx.AsyncClient, service: AsyncStorageClient
) -> None:
    key = fresh()
    await service.from_(BUCKET).upload(key, b"image", IMAGE)
    path = f"/object/authenticated/{BUCKET}/{key}"
    project.postgres.halt()
    try:
        away = await http.get(path, headers=project.headers())
        assert (away.status_code, away.json()["code"]) == (500, "InternalError")
    finally:
        project.postgres.start()
    assert (await http.get(path, headers=project.headers())).content == b"image"
