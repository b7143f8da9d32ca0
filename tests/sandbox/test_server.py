"""The server: several apps in one thread, and how it stops."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.sandbox.project import PATIENCE
from watcher.sandbox import server as module
from watcher.sandbox.server import CONNECTION, HOST, Server, drop

HANGING = threading.Event()


async def say_hello(request: Request) -> Response:
    return PlainTextResponse(f"hello from {request.app.state.name}")


async def hang(request: Request) -> Response:
    HANGING.set()
    await asyncio.sleep(3600)
    raise AssertionError


async def connection(request: Request) -> Response:
    """Say which connection this is, and whether TCP waits for more before it sends."""
    transport = request.scope["extensions"][CONNECTION]
    delay = not transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return JSONResponse({"id": id(transport), "delay": delay})


async def vanish(request: Request) -> Response:
    await drop(request.scope, request.receive)
    return Response()


async def swallow(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "vanish":
            await drop(websocket.scope, websocket.receive)
            return
        await websocket.send_text(text)


def app(name: str = "app", **options: object) -> Starlette:
    made = Starlette(
        routes=[
            Route("/", say_hello),
            Route("/hang", hang),
            Route("/connection", connection),
            Route("/vanish", vanish),
            Route("/swallow", swallow, methods=["PUT"]),
            WebSocketRoute("/echo", echo),
        ],
        **options,  # type: ignore[arg-type] # lifespan
    )
    made.state.name = name
    return made


@contextmanager
def serving(**apps: Starlette) -> Iterator[Server]:
    server = Server({name: (one, 0) for name, one in apps.items()})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_each_app_listens_on_its_own_free_port_when_start_returns() -> None:
    with serving(a=app("a"), b=app("b")) as server:
        for name in "ab":
            answer = httpx.get(f"http://{HOST}:{server.ports[name]}/")
            assert answer.text == f"hello from {name}"
            assert "server" not in answer.headers
    assert server.ports["a"] != server.ports["b"]


def test_an_app_can_tell_connections_apart_and_none_delays_small_answers() -> None:
    with serving(a=app()) as server:
        url = f"http://{HOST}:{server.ports['a']}"
        with httpx.Client(base_url=url) as one, httpx.Client(base_url=url) as two:
            first, again, other = (client.get("/connection").json() for client in (one, one, two))
    assert first == again
    assert other["id"] != first["id"]
    assert first["delay"] is False


def test_a_port_that_is_taken_is_named_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server({"free": (app(), 0), "taken": (app(), port)})
        with pytest.raises(OSError, match=f"port {port} on 127.0.0.1, for 'taken'"):
            server.start()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.ports["free"]))


def test_the_same_port_can_be_used_again_at_once() -> None:
    with serving(a=app()) as first:
        assert httpx.get(f"http://{HOST}:{first.ports['a']}/").is_success
    second = Server({"a": (app(), first.ports["a"])})
    second.start()
    try:
        assert httpx.get(f"http://{HOST}:{second.ports['a']}/").is_success
    finally:
        second.stop()


def test_a_failing_lifespan_is_raised_and_ends_the_other_apps() -> None:
    ended = threading.Event()
    listening: list[str] = []

    @asynccontextmanager
    async def failing(_: Starlette) -> AsyncIterator[None]:
        if not listening:
            raise LookupError("no database")
        yield

    @asynccontextmanager
    async def fine(_: Starlette) -> AsyncIterator[None]:
        yield
        ended.set()

    server = Server({"fine": (app(lifespan=fine), 0), "bad": (app(lifespan=failing), 0)})
    with pytest.raises(RuntimeError, match="'bad' did not start") as caught:
        server.start()
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value.__cause__.__cause__, LookupError)
    assert ended.is_set()


def test_stop_waits_neither_for_hanging_requests_nor_for_open_websockets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UVICORN_GRACE", 3600)
    before = threading.active_count()
    with serving(a=app()) as server:
        address = f"{HOST}:{server.ports['a']}"
        failures: list[Exception] = []

        def ask() -> None:
            try:
                httpx.get(f"http://{address}/hang", timeout=PATIENCE)
            except httpx.TransportError as error:
                failures.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        with connect(f"ws://{address}/echo") as websocket, caplog.at_level(logging.WARNING):
            websocket.send("hi")
            assert websocket.recv() == "hi"
            assert HANGING.wait(PATIENCE)
            server.stop()
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(timeout=PATIENCE)
        asking.join()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert len(failures) == 1
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert threading.active_count() == before


def test_a_dropped_request_gets_no_answer() -> None:
    with serving(a=app()) as server, pytest.raises(httpx.TransportError):
        httpx.get(f"http://{HOST}:{server.ports['a']}/vanish")


def test_a_dropped_websocket_gets_no_close_frame() -> None:
    with serving(a=app()) as server, connect(f"ws://{HOST}:{server.ports['a']}/echo") as websocket:
        websocket.send("vanish")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is None


def test_a_client_that_disconnects_during_its_request_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(a=app()) as server:
        port = server.ports["a"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"PUT /swallow HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
            time.sleep(0.05)
        assert httpx.put(f"http://{HOST}:{port}/swallow", content=b"whole").text == "5"
    assert not caplog.records


def test_a_coroutine_runs_on_the_servers_loop_from_another_thread() -> None:
    async def where() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    with serving(a=app()) as server:
        assert server.run(where(), timeout=PATIENCE) == "sandbox-server"
        with pytest.raises(TimeoutError):
            server.run(asyncio.sleep(60), timeout=0.01)
