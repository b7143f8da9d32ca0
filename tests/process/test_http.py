"""The little HTTP: it answers those who ask properly, and nobody else costs it anything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx
import pytest

from tests.support.waiting import PATIENCE
from tests.support.watching import free_address
from watcher.errors import Misconfigured
from watcher.process import http as endpoint
from watcher.process.http import Response, serving

LARGE = b"x" * 2**24


async def fine() -> Response:
    return Response(b"fine\n")


async def bad() -> Response:
    return Response(b"It is stopping.\n", HTTPStatus.SERVICE_UNAVAILABLE)


async def large() -> Response:
    return Response(LARGE)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, int]]:
    host, _, port = free_address().rpartition(":")
    async with serving(host, int(port), {"/fine": fine, "/bad": bad, "/large": large}):
        yield host, int(port)


async def raw(address: tuple[str, int], request: bytes) -> bytes:
    """Send some bytes and return what comes until the end."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_each_path_has_its_answer_and_no_other_has_one() -> None:
    async with served() as (host, port), httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
        good = await client.get("/fine?of=no-matter")
        assert (good.status_code, good.text, good.headers["connection"]) == (200, "fine\n", "close")
        assert (await client.get("/bad")).status_code == 503
        assert (await client.get("/")).status_code == 404
        assert "/fine, /bad, /large" in (await client.get("/other")).text
        assert (await client.post("/fine", content=b"x")).status_code == 405
        head = await client.head("/fine")
        assert (head.headers["content-length"], head.content) == ("5", b"")
        assert (await client.get("/large")).content == LARGE


@pytest.mark.parametrize(
    "request_", [b"hello\r\n\r\n", b"\r\n\r\n", b"GET /fine\r\n\r\n", b"\xff\x00 / SSH-2.0\r\n\r\n"]
)
async def test_what_is_no_http_is_told_so(request_: bytes) -> None:
    async with served() as address:
        assert (await raw(address, request_)).startswith(b"HTTP/1.1 400 ")


async def test_a_head_without_an_end_is_not_listened_to_for_ever() -> None:
    async with served() as address:
        assert await raw(address, b"GET /fine HTTP/1.1\r\nX: " + b"x" * 100_000) == b""


async def test_who_is_slow_or_does_not_read_is_cut_off_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT", 2)
    async with served() as address:
        deaf = await asyncio.open_connection(*address, limit=1)
        deaf[1].write(b"GET /large HTTP/1.1\r\n\r\n")
        # Opened last, so that it is cut off last.
        silent = await asyncio.open_connection(*address)
        assert (await raw(address, b"GET /fine HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        async with asyncio.timeout(PATIENCE):
            assert await silent[0].read() == b""
            came = 0
            while part := await deaf[0].read(2**20):
                came += len(part)
        assert came < len(LARGE)
        for _, writer in (silent, deaf):
            writer.transport.abort()


async def test_a_probe_is_answered_beside_slow_clients_of_whom_the_oldest_has_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT", PATIENCE)
    async with served() as address:
        held = [await asyncio.open_connection(*address) for _ in range(40)]
        await asyncio.sleep(0.05)
        assert b" 200 " in await raw(address, b"GET /fine HTTP/1.1\r\n\r\n")
        # Sixteen are listened to at a time: of forty, 24 had to go for the others, and one more for the probe.
        async with asyncio.timeout(PATIENCE / 2):
            for reader, _ in held[:25]:
                assert await reader.read() == b""
            for reader, writer in held[25:]:
                writer.write(b"GET /fine HTTP/1.1\r\n\r\n")
                assert b" 200 " in await reader.read()
        for _, writer in held:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200), ("localhost", 200), ("[::1]:9464", 200), ("127.8.8.8", 200),
        ("attacker.example:9464", 421), ("192.0.2.1", 421), ("localhost.attacker.example", 421), ("", 421),
    ],
)  # fmt: skip
async def test_a_page_in_a_browser_cannot_read_it_by_a_name_that_leads_here(host: str, status: int) -> None:
    async with served() as address:
        answer = await raw(address, f"GET /fine HTTP/1.1\r\nhOST : {host}\r\n\r\n".encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_clients_that_stay_do_not_keep_it_from_ending() -> None:
    async with served() as address:
        reader, writer = await asyncio.open_connection(*address)
        await asyncio.sleep(0.05)
    assert await reader.read() == b""
    writer.transport.abort()


async def test_an_address_that_is_taken_is_said_in_a_sentence() -> None:
    async with served() as (host, port):
        with pytest.raises(Misconfigured, match=f"WATCHER_METRICS_ADDRESS is {host}:{port}, .*another port"):
            async with serving(host, port, {}):
                pass
