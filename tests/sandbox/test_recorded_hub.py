"""Recorded publications, from both sides: the answers to the recorded requests, and the real client's requests.

The requests are huggingface_hub 2.4.0's. The answers are those of another stand-in for the Hub, which that client
accepted. Of answers, the status, headers and body are compared; of requests, the method, path, headers and body.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.sandbox.hub_recording import Exchange, Recording, blob
from tests.sandbox.hubs import CARD, USERS, Site, image
from tests.support.deprecations import CONTENT
from watcher.hub.repos import Hub as DaemonsHub
from watcher.sandbox.hub import Hub
from watcher.sandbox.hub.git import DEFAULT_ATTRIBUTES
from watcher.sandbox.server import HOST, Server

pytestmark = CONTENT

RECORDINGS = ["hub_lfs_3images", "hub_lfs_10images"]

LEFT_OUT = {
    "/api/models/{repo}/xet-write-token/{revision}": "Xet, which the daemon disables",
    "/v1/chunks/default/{hash}": "Xet's store",
    "/v1/xorb-grants/default/{hash}": "Xet's store",
    "/v1/xorbs/default/{hash}": "Xet's store",
    "/v1/shards": "Xet's store",
    "/v2/shards": "Xet's store",
}
"""Routes in a recording that is not replayed, `hf upload` over Xet; its other routes are in the ones replayed."""

GENERATED = {"id", "_id", "sha", "commitOid"}
"""Fields with generated ids: the first time, the id here is remembered for the recorded one, and then compared."""

IGNORED = {
    "lastModified": "a time",
    "createdAt": "a time",
    "usedStorage": "the stand-in did not count",
    "oid of a directory": "the stand-in made it up; here it is git's, see test_hub.py",
    "query of /_lfs/": "the signature of a URL",
    "content-length of JSON": "ids and URLs may differ in length; the JSON itself is compared",
    "cardData": "the Hub sends it; the stand-in did not",
    "content-type of a file": "the stand-in sent none",
    "content-disposition of a file": "the stand-in sent none",
    "content-length of an LFS object": "the stand-in streamed it",
    "last-modified": "a time",
    "date": "a time",
    "vary": "for pages of other origins, which the stand-in did not serve",
}
"""What is not compared in answers, and why."""

IGNORED_HEADERS = {
    "x-amzn-trace-id": "generated for each request",
    "host": "the recorder left it out",
    "connection": "the recorder left it out",
    "authorization": "the recorder left the token out; whether there was one is compared",
}
"""What is not compared in requests, and why."""

ID = re.compile("[0-9a-f]{24}|[0-9a-f]{40}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Replay:
    """Sends a recording's requests to a Hub and compares the answers."""

    def __init__(self, recording: Recording, site: Site) -> None:
        self.recording = recording
        self.links: dict[str, str] = {}
        """The signed URLs in answers, by path."""
        self.swaps = recording.swaps
        self.swaps["http://127.0.0.1:8765"] = site.url
        self.swaps["http://localhost:8765"] = site.url.replace(HOST, "localhost")
        # The stand-in's new repos had three lines of attributes; the Hub's have 35.
        began = recording.one("/preupload/main").json()["files"]
        [initial] = [one["oid"] for one in began if one["path"] == ".gitattributes"]
        self.swaps[initial] = blob(DEFAULT_ATTRIBUTES.encode())

    def request(self, http: httpx.Client, exchange: Exchange) -> httpx.Response:
        path = self.recording.swap(exchange.path)
        headers = {**exchange.headers, "authorization": "Bearer hf_alice"}
        if "authorization" not in exchange.headers:
            del headers["authorization"]
        body = self.recording.sent(exchange)
        assert len(body) == int(headers.pop("content-length", 0)), "It is restored to its length."
        target = self.links[path] if "/_lfs/" in path else self.recording.swap(exchange.target)
        return http.request(exchange.method, target, headers=headers, content=body)

    def compare(self, exchange: Exchange, answer: httpx.Response) -> None:
        assert answer.status_code == exchange.status
        self.compare_headers(exchange, answer)
        if exchange.is_json:
            ours = answer.json()
            self._same(exchange.json(), ours, "", cut=exchange.is_cut)
            self.links |= {urlsplit(one).path: one for one in _links(ours)}
        elif "/_lfs/get/" in exchange.path:  # its bytes were not recorded
            assert answer.content == self.recording.content(exchange)
        else:
            assert answer.text == exchange.answer
        if "location" in answer.headers:
            self.links[urlsplit(answer.headers["location"]).path] = answer.headers["location"]

    def compare_headers(self, exchange: Exchange, answer: httpx.Response) -> None:
        is_file = exchange.method in {"GET", "HEAD"} and not exchange.path.startswith("/api/")
        for name in sorted(exchange.answer_headers.keys() | answer.headers.keys()):
            recorded = exchange.answer_headers.get(name)
            ignored = (
                name in IGNORED
                or (name == "content-length" and exchange.is_json)
                or (name in {"content-type", "content-disposition"} and is_file and recorded is None)
                or (name == "content-length" and "/_lfs/get/" in exchange.path and recorded is None)
            )
            if not ignored:
                ours = answer.headers.get(name)
                assert _unsigned(ours) == _unsigned(recorded and self.recording.swap(recorded)), name

    def _same(self, recorded: Any, ours: Any, field: str, *, cut: bool = False) -> None:
        assert type(ours) is type(recorded), field
        if isinstance(recorded, dict):
            assert recorded.keys() <= ours.keys(), field
            assert cut or recorded.keys() >= ours.keys() - IGNORED.keys(), field
            for name, value in recorded.items():
                directory = name == "oid" and recorded.get("type") == "directory"
                self._same(value, ours[name], "oid of a directory" if directory else name, cut=cut)
        elif isinstance(recorded, list):
            assert cut or len(recorded) == len(ours), field
            for one, two in zip(recorded, ours, strict=not cut):
                self._same(one, two, field)
        elif field in IGNORED:
            assert not isinstance(recorded, str) or TIME.fullmatch(ours) or ID.fullmatch(ours), field
        elif field in GENERATED and ID.fullmatch(recorded):
            assert ID.fullmatch(ours), field
            assert len(ours) == len(recorded), field
            assert ours == self.swaps.setdefault(recorded, ours), field
        elif isinstance(recorded, str):
            assert _unsigned(ours) == _unsigned(self.recording.swap(recorded)), field
        else:
            assert ours == recorded, field


