"""Faults on request: what a client meets when one is asked for, and what the app has done by then."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from watcher.sandbox.faults import (
    Answer,
    Cut,
    Delay,
    Faults,
    Hang,
    Hold,
    LoseAnswer,
    Rate,
    RoundTrip,
    Truncate,
)
from watcher.sandbox.server import Server


class Work:
    """An app that remembers what it has done."""

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
def hub(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.ports['hub']}", timeout=10) as client:
        yield client


@pytest.fixture
def control(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.ports['control']}", timeout=10) as client:
        yield client


def test_an_answer_comes_as_often_as_asked_and_the_work_is_not_done(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    faults.add(Answer(503, {"error": "later"}, {"retry-after": "2"}), path="^/commit$", times=2)
    answers = [hub.post("/commit", content=b"x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].json() == {"error": "later"}
    assert answers[0].headers["retry-after"] == "2"
    assert work.done == ["commit"]


def test_a_rule_meets_only_its_service_method_and_path_and_lets_the_first_pass(
    faults: Faults, server: Server, hub: httpx.Client
) -> None:
    faults.add(Answer(500, "no"), service="rest", method="POST", path="/commit", skip=1, times=None)
    supabase = f"http://127.0.0.1:{server.ports['supabase']}"
    assert hub.post("/rest/commit").status_code == 200
    assert httpx.get(f"{supabase}/rest/commit").status_code == 200
    assert httpx.post(f"{supabase}/rest/other").status_code == 200
    statuses = [httpx.post(f"{supabase}/rest/commit").status_code for _ in range(3)]
    assert statuses == [200, 500, 500]


def test_rules_apply_in_order_and_the_second_waits_for_its_turn(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Delay(0.05), times=None)
    faults.add(Answer(503))
    faults.add(Answer(429))
    began = time.monotonic()
    assert [hub.get("/a").status_code for _ in range(3)] == [503, 429, 200]
    assert time.monotonic() - began >= 0.15


def test_a_rate_is_one_link_for_all_that_pass_in_both_directions(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Rate(100_000), times=None)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: hub.put("/up", content=b"x" * 10_000), range(3)))
    up = time.monotonic() - began
    assert 0.2 < up < 2
    began = time.monotonic()
    for _ in range(20):
        hub.get("/big")
    assert 0.15 < time.monotonic() - began < 2


def test_a_rate_may_be_told_only_above_nothing() -> None:
    with pytest.raises(ValueError, match="bytes_per_second must be more than 0, not 0"):
        Rate(0)


def test_a_round_trip_is_half_before_and_half_after_the_work_and_one_more_for_each_connection(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    faults.add(RoundTrip(0.2), times=None)

    def ask(client: httpx.Client) -> tuple[float, float]:
        """Seconds until the work was done, and from then until the answer."""
        seen, began = len(work.done), time.monotonic()
        with ThreadPoolExecutor() as pool:
            asking = pool.submit(client.get, "/a")
            while len(work.done) == seen:
                time.sleep(0.001)
            done = time.monotonic()
            asking.result()
        return done - began, time.monotonic() - done

    there, back = ask(hub)
    assert there >= 0.3
    assert back >= 0.09
    assert 0.1 <= min(ask(hub)[0] for _ in range(5)) < 0.3
    with httpx.Client(base_url=hub.base_url) as other:
        assert ask(other)[0] >= 0.3


def test_a_cut_response_breaks_in_the_middle_of_the_body(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Cut(), path="/big")
    got: list[bytes] = []
    with hub.stream("GET", "/big") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            got.extend(answer.iter_bytes())
    assert len(b"".join(got)) == 500
    assert len(hub.get("/big").content) == 1000


def test_a_cut_stream_without_a_length_is_seen_as_broken(faults: Faults, hub: httpx.Client) -> None:
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


def test_a_truncated_body_looks_whole(faults: Faults, hub: httpx.Client) -> None:
    faults.add(Truncate(after=10), path="/big")
    faults.add(Truncate(after=250), path="/stream")
    short = hub.get("/big")
    assert (short.status_code, len(short.content), short.headers["content-length"]) == (200, 10, "10")
    assert short.headers["etag"] == '"x"'
    assert len(hub.get("/stream").content) == 250


def test_a_request_that_hangs_is_never_done_and_dropped_when_the_rule_is_cleared(
    faults: Faults, work: Work, hub: httpx.Client
) -> None:
    rule = faults.add(Hang())
    with pytest.raises(httpx.ReadTimeout):
        hub.post("/commit", timeout=0.1)
    rule.wait_reached()
    faults.add(Hang())
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.post, "/commit")
        faults.rules()[-1].wait_reached()
        faults.clear()
        assert isinstance(asking.exception(timeout=5), httpx.TransportError)
    assert hub.post("/after").status_code == 200
    assert work.done == ["after"]


def test_a_lost_answer_means_that_the_work_is_done(faults: Faults, work: Work, hub: httpx.Client) -> None:
    rule = faults.add(LoseAnswer(), path="/first")
    with pytest.raises(httpx.RemoteProtocolError):
        hub.post("/first")
    assert rule.reached == 1
    faults.add(LoseAnswer(500, {"error": "Internal Server Error"}), path="/second")
    assert hub.post("/second").status_code == 500
    assert work.done == ["first", "second"]


@pytest.mark.parametrize(("when", "done"), [("before", []), ("after", ["commit"])])
def test_a_request_can_be_held_before_and_after_it_is_done(
    faults: Faults, work: Work, hub: httpx.Client, when: str, done: list[str]
) -> None:
    hold = faults.add(Hold("before" if when == "before" else "after"), path="/commit")
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.post, "/commit")
        hold.wait_reached(5)
        assert not asking.done()
        assert work.done == done
        assert hub.post("/other").status_code == 200
        hold.release()
        assert asking.result(timeout=5).status_code == 200
    assert sorted(work.done) == ["commit", "other"]


def test_waiting_for_a_fault_that_nobody_meets_says_so(faults: Faults) -> None:
    with pytest.raises(TimeoutError, match=r"fault 1 was reached 0 times in 0.01 s, not 1"):
        faults.add(Hold("before")).wait_reached(0.01)


def test_the_server_stops_while_requests_are_held_and_clearing_afterwards_is_harmless(
    faults: Faults, server: Server, hub: httpx.Client
) -> None:
    hold = faults.add(Hold("before"))
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.get, "/a")
        hold.wait_reached()
        server.stop()
        assert isinstance(asking.exception(timeout=5), httpx.TransportError)
    faults.clear()


def test_websockets_pass_through_and_are_counted(faults: Faults, server: Server) -> None:
    faults.add(Answer(500), times=None)
    with connect(f"ws://127.0.0.1:{server.ports['supabase']}/socket") as websocket:
        assert websocket.recv() == "hi"
    assert [(one.service, one.method) for one in faults.log()] == [("socket", "WEBSOCKET")]


def test_the_log_has_every_request_in_order_and_what_was_answered(faults: Faults, hub: httpx.Client) -> None:
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
    faults: Faults, server: Server, hub: httpx.Client
) -> None:
    hub.put("/_lfs/put/abc?sig=1", content=b"12345")
    hub.put("/_lfs/put/def?sig=2", content=b"123")
    hub.post("/api/models/alice/a/commit/main", headers={"authorization": "Bearer hf_abc"})
    hub.head("/big")
    supabase = f"http://127.0.0.1:{server.ports['supabase']}"
    httpx.get(f"{supabase}/storage/v1/object/bucket/user/1.jpg", headers={"apikey": "sb_secret_abc"})
    httpx.get(
        f"{supabase}/storage/v1/object/sign/bucket/user/1.jpg", headers={"apikey": "sb_publishable_abc"}
    )
    claims = "eyJyb2xlIjoiYXV0aGVudGljYXRlZCJ9"  # {"role":"authenticated"}
    httpx.post(
        f"{supabase}/rest/v1/rpc/f", headers={"authorization": f"Bearer e30.{claims}.x", "apikey": "sb_"}
    )
    assert [tuple(asdict(count).values()) for count in faults.counts()] == [
        ("hub", "HEAD", "/big", "nobody", 1, 0, 0),
        ("hub", "POST", "/api/models/{repo}/commit/{revision}", "token", 1, 0, 4),
        ("hub", "PUT", "/_lfs/put/{oid}", "nobody", 2, 8, 8),
        ("rest", "POST", "/rest/v1/rpc/f", "authenticated", 1, 0, 4),
        ("storage", "GET", "/storage/v1/object/sign/{path}", "anon", 1, 0, 4),
        ("storage", "GET", "/storage/v1/object/{path}", "service_role", 1, 0, 4),
    ]


def test_another_process_can_ask_for_all_of_it(hub: httpx.Client, control: httpx.Client) -> None:
    added = control.post(
        "/faults", json={"action": "answer", "status": 503, "body": {"a": 1}, "service": "hub"}
    )
    assert added.status_code == 201
    assert hub.get("/x").json() == {"a": 1}
    hold = control.post("/faults", json={"action": "hold", "when": "before", "path": "/y"}).json()
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(hub.get, "/y")
        assert control.get(f"/holds/{hold['id']}?wait=5").json()["reached"] == 1
        assert control.post(f"/holds/{hold['id']}/release").json()["released"] is True
        assert asking.result(timeout=5).status_code == 200
    assert control.get("/holds/2?wait=0.01").json()["reached"] == 1
    assert [rule["action"] for rule in control.get("/faults").json()] == ["Answer", "Hold"]
    assert control.delete(f"/faults/{added.json()['id']}").status_code == 204
    assert control.delete("/faults").status_code == 204
    assert control.get("/faults").json() == []
    assert [one["path"] for one in control.get("/log").json()] == ["/x", "/y"]
    assert [one["requests"] for one in control.get("/counts").json()] == [1, 1]
    assert control.delete("/log").status_code == 204
    assert control.get("/log").json() == control.get("/counts").json() == []


@pytest.mark.parametrize(
    ("asked", "body", "status", "sentence"),
    [
        ("POST /faults", b'{"action": "explode"}', 400, "action must be one of answer, delay"),
        ("POST /faults", b'{"action": "answer"}', 400, "status"),
        ("POST /faults", b'{"action": "hold", "when": "never"}', 400, "before, after, not 'never'"),
        ("POST /faults", b'{"action": "hang", "path": "("}', 400, "hang: missing )"),
        ("POST /faults", b"[]", 400, "the body must be a JSON object"),
        ("POST /faults", b"{", 400, "the body is not JSON"),
        ("GET /holds/7", b"", 404, "there is no fault 7"),
        ("POST /actions/dance", b"", 404, "there is no action 'dance'; there are: none"),
    ],
)
def test_what_is_wrong_with_a_control_request_is_said(
    control: httpx.Client, asked: str, body: bytes, status: int, sentence: str
) -> None:
    answer = control.request(*asked.split(), content=body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_actions_of_other_kinds_are_called_by_name(faults: Faults, control: httpx.Client) -> None:
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
