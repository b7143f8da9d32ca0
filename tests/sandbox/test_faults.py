"""Faults: what each does to a request, the log and the counts, the control port; and how the real clients react."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import httpx
import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory
from postgrest.exceptions import APIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from storage3.exceptions import StorageApiError
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from websockets.sync.client import connect

from tests.sandbox import clock
from tests.sandbox.project import PATIENCE
from tests.support.deprecations import CONTENT
from tests.support.pictures import jpeg
from tests.support.scene import Scene
from watcher.sandbox.faults import (
    Answer,
    Cache,
    Cut,
    Delay,
    Faults,
    Hang,
    Hold,
    Late,
    LoseAnswer,
    Rate,
    RoundTrip,
    Truncate,
)
from watcher.sandbox.faults.link import BURST
from watcher.sandbox.server import CONNECTION, HOST, Server

pytestmark = CONTENT


class Work:
    """An app that remembers what it did."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.received = 0
        self.app = Starlette(
            routes=[
                Route("/big", self.big),
                Route("/stream", self.stream),
                WebSocketRoute("/socket", self.socket),
                Route("/{path:path}", self.do, methods=["GET", "POST", "PUT"]),
            ]
        )

    async def do(self, request: Request) -> Response:
        async for chunk in request.stream():
            self.received += len(chunk)
        self.done.append(request.path_params["path"])
        return PlainTextResponse("done")

    async def big(self, request: Request) -> Response:
        return Response(b"x" * 1000, headers={"etag": '"x"'})

    async def stream(self, request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * 100

        return StreamingResponse(chunks())

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.send_text("hi")
        await websocket.close()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def server(faults: Faults, work: Work) -> Iterator[Server]:
    apps: dict[str, tuple[ASGIApp, int]] = {
        "hub": (faults.wrap(work.app, "hub"), 0),
        "supabase": (faults.wrap(work.app, lambda path: path.split("/")[1]), 0),
        "control": (faults.control_app(), 0),
    }
    server = Server(apps)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def clients(server: Server) -> Iterator[dict[str, httpx.Client]]:
    made = {
        name: httpx.Client(base_url=f"http://{HOST}:{port}", timeout=PATIENCE)
        for name, port in server.ports.items()
    }
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def hub(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["hub"]


@pytest.fixture
def supabase(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["supabase"]


@pytest.fixture
def control(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["control"]


def test_an_answer_comes_as_often_as_asked_and_the_work_is_not_done(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    faults.add(Answer(503, {"error": "later"}, {"retry-after": "2"}), path="^/commit$", times=2)
    answers = [hub.post("/commit", content=b"x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].json() == {"error": "later"}
    assert answers[0].headers["retry-after"] == "2"
    assert work.done == ["commit"]


def test_a_rule_is_for_its_service_method_and_path_and_skips_the_first_requests(
    faults: Faults, hub: httpx.Client, supabase: httpx.Client
) -> None:
    faults.add(Answer(500, "no"), service="rest", method="POST", path="/commit", skip=1, times=None)
    assert hub.post("/rest/commit").status_code == 200
    assert supabase.get("/rest/commit").status_code == 200
    assert supabase.post("/rest/other").status_code == 200
    assert [supabase.post("/rest/commit").status_code for _ in range(3)] == [200, 500, 500]


def test_rules_apply_in_the_order_in_which_they_were_added(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Delay(0.05), times=None)
    faults.add(Answer(503))
    faults.add(Answer(429))
    began = time.monotonic()
    assert [hub.get("/a").status_code for _ in range(3)] == [503, 429, 200]
    assert time.monotonic() - began >= 0.15


class Connection:
    """Stands for the connection of a request, which a round trip has to recognize."""


class Link:
    """An app behind a fault, which `clock.run` can call, since there is no server; it answers 1000 bytes."""

    def __init__(self, action: Rate | RoundTrip) -> None:
        self._faults = Faults()
        self._faults.add(action, times=None)
        self._done_at = 0.0

    async def ask(self, connection: Connection, body: bytes = b"") -> tuple[float, float]:
        """Return after how many seconds the request was done, and after how many its answer had come."""
        scope: Scope = {
            "type": "http",
            "method": "PUT",
            "path": "/",
            "query_string": b"",
            "headers": [],
            "extensions": {CONNECTION: connection},
        }
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            pass

        await self._faults.wrap(self._app, "hub")(scope, receive, send)
        return round(self._done_at - began, 6), round(loop.time() - began, 6)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self._done_at = asyncio.get_running_loop().time()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 1000})


def test_a_rate_is_that_of_one_link_for_all_requests_in_each_direction() -> None:
    link = Link(Rate(100_000))

    async def ask() -> list[tuple[float, float]]:
        return await asyncio.gather(*(link.ask(Connection(), b"x" * 10_000) for _ in range(3)))

    # Each takes 0.1 s, one after the other, but the first bytes pass at once, and so do the short answers.
    answered = [seconds for _, seconds in clock.run(ask())]
    assert answered == [round(0.1 * number - BURST, 6) for number in (1, 2, 3)]


def test_an_answer_takes_as_long_as_the_rate_says() -> None:
    link = Link(Rate(1000))
    done, answered = clock.run(link.ask(Connection()))
    assert (done, answered) == (0, 1 - BURST)


def test_a_round_trip_is_half_before_and_half_after_the_work_and_one_more_for_each_connection() -> None:
    link = Link(RoundTrip(0.2))

    async def ask() -> list[tuple[float, float]]:
        first, second = Connection(), Connection()
        return [await link.ask(connection) for connection in (first, first, second)]

    assert clock.run(ask()) == [(0.3, 0.4), (0.1, 0.2), (0.3, 0.4)]


def test_a_rate_must_be_above_0() -> None:
    with pytest.raises(ValueError, match="bytes_per_second must be more than 0, not 0"):
        Rate(0)


def test_a_cut_answer_breaks_off_in_the_middle_of_the_body(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Cut(), path="/big")
    got: list[bytes] = []
    with hub.stream("GET", "/big") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            got.extend(answer.iter_bytes())
    assert len(b"".join(got)) == 500
    assert len(hub.get("/big").content) == 1000


def test_a_cut_stream_without_a_length_is_a_broken_connection(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Cut(after=250), path="/stream")
    with pytest.raises(httpx.RemoteProtocolError):
        hub.get("/stream")


def test_a_cut_request_reaches_the_app_in_part_and_the_work_is_not_done(
    faults: Faults, work: Work, hub: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    faults.add(Cut(side="request", after=70_000))
    with pytest.raises(httpx.TransportError):
        hub.put("/file", content=b"x" * 1_000_000)
    assert work.received == 70_000
    assert work.done == []
    assert not caplog.records


def test_a_truncated_answer_looks_complete(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Truncate(after=10), path="/big")
    faults.add(Truncate(after=250), path="/stream")
    short = hub.get("/big")
    assert (short.status_code, len(short.content), short.headers["content-length"]) == (200, 10, "10")
    assert short.headers["etag"] == '"x"'
    assert len(hub.get("/stream").content) == 250


def test_a_cache_answers_as_it_did_the_first_time_unless_it_is_got_past(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    rule = faults.add(Cache(), times=None)
    assert [hub.get("/a").text for _ in range(3)] == ["done"] * 3
    assert work.done == ["a"]
    hub.get("/a", headers={"cache-control": "no-cache"})
    hub.get("/a", params={"version": "2"})
    hub.get("/a", params={"version": "2"})
    hub.put("/a", content=b"x")
    assert work.done == ["a"] * 4
    rule.wait_reached(count=7)


def test_a_stubborn_cache_is_not_got_past_until_it_is_removed(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    rule = faults.add(Cache(stubborn=True), path="/a$", times=None)
    for query in (None, {"version": "2"}):
        assert hub.get("/a", params=query, headers={"cache-control": "no-cache"}).text == "done"
    assert work.done == ["a"]
    assert hub.get("/b").text == "done"
    faults.remove(rule)
    hub.get("/a")
    assert work.done == ["a", "b", "a"]


def test_a_cache_keeps_no_failure(faults: Faults, work: Work, hub: httpx.Client) -> None:
    faults.add(Cache(stubborn=True), times=None)
    faults.add(Answer(404, "no"))
    assert hub.get("/a").status_code == 404
    assert hub.get("/a").text == "done"


def test_a_request_that_hangs_is_dropped_when_the_rule_is_cleared(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    rule = faults.add(Hang())
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.post, "/commit")
        rule.wait_reached()
        faults.clear()
        assert isinstance(asking.exception(), httpx.TransportError)
    assert hub.post("/after").status_code == 200
    assert work.done == ["after"]


@pytest.mark.parametrize("ended_by", ["its time", "release", "removal"])
def test_a_late_request_is_processed_whole_after_its_connection_was_cut(
    faults: Faults, work: Work, hub: httpx.Client, ended_by: str
) -> None:
    rule = faults.add(Late(0.3 if ended_by == "its time" else None), path="/file")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        hub.put("/file", content=b"x" * 1_000_000)
    assert rule.reached == 1
    if ended_by != "its time":
        assert hub.get("/after").status_code == 200
        assert work.done == ["after"]
        (rule.release if ended_by == "release" else faults.clear)()
    rule.wait_finished()
    assert work.received == 1_000_000
    assert work.done[-1] == "file"


def test_a_late_request_that_hangs_is_processed_although_its_caller_has_gone(
    faults: Faults, work: Work, server: Server, hub: httpx.Client
) -> None:
    rule = faults.add(Late(None, "hang"))
    with socket.create_connection((HOST, server.ports["hub"])) as connection:
        connection.sendall(b"POST /commit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        rule.wait_reached()
    assert hub.post("/after").status_code == 200
    assert work.done == ["after"]
    rule.release()
    rule.wait_finished()
    assert work.done == ["after", "commit"]


def test_a_late_request_that_hangs_is_never_answered(faults: Faults, work: Work, hub: httpx.Client) -> None:
    rule = faults.add(Late(0, "hang"))
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.post, "/commit")
        rule.wait_finished()
        assert (work.done, asking.done()) == (["commit"], False)
        faults.clear()
        assert isinstance(asking.exception(), httpx.RemoteProtocolError)
    [seen] = faults.log()
    assert seen.status is None


async def test_a_request_whose_caller_goes_before_all_of_it_is_sent_is_not_processed_late(
    faults: Faults, work: Work
) -> None:
    rule = faults.add(Late(0))
    messages: list[Message] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.disconnect"},
    ]
    scope: Scope = {"type": "http", "method": "PUT", "path": "/", "query_string": b"", "headers": []}

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await faults.wrap(work.app, "hub")(scope, receive, send)
    assert (rule.reached, rule.finished, work.done) == (0, 0, [])


def test_what_is_late_when_the_server_stops_is_dropped(
    faults: Faults, work: Work, server: Server, hub: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [faults.add(Late(60), path="/a"), faults.add(Late(60, "hang"), path="/b")]
    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(hub.get, path) for path in ("/a", "/b")]
        for rule in rules:
            rule.wait_reached()
        server.stop()
        assert all(isinstance(one.exception(), httpx.TransportError) for one in asking)
    faults.clear()
    assert work.done == []
    assert not caplog.records


def test_waiting_for_a_late_request_that_is_not_processed_times_out(faults: Faults) -> None:
    with pytest.raises(TimeoutError, match=r"0 late requests of fault 1 were processed in 0.01 s, not 1"):
        faults.add(Late()).wait_finished(0.01)


def test_waiting_for_a_rule_that_no_request_reaches_times_out(faults: Faults) -> None:
    with pytest.raises(TimeoutError, match=r"fault 1 was reached 0 times in 0.01 s, not 1"):
        faults.add(Hold("before")).wait_reached(0.01)


def test_the_server_stops_while_requests_are_held_and_the_rule_can_be_cleared_afterwards(
    faults: Faults, server: Server, hub: httpx.Client
) -> None:
    hold = faults.add(Hold("before"))
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.get, "/a")
        hold.wait_reached()
        server.stop()
        assert isinstance(asking.exception(), httpx.TransportError)
    faults.clear()


def test_websockets_are_not_affected_and_are_counted(faults: Faults, server: Server) -> None:
    faults.add(Answer(500), times=None)
    with connect(f"ws://{HOST}:{server.ports['supabase']}/socket") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hi"
    assert [(one.service, one.method) for one in faults.log()] == [("socket", "WEBSOCKET")]
    [count] = faults.counts()
    assert (count.requests, count.bytes_in, count.bytes_out) == (1, len("hello"), len("hi"))


def test_the_log_has_every_request_in_order_and_its_status(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Answer(503), path="/b")
    faults.add(LoseAnswer(), path="/c")
    hub.get("/a")
    hub.post("/b?x=1")
    with pytest.raises(httpx.TransportError):
        hub.get("/c")
    assert [(one.method, one.path, one.status) for one in faults.log()] == [
        ("GET", "/a", 200),
        ("POST", "/b", 503),
        ("GET", "/c", None),
    ]
    faults.reset()
    assert faults.log() == []
    assert faults.counts() == []


def test_requests_and_bytes_are_counted_by_route_and_caller(
    faults: Faults, hub: httpx.Client, supabase: httpx.Client
) -> None:
    hub.put("/_lfs/put/abc?sig=1", content=b"12345")
    hub.put("/_lfs/put/def?sig=2", content=b"123")
    hub.post("/api/models/alice/a/commit/main", headers={"authorization": "Bearer hf_abc"})
    hub.head("/big")
    objects = "/storage/v1/object"
    supabase.get(f"{objects}/bucket/user/1.jpg", headers={"apikey": "sb_secret_abc"})
    supabase.get(f"{objects}/sign/bucket/user/1.jpg", headers={"apikey": "sb_publishable_abc"})
    claims = "eyJyb2xlIjoiYXV0aGVudGljYXRlZCJ9"  # {"role":"authenticated"}
    headers = {"authorization": f"Bearer e30.{claims}.x", "apikey": "sb_"}
    supabase.post("/rest/v1/rpc/f", headers=headers)
    assert [tuple(asdict(count).values()) for count in faults.counts()] == [
        ("hub", "HEAD", "/big", "nobody", 1, 0, 0),
        ("hub", "POST", "/api/models/{repo}/commit/{revision}", "token", 1, 0, 4),
        ("hub", "PUT", "/_lfs/put/{oid}", "nobody", 2, 8, 8),
        ("rest", "POST", "/rest/v1/rpc/f", "authenticated", 1, 0, 4),
        ("storage", "GET", "/storage/v1/object/sign/{path}", "anon", 1, 0, 4),
        ("storage", "GET", "/storage/v1/object/{path}", "service_role", 1, 0, 4),
    ]


def test_another_process_can_add_see_release_and_remove_rules(
    hub: httpx.Client, control: httpx.Client
) -> None:
    answer = {"action": "answer", "status": 503, "body": {"a": 1}, "service": "hub"}
    added = control.post("/faults", json=answer)
    assert added.status_code == 201
    assert hub.get("/x").json() == {"a": 1}
    hold = control.post("/faults", json={"action": "hold", "when": "before", "path": "/y"}).json()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.get, "/y")
        assert control.get(f"/holds/{hold['id']}?wait={PATIENCE}").json()["reached"] == 1
        assert hub.get("/z").status_code == 200
        assert not asking.done()
        assert control.post(f"/holds/{hold['id']}/release").json()["released"] is True
        assert asking.result().status_code == 200
    held = control.get("/holds/2?wait=0.01").json()
    assert (held["reached"], held["finished"]) == (1, 0)
    assert [rule["action"] for rule in control.get("/faults").json()] == ["Answer", "Hold"]
    assert control.delete(f"/faults/{added.json()['id']}").status_code == 204
    assert control.delete("/faults").status_code == 204
    assert control.get("/faults").json() == []
    assert [one["path"] for one in control.get("/log").json()] == ["/x", "/y", "/z"]
    assert [one["requests"] for one in control.get("/counts").json()] == [1, 1, 1]
    assert control.delete("/log").status_code == 204
    assert control.get("/log").json() == control.get("/counts").json() == []


@pytest.mark.parametrize(
    ("asked", "body", "status", "sentence"),
    [
        ("POST /faults", b'{"action": "explode"}', 400, "action must be one of answer, delay"),
        ("POST /faults", b'{"action": "answer"}', 400, "status"),
        ("POST /faults", b'{"action": "hold", "when": "never"}', 400, "before, after, not 'never'"),
        ("POST /faults", b'{"action": "late", "connection": "kept"}', 400, "cut, hang, not 'kept'"),
        ("POST /faults", b'{"action": "hang", "path": "("}', 400, "hang: missing )"),
        ("POST /faults", b"[]", 400, "the body must be a JSON object"),
        ("POST /faults", b"{", 400, "the body is not JSON"),
        ("GET /holds/7", b"", 404, "there is no fault 7"),
        ("POST /actions/dance", b"", 404, "there is no action 'dance'; there are: none"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_control_request(
    control: httpx.Client, asked: str, body: bytes, status: int, sentence: str
) -> None:
    answer = control.request(*asked.split(), content=body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_registered_actions_are_called_by_name(faults: Faults, control: httpx.Client) -> None:
    async def close(code: int) -> dict[str, object]:
        await asyncio.sleep(0)
        return {"code": code, "thread": threading.current_thread().name}

    def restart(*, fast: bool) -> str:
        if not fast:
            raise ValueError("only fast")
        return threading.current_thread().name

    faults.register("close", close)
    faults.register("restart", restart)
    assert control.post("/actions/close", json={"code": 1012}).json() == {
        "code": 1012,
        "thread": "sandbox-server",
    }
    assert control.post("/actions/restart", json={"fast": True}).json() != "sandbox-server"
    assert control.post("/actions/restart", json={"fast": False}).json() == {"error": "restart: only fast"}
    assert "missing" in control.post("/actions/restart").json()["error"]
    assert "close, restart" in control.post("/actions/dance").json()["error"]


# The real clients, with faults that another process asked for.

BUCKET, TABLE, REPO = "identity-images", "trained_identities", "sandbox/a"
PHOTO = jpeg(1)
LATER = {"error": "later", "message": "later", "code": "X"}
BROKEN = (httpx.RemoteProtocolError, httpx2.RemoteProtocolError)
AT = {
    "look": {"service": "hub", "path": "^/api/models/"},
    "commit": {"service": "hub", "path": "/commit/main$"},
    "send": {"service": "hub", "path": "^/_lfs/put/"},
    "download": {"service": "storage", "method": "GET"},
    "upload": {"service": "storage", "method": "POST"},
    "select": {"service": "rest", "method": "GET"},
    "insert": {"service": "rest", "method": "POST"},
    "delete": {"service": "hub", "method": "DELETE"},
}
"""Where a fault has to be to meet each call of `Person`."""


@dataclass(frozen=True)
class Person:
    """Calls each service with its real client, and knows whether the call was done."""

    scene: Scene
    supabase: Client
    hub: HfApi
    user: UUID
    paths: list[str]

    def look(self) -> object:
        return self.hub.list_repo_refs(REPO)

    def commit(self) -> object:
        return self.hub.create_commit(REPO, [CommitOperationAdd("x", b"x")], commit_message="x").oid

    def send(self) -> object:
        return self.hub.preupload_lfs_files(REPO, [CommitOperationAdd("a.jpg", PHOTO)])

    def download(self) -> object:
        return self.supabase.storage.from_(BUCKET).download(self.paths[0])

    def upload(self) -> object:
        file = f"{self.user}/set/new.jpg"
        return self.supabase.storage.from_(BUCKET).upload(file, PHOTO, {"content-type": "image/jpeg"})

    def select(self) -> object:
        return self.supabase.table(TABLE).select("identity_name").execute().data

    def insert(self) -> object:
        row = {"identity_name": "Ada", "image_paths": self.paths}
        return self.supabase.table(TABLE).insert(row).execute().data

    def done(self, call: str) -> bool:
        """Return whether what a call asks for is there."""
        store, value = self.scene.sandbox.hub.store, self.scene.database.value
        if call == "send":
            return store.bytes.used(self.scene.repo(REPO).id) > 0
        if call == "commit":
            return len(self.scene.commits(REPO)) == 2
        if call == "upload":
            return bool(value("select exists (select from storage.objects where name like '%%new.jpg')"))
        return bool(value(f"select exists (select from {TABLE})"))

    def ask(self, call: str, **fault: Any) -> Any:
        """Add a fault for a call over the control port, and return the answer."""
        answer = httpx.post(f"{self.scene.sandbox.control_url}/faults", json={**AT[call], **fault})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def wait_reached(self, fault: Any) -> None:
        control = self.scene.sandbox.control_url
        answer = httpx.get(f"{control}/holds/{fault['id']}?wait={PATIENCE}", timeout=2 * PATIENCE)
        assert answer.json()["reached"] == 1

    def finish(self, fault: Any) -> None:
        """Let a late request be processed now, and wait until it is."""
        control = f"{self.scene.sandbox.control_url}/holds/{fault['id']}"
        assert httpx.post(f"{control}/release").json()["released"]
        deadline = time.monotonic() + PATIENCE
        while not httpx.get(control).json()["finished"]:
            assert time.monotonic() < deadline, "The late request was not processed."
            time.sleep(0.01)


@pytest.fixture
def person(scene: Scene, hub_client: None) -> Iterator[Person]:
    scene.make_repo(REPO)
    user, paths = scene.put()
    sandbox = scene.sandbox
    with httpx.Client(timeout=PATIENCE) as http:
        options = SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        supabase = create_client(sandbox.supabase_url, sandbox.keys.publishable, options)
        token = sandbox.keys.sign({"sub": str(user), "role": "authenticated", "exp": 4e9})
        supabase.options.headers["Authorization"] = f"Bearer {token}"
        yield Person(scene, supabase, HfApi(sandbox.hub_url, sandbox.hub_token), user, paths)


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "insert"])
def test_an_answer_becomes_the_clients_own_error_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="answer", status=503, body=LATER)
    with pytest.raises((HfHubHTTPError, StorageApiError, APIError)) as caught:
        getattr(person, call)()
    match caught.value:
        case HfHubHTTPError() as error:
            assert (error.response.status_code, error.server_message) == (503, "later")
        case StorageApiError() as error:
            assert error.status == 503
        case APIError() as error:
            assert (error.code, error.message) == ("X", "later")
    assert call in {"look", "download"} or not person.done(call)


@pytest.mark.parametrize("call", ["send", "select"])
@pytest.mark.parametrize("fault", [{"action": "answer", "status": 503}, {"action": "lose_answer"}])
def test_a_client_that_retries_by_itself_succeeds(person: Person, call: str, fault: dict[str, Any]) -> None:
    met = person.ask(call, **fault)
    getattr(person, call)()
    assert call == "select" or person.done(call)
    control = person.scene.sandbox.control_url
    assert httpx.get(f"{control}/holds/{met['id']}").json()["reached"] == 1


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "insert"])
def test_an_answer_that_is_cut_is_a_broken_connection_after_the_work(person: Person, call: str) -> None:
    person.ask(call, action="cut")
    with pytest.raises(BROKEN, match="without sending complete message body"):
        getattr(person, call)()
    assert call in {"look", "download"} or person.done(call)


@pytest.mark.parametrize("call", ["commit", "upload", "insert"])
def test_a_request_that_is_cut_is_a_broken_connection_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="cut", side="request")
    with pytest.raises((*BROKEN, httpx.WriteError, httpx2.WriteError, httpx.ReadError, httpx2.ReadError)):
        getattr(person, call)()
    assert not person.done(call)


@pytest.mark.parametrize("call", ["commit", "upload", "insert"])
def test_a_lost_answer_is_a_broken_connection_after_the_work(person: Person, call: str) -> None:
    person.ask(call, action="lose_answer")
    with pytest.raises(BROKEN, match="without sending a response"):
        getattr(person, call)()
    assert person.done(call)


@pytest.mark.parametrize("call", ["commit", "upload", "insert"])
def test_a_late_request_is_a_broken_connection_before_the_work(person: Person, call: str) -> None:
    late = person.ask(call, action="late")
    with pytest.raises(BROKEN, match="without sending a response"):
        getattr(person, call)()
    assert not person.done(call)
    person.finish(late)
    assert person.done(call)


def test_a_late_deletion_of_a_repo_is_done_after_its_client_was_killed(person: Person) -> None:
    late = person.ask("delete", action="late", connection="hang")
    sandbox = person.scene.sandbox
    program = f"HfApi({sandbox.hub_url!r}, {sandbox.hub_token!r}).delete_repo({REPO!r})"
    client = subprocess.Popen([sys.executable, "-c", f"from huggingface_hub import HfApi; {program}"])
    try:
        person.wait_reached(late)
    finally:
        client.kill()
        client.wait()
    assert person.scene.repos() == [REPO]
    person.finish(late)
    assert person.scene.repos() == []


def test_a_truncated_image_looks_complete(person: Person) -> None:
    person.ask("download", action="truncate", after=100)
    assert person.download() == PHOTO[:100]
    assert person.download() == PHOTO


@pytest.mark.parametrize("call", ["look", "commit", "insert"])
def test_truncated_json_cannot_be_parsed(person: Person, call: str) -> None:
    person.ask(call, action="truncate", after=5)
    if call == "insert":
        assert isinstance(person.insert(), str), "postgrest returns what it cannot parse as text."
    else:
        with pytest.raises(json.JSONDecodeError):
            getattr(person, call)()
    assert call == "look" or person.done(call)


@pytest.mark.parametrize("call", ["look", "commit", "download", "upload", "select", "insert"])
def test_a_request_that_hangs_times_out_and_nothing_is_done(person: Person, call: str) -> None:
    person.ask(call, action="hang", times=None)
    assert person.supabase.options.httpx_client is not None
    person.supabase.options.httpx_client.timeout = httpx.Timeout(0.3)
    set_client_factory(lambda: httpx2.Client(timeout=0.3))
    try:
        with pytest.raises((httpx.ReadTimeout, httpx2.ReadTimeout)):
            getattr(person, call)()
    finally:
        set_client_factory(default_client_factory)
    assert httpx.delete(f"{person.scene.sandbox.control_url}/faults").status_code == 204
    assert call in {"look", "download", "select"} or not person.done(call)


@pytest.mark.parametrize("call", ["commit", "send", "upload", "insert"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_held_request_goes_on_when_it_is_released(person: Person, call: str, when: str) -> None:
    control = person.scene.sandbox.control_url
    hold = person.ask(call, action="hold", when=when)
    with ThreadPoolExecutor() as pool:
        going = pool.submit(getattr(person, call))
        person.wait_reached(hold)
        assert (going.done(), person.done(call)) == (False, when == "after")
        assert httpx.post(f"{control}/holds/{hold['id']}/release").json()["released"]
        going.result()
    assert person.done(call)


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.parametrize("call", ["look", "download", "select"])
@pytest.mark.parametrize("action", ["delay", "round_trip"])
def test_the_clients_wait_for_a_slow_service(person: Person, action: str, call: str) -> None:
    person.ask(call, action=action, seconds=0.2)
    new_connection = 0.2 if action == "round_trip" else 0
    assert seconds(getattr(person, call)) >= 0.2 + new_connection


@pytest.mark.parametrize("call", ["send", "upload", "download"])
def test_the_clients_wait_for_a_slow_link_in_both_directions(person: Person, call: str) -> None:
    person.ask(call, action="rate", bytes_per_second=len(PHOTO) * 4)
    assert seconds(getattr(person, call)) >= 0.2
