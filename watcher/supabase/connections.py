"""httpx's client, with a pool of connections that does not grow when requests are cancelled.

httpcore 1.0.9 forgets to take a request out of its pool if asyncio cancels the task while it awaits the lock that ends a
response, or the one that begins a connection: the request and its connection stay there for ever, with the socket. So a
pool in which a request was cancelled gets no more requests, and is closed when the last of its others has ended.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

# Leaked connections would use up a limit. What is sent at the same time is limited by the settings `slots` and `fetches`.
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


class Client(httpx.AsyncClient):
    """An asynchronous client without a limit of connections, and with a new pool after a cancellation.

    Proxies are read from the environment as httpx does.
    """

    def __init__(self, *, verify: ssl.SSLContext, **options: Any) -> None:
        """`verify`: shared by all pools, since it takes a fifth of a second to make one."""
        super().__init__(verify=verify, limits=UNLIMITED, **options)

    async def send(self, request: httpx.Request, *args: Any, **options: Any) -> httpx.Response:
        """Send a request; raises httpx.TransportError, also once the client is closed, where httpx raises RuntimeError.

        A write-back that outlives the daemon's last seconds was then not sent, which is no bug.
        """
        if self.is_closed:
            raise httpx.ConnectError("the daemon has stopped", request=request)
        return await super().send(request, *args, **options)

    # Passing `transport` instead would turn the proxies of the environment off.
    def _init_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        make = super()._init_transport
        return Renewed(lambda: make(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx.AsyncBaseTransport:
        make = super()._init_proxy_transport
        return Renewed(lambda: make(*args, **options))


class Renewed(httpx.AsyncBaseTransport):
    """Passes requests to a pool, and to a new one after a request was cancelled."""

    def __init__(self, make: Callable[[], httpx.AsyncBaseTransport]) -> None:
        """`make` makes a pool."""
        self._make = make
        self._pool = _Pool(make())
        self._closing: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        pool = self._pool
        pool.requests += 1
        try:
            response = await pool.transport.handle_async_request(request)
        except BaseException as error:
            self._end(pool, error)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, lambda error: self._end(pool, error))
        return response

    def _end(self, pool: "_Pool", error: BaseException | None) -> None:
        """Note that a request has ended, with this error."""
        pool.requests -= 1
        if isinstance(error, asyncio.CancelledError) and pool is self._pool:
            self._pool = _Pool(self._make())
        if pool is not self._pool and not pool.requests:
            # In a task of its own: the present one may be cancelled.
            closing = asyncio.create_task(pool.transport.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.transport.aclose()
        if self._closing:
            await asyncio.wait(self._closing)


class _Pool:
    """A pool and the number of requests that have not ended."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self.transport = transport
        self.requests = 0


class _Body(httpx.AsyncByteStream):
    """A response's body that tells once how it ended."""

    def __init__(self, stream: httpx.AsyncByteStream, on_end: Callable[[BaseException | None], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self._error: BaseException | None = None
        self._is_open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except BaseException as error:
            self._error = error
            raise

    async def aclose(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            await self._stream.aclose()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._on_end(self._error)
