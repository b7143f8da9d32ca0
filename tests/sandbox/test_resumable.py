"""Resumable uploads where no recording shows them; test_recorded_storage.py has what was recorded."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

from tests.sandbox.project import PATIENCE, Project, wait_until
from watcher.sandbox.faults import Cut, Rate

ANN = str(uuid4())
BUCKET = "images"
PART = b"0123456789" * 1000
POLICY = """
create policy {0}_own on storage.objects for {0} to authenticated
{1} (bucket_id = 'images' and (storage.foldername(name))[1] = (select auth.uid())::text)
"""
Begin = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def bucket(project: Project) -> None:
    for action, clause in (("select", "using"), ("insert", "with check")):
        project.sql(POLICY.format(action, clause))
    with project.http("storage", project.keys.secret) as client:
        assert client.post("/bucket", json={"name": BUCKET, "public": False}).is_success


@pytest.fixture
def http(project: Project) -> Iterator[httpx.Client]:
    headers = {**project.headers(token=project.token(ANN)), "Tus-Resumable": "1.0.0"}
    with httpx.Client(base_url=f"{project.url}/storage/v1", timeout=PATIENCE, headers=headers) as client:
        yield client


@pytest.fixture
def begin(http: httpx.Client) -> Begin:
    """Create an upload of so many bytes, without any, and return its URL."""

    def begin(length: int, key: str | None = None, **described: str) -> str:
        given = {
            "bucketName": BUCKET,
            "objectName": key or new_key(),
            "contentType": "image/jpeg",
            **described,
        }
        metadata = ",".join(f"{name} {base64.b64encode(v.encode()).decode()}" for name, v in given.items())
        headers = {"Upload-Length": str(length), "Upload-Metadata": metadata}
        answer = http.post("/upload/resumable", headers=headers)
        assert (answer.status_code, answer.headers.get("upload-offset")) == (201, None)
        return str(answer.headers["location"])

    return begin


def new_key() -> str:
    return f"{ANN}/{uuid4()}.jpg"


def at(http: httpx.Client, url: str) -> tuple[str, str]:
    """Ask how far an upload is."""
    answer = http.head(url)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    return answer.headers["upload-offset"], answer.headers["upload-length"]


def append(http: httpx.Client, url: str, offset: int, content: bytes = PART) -> httpx.Response:
    headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    return http.patch(url, content=content, headers=headers)


def test_an_upload_goes_on_where_its_connection_broke(
    project: Project, http: httpx.Client, begin: Begin
) -> None:
    key = new_key()
    url = begin(3 * len(PART), key, metadata=json.dumps({"by": "ann"}), cacheControl="0")
    assert append(http, url, 0).headers["upload-offset"] == "10000"
    project.sandbox.faults.add(Cut("request", after=4000), method="PATCH")
    with pytest.raises(httpx.TransportError):
        append(http, url, 10000)
    assert at(http, url) == ("14000", "30000")
    last = append(http, url, 14000, PART[4000:] + PART)
    assert (last.status_code, last.headers["tus-complete"]) == (204, "1")
    assert http.get(f"/object/authenticated/{BUCKET}/{key}").content == 3 * PART
    described = http.get(f"/object/info/authenticated/{BUCKET}/{key}").json()
    assert (described["size"], described["cache_control"], described["content_type"], described["metadata"]) == (
        30000, "max-age=0", "image/jpeg", {"by": "ann"},
    )  # fmt: skip


def test_a_client_that_lost_the_last_answer_finds_the_upload_complete(
    http: httpx.Client, begin: Begin
) -> None:
    url = begin(len(PART))
    append(http, url, 0)
    assert at(http, url) == ("10000", "10000")


def test_an_object_that_was_uploaded_meanwhile_is_not_replaced(http: httpx.Client, begin: Begin) -> None:
    key = new_key()
    slow, quick = begin(2 * len(PART), key), begin(len(PART), key)
    append(http, slow, 0)
    append(http, quick, 0)
    late = append(http, slow, len(PART))
    assert (late.status_code, late.text) == (409, "The resource already exists")
    assert http.get(f"/object/authenticated/{BUCKET}/{key}").content == PART


def test_what_does_not_fit_is_refused(http: httpx.Client, begin: Begin) -> None:
    url = begin(len(PART) + 5)
    append(http, url, 0)
    refusals = [append(http, url, 0), append(http, url, len(PART), b"too many"), append(http, url + "x", 0)]
    assert [(one.status_code, one.text) for one in refusals] == [
        (409, "Upload-Offset conflict\n"),
        (413, "upload's size exceeded\n"),
        (404, "The file for this url was not found\n"),
    ]
    assert at(http, url) == ("10000", "10005")


def test_a_request_without_its_headers_is_refused(http: httpx.Client, begin: Begin) -> None:
    url = begin(len(PART))
    unversioned = http.head(url, headers={"Tus-Resumable": "0.2.2"})
    bare = http.patch(url, headers={"Content-Type": "application/offset+octet-stream"})
    untyped = http.patch(url, headers={"Upload-Offset": "0"})
    nothing = http.post("/upload/resumable")
    broken = http.post("/upload/resumable", headers={"Upload-Length": "1", "Upload-Metadata": "bucketName ?"})
    assert [one.status_code for one in (unversioned, bare, untyped, nothing, broken)] == [
        412,
        403,
        403,
        400,
        400,
    ]


def test_what_a_client_is_told_stays_so_though_its_former_request_still_comes_in(
    project: Project, http: httpx.Client, begin: Begin
) -> None:
    url = begin(500 * len(PART))
    faults = project.sandbox.faults
    slow = faults.add(Rate(1_000_000), method="PATCH")

    def send() -> None:
        with contextlib.suppress(httpx.TransportError):
            append(http, url, 0, 500 * PART)

    faults.reset()
    thread = threading.Thread(target=send)
    thread.start()
    # Counted before the slow link, on which some of it still is.
    wait_until(
        lambda: any(one.bytes_in > 100 * len(PART) for one in faults.counts() if one.method == "PATCH")
    )
    told, _ = at(http, url)
    assert int(told) > 0
    time.sleep(1.5)  # in which the former request would append more
    answer = append(http, url, int(told))
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(int(told) + len(PART)))
    faults.remove(slow)
    thread.join()
    assert at(http, url)[0] == str(int(told) + len(PART))
