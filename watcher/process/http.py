"""A minimal HTTP server for monitoring: GET and HEAD, a few paths, one response per connection.

It runs on the daemon's own loop, so time, request size and the number of connections are limited.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

from watcher.errors import Misconfigured

_TIMEOUT = 5.0
"""Seconds that one connection may last."""
_MAX_HEAD = 4096
"""Bytes of a request's first line and headers."""
_MAX_CONNECTIONS = 16


class Response(NamedTuple):
    """The response of a page."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Awaitable[Response]]]


@asynccontextmanager
async def serving(host: str, port: int, pages: Pages) -> AsyncIterator[None]:
    """Serve `pages`, by path, while the body runs; raises Misconfigured if the address cannot be listened on."""
    connections: dict[asyncio.Task[None], None] = {}  # the oldest first

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(connections) >= _MAX_CONNECTIONS:
            # Those that were served would be gone: the oldest are slow, and must not keep a probe out.
            oldest = next(iter(connections))
            del connections[oldest]
            oldest.cancel()
        connections[task] = None
        await _serve(reader, writer, pages)
        connections.pop(task, None)
        writer.transport.abort()

    try:
        server = await asyncio.start_server(connected, host, port, limit=_MAX_HEAD)
    except OSError as error:
        raise Misconfigured(
            f"WATCHER_METRICS_ADDRESS is {host}:{port}, which cannot be listened on ({error.strerror}): "
            "set another port."
        ) from error
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _respond(head, pages))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return  # the client was too slow, sent too much or went away
    except asyncio.CancelledError:
        return  # the server is closing: Python 3.11 would report the cancellation of this task as an error


async def _respond(head: bytes, pages: Pages) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, version = rest.rpartition(" ")
    if not version.startswith("HTTP/1."):
        response = Response(b"Send an HTTP/1.1 request.\n", HTTPStatus.BAD_REQUEST)
    elif not _is_for_this_host(head):
        response = Response(b"Ask for a loopback address.\n", HTTPStatus.MISDIRECTED_REQUEST)
    elif method not in {"GET", "HEAD"}:
        response = Response(b"Only GET and HEAD are allowed.\n", HTTPStatus.METHOD_NOT_ALLOWED)
    elif (page := pages.get(target.partition("?")[0])) is None:
        response = Response(f"Not found. Paths: {', '.join(pages)}.\n".encode(), HTTPStatus.NOT_FOUND)
    else:
        response = await page()
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if response.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else response.body)


def _is_for_this_host(head: bytes) -> bool:
    """Whether a request names a loopback address or no host: a page in a browser here could reach this port by a name."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "host":
            host = re.sub(r":\d*$", "", value.strip()).strip("[]").lower()
            if host != "localhost" and not _is_loopback(host):
                return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
