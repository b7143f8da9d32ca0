"""What a cancelled request leaves behind: nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpcore import AsyncConnectionPool

from tests.support.waiting import PATIENCE
from watcher.supabase.connections import UNLIMITED, Client, Renewed

CANCELLED = 400
TLS = httpx.create_ssl_context()


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[str, set[asyncio.StreamWriter]]]:
    """Serve small answers; gives the URL, and the connections that are open."""
    connections = set[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            connections.discard(writer)
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield "http://{}:{}/".format(*server.sockets[0].getsockname()), connections


async def cancel_many(client: httpx.AsyncClient, url: str) -> None:
    """Cancel requests, each after another number of steps of the event loop."""
    rnd = random.Random(1)
    cancelled = 0
    while cancelled < CANCELLED:
        request = asyncio.create_task(client.get(url))
        for _ in range(rnd.randrange(40)):
            await asyncio.sleep(0)
        if request.cancel():
            cancelled += 1
        await asyncio.wait([request])


async def settled(true: Callable[[], Any]) -> None:
    while not true():  # noqa: ASYNC110  (what ends a connection tells nobody)
        await asyncio.sleep(0.001)


async def test_httpcore_keeps_requests_that_were_cancelled_at_the_wrong_moment() -> None:
    """Where this fails, httpcore has mended it, and `watcher/supabase/connections.py` is no longer needed."""
    async with answering() as (url, _), httpx.AsyncClient(limits=UNLIMITED) as client:
        await cancel_many(client, url)
        transport = client._transport
        assert isinstance(transport, httpx.AsyncHTTPTransport)
        pool = transport._pool
        assert isinstance(pool, AsyncConnectionPool)
        assert len(pool._requests) > CANCELLED / 40


async def test_a_cancelled_request_leaves_no_connection_behind() -> None:
    async with asyncio.timeout(PATIENCE), answering() as (url, connections), Client(verify=TLS) as client:
        await cancel_many(client, url)
        assert (await client.get(url)).text == "hello"
        await settled(lambda: len(connections) == 1)
        transport = client._transport
        assert isinstance(transport, Renewed)
        await settled(lambda: not transport._closing)


async def test_a_cancellation_does_not_disturb_the_others() -> None:
    async with asyncio.timeout(PATIENCE), answering() as (url, connections), Client(verify=TLS) as client:
        async with client.stream("GET", url) as response:
            other = asyncio.create_task(client.get(url))
            await asyncio.sleep(0)
            other.cancel()
            await asyncio.wait([other])
            assert await response.aread() == b"hello"
        await settled(lambda: not connections)
        assert (await client.get(url)).text == "hello"
        await settled(lambda: len(connections) == 1)


async def test_a_request_that_fails_keeps_the_pool() -> None:
    async with answering() as (url, connections), Client(verify=TLS) as client:
        await client.get(url)
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:9/")
        await client.get(url)
        assert len(connections) == 1


async def test_proxies_of_the_environment_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering() as (url, _):
        monkeypatch.setenv("HTTP_PROXY", url)
        async with Client(verify=TLS) as client:
            assert (await client.get("http://somewhere.example/")).text == "hello"


async def test_what_is_sent_when_all_is_closed_fails_as_a_connection_does() -> None:
    async with answering() as (url, _):
        client = Client(verify=TLS)
        assert (await client.get(url)).text == "hello"
        await client.aclose()
        with pytest.raises(httpx.ConnectError, match="stopped"):
            await client.get(url)