def _links(value: Any) -> Iterator[str]:
    """Yield all signed URLs in an answer."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _links(one)
    elif isinstance(value, str) and "/_lfs/" in value:
        yield value


def _unsigned(url: str | None) -> str | None:
    return url and re.sub(r"(/_lfs/\w+/\w+)\?.*", r"\1", url)


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_requests_are_answered_as_they_were(site: Site, name: str) -> None:
    site.hub.knobs.offer_verify()
    recording = Recording(name)
    replay = Replay(recording, site)
    with httpx.Client(base_url=site.url) as http:
        for number, exchange in enumerate(recording.exchanges):
            answer = replay.request(http, exchange)
            try:
                replay.compare(exchange, answer)
            except AssertionError as error:
                error.add_note(
                    f"{name}, line {number + 1}: {exchange.method} {exchange.path}\n{answer.text[:2000]}"
                )
                raise


class Recorder:
    """Keeps the requests to an app in the form of the recordings."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: list[Exchange] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = bytearray()
        target = (scope["method"], scope["path"], scope["query_string"].decode(), headers, body)
        self.requests.append(Exchange(*target, 0, {}, ""))

        async def kept_receive() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self._app(scope, kept_receive, send)


def phase(exchange: Exchange) -> str:
    """Return what a request belongs to: the client makes uploads, and downloads, at the same time and in any order."""
    if "/_lfs/put/" in exchange.path or exchange.path.endswith("/verify"):
        return "up"
    if "/_lfs/get/" in exchange.path or "/resolve/" in exchange.path:
        return "down"
    return exchange.path


def in_order(exchanges: list[Exchange], shown: Callable[[Exchange], Any]) -> list[Any]:
    """Return requests in order, with those that the client makes at the same time sorted."""
    return [sorted(map(shown, group), key=str) for _, group in itertools.groupby(exchanges, phase)]


def compared(headers: dict[str, str]) -> dict[str, str]:
    """Return a request's headers without the versions of Python and httpx2."""
    kept = {name: value for name, value in headers.items() if name not in IGNORED_HEADERS}
    kept["user-agent"] = re.sub(r"(python|python-httpx2)/[\d.]+", r"\1", kept["user-agent"])
    return kept | {"has a token": str("authorization" in headers)}


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_real_client_sends_what_was_recorded(hub_client: None, tmp_path: Path, name: str) -> None:
    hub = Hub(tmp_path / "hub", USERS)
    hub.knobs.offer_verify()
    recorder = Recorder(hub.app)
    recording = Recording(name)
    server = Server({"hub": (recorder, 0)})
    server.start()
    try:
        head, commit = publish(f"http://{HOST}:{server.ports['hub']}", recording, tmp_path)
    finally:
        server.stop()

    recording.swaps[recording.exchanges[1].json()["sha"]] = head
    recording.swaps[recording.one("/commit/main").json()["commitOid"]] = commit

    def there(one: Exchange) -> Any:
        swapped = recording.swap(one.path), "" if "/_lfs/" in one.path else one.query
        return one.method, *swapped, compared(one.headers), recording.sent(one)

    def here(one: Exchange) -> Any:
        query = "" if "/_lfs/" in one.path else one.query
        return one.method, one.path, query, compared(one.headers), bytes(one.body)

    assert in_order(recorder.requests, here) == in_order(recording.exchanges, there)


def publish(url: str, recording: Recording, folder: Path) -> tuple[str, str]:
    """Do what was recorded, and return the initial commit and the new one."""
    api = HfApi(endpoint=url, token="hf_alice")
    operations = []
    for path, content in recording.files.items():
        source: str | bytes = content
        if path.startswith("images/"):
            file = folder / Path(path).name
            file.write_bytes(content)
            source = str(file)
        operations.append(CommitOperationAdd(path, source))
    api.create_repo(recording.repo, private=True)
    head = api.model_info(recording.repo).sha
    assert head is not None
    commit = api.create_commit(
        recording.repo,
        operations,
        commit_message="Publish identity",
        commit_description="row: 1",
        parent_commit=head,
    )
    api.model_info(recording.repo, files_metadata=True)
    api.hf_hub_download(recording.repo, "images/image_001.jpg")
    api.snapshot_download(recording.repo)
    api.delete_repo(recording.repo)
    return head, commit.oid


async def test_no_route_that_the_daemon_uses_is_left_out(site: Site) -> None:
    hub = DaemonsHub(endpoint=site.url, token="hf_alice", namespace=None)
    try:
        await hub.check_token()
        await hub.create("alice/a")
        look = await hub.look("alice/a", "row")
        operations = [CommitOperationAdd("a.jpg", image(1)), CommitOperationAdd("README.md", CARD)]
        await hub.upload("alice/a", operations)
        await hub.commit("alice/a", operations, message="x", description="y", parent=look.sha)
        await hub.delete("alice/a")
    finally:
        hub.close()
    asked = {one.route for one in site.faults.counts()}
    assert len(asked) == 10
    assert not asked & LEFT_OUT.keys()
    assert {one.status for one in site.faults.log()} <= {200}
