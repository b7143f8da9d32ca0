"""A little HTTP for whoever watches this daemon: GET, a few paths, one answer, and the connection ends.

It is served by the daemon's own loop, so a client that is slow, silent or greedy gets little time and little room.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NamedTuple

from watcher.errors import Misconfigured

_SECONDS = 5.0
_HEAD = 4096
_CONNECTIONS = 16


class Answer(NamedTuple):
    """What a path has to say."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Awaitable[Answer]]]


@asynccontextmanager
async def serving(host: str, port: int, pages: Pages) -> AsyncIterator[None]:
    """Serve `pages`, by path, while the block lasts; raises Misconfigured where the address cannot be had."""
    under_way: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(under_way) < _CONNECTIONS:
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await _converse(reader, writer, pages)
        writer.transport.abort()

    try:
        server = await asyncio.start_server(connected, host, port, limit=_HEAD)
    except OSError as error:
        raise Misconfigured(
            f"WATCHER_METRICS_ADDRESS is {host}:{port}, which cannot be listened on ({error.strerror}): "
            "take another port."
        ) from error
    try:
        yield
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _response(head, pages))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return  # its loss
    except asyncio.CancelledError:
        return  # the server ends, and this task with it: Python 3.11 would call its cancellation an error


async def _response(head: bytes, pages: Pages) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target, _, version = rest.rpartition(" ")
    if not version.startswith("HTTP/1."):
        answer = Answer(b"This is HTTP/1.1.\n", HTTPStatus.BAD_REQUEST)
    elif method not in {"GET", "HEAD"}:
        answer = Answer(b"There is nothing to change here.\n", HTTPStatus.METHOD_NOT_ALLOWED)
    elif (page := pages.get(target.partition("?")[0])) is None:
        answer = Answer(f"There is {', '.join(pages)}.\n".encode(), HTTPStatus.NOT_FOUND)
    else:
        answer = await page()
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else answer.body)
