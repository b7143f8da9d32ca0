"""Runs ASGI apps on loopback ports, in one background thread with an event loop of its own.

The scope of each request has, under `extensions`:
- `DROP`: a function that breaks the connection, without an answer, a last chunk or a close frame; `drop` calls it;
- `CONNECTION`: an object that is the same for all requests of one connection;
- `PINGED`: for a websocket, when its client last sent a ping, by the loop's clock.
"""

import asyncio
import logging
import socket
import threading
import weakref
from collections.abc import Coroutine, Mapping
from email.utils import formatdate
from typing import Any, TypeVar, cast

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CONNECTION = "sandbox.connection"
DROP = "sandbox.drop"
PINGED = "sandbox.pinged"
HOST = "127.0.0.1"
GRACE = 0.3
"""Seconds that requests in progress have to finish when the server is stopped."""
UVICORN_GRACE = 5
"""Seconds after which uvicorn would cancel them by itself."""

T = TypeVar("T")

# uvicorn 0.54 logs this for every handshake that is refused with an HTTP answer.
logging.getLogger("uvicorn.error").addFilter(
    lambda record: record.msg != "ASGI callable returned without completing handshake."
)


class Server:
    """Several apps in one thread; `start` and `stop` can be called once each."""

    def __init__(self, apps: Mapping[str, tuple[ASGIApp, int]]) -> None:
        """Take each app with its port; 0 picks a free one."""
        self.ports: dict[str, int] = {}
        """The ports by the name of the app; set by `start`."""
        self._apps = dict(apps)
        self._sockets: dict[str, socket.socket] = {}
        self._runner = asyncio.Runner()
        self._running = threading.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="sandbox-server", daemon=True)

    def start(self) -> None:
        """Return when every app listens.

        Raises OSError if a port is taken, and RuntimeError if an app's lifespan fails; then nothing is left running.
        """
        try:
            for name, (_, port) in self._apps.items():
                self._sockets[name] = _bind(name, port)
                self.ports[name] = self._sockets[name].getsockname()[1]
        except OSError:
            for bound in self._sockets.values():
                bound.close()
            raise
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            self._thread.join()
            raise RuntimeError(f"the sandbox's server did not start: {self._failure}") from self._failure

    def stop(self) -> None:
        """Return when everything is closed. Requests that hang are cancelled, open connections broken."""
        if self._thread.is_alive():
            self._runner.get_loop().call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the server's loop, from another thread, and return its result.

        After `timeout` seconds the coroutine is cancelled and TimeoutError raised.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._runner.get_loop())
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def _main(self) -> None:
        try:
            with self._runner:
                self._runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - start() raises it in the caller's thread
            self._failure = error
        finally:
            self._running.set()

    async def _serve(self) -> None:
        sites = [_Site(name, app, self._sockets[name]) for name, (app, _) in self._apps.items()]
        try:
            for site in sites:
                await site.start()
            self._running.set()
            await self._stop.wait()
        finally:
            await asyncio.gather(*(site.stop() for site in sites))


class _Site:
    """One app on one socket."""

    def __init__(self, name: str, app: ASGIApp, listener: socket.socket) -> None:
        self.name = name
        self._app = app
        self._listener = listener
        self._stopping = False
        self._lifespan_error: BaseException | None = None
        self._transports: weakref.WeakValueDictionary[tuple[str, int], asyncio.Transport] = (
            weakref.WeakValueDictionary()
        )
        self._task: asyncio.Task[None] | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._serve,
                http=self._protocol(),
                ws=_WebSocket,
                ws_ping_interval=None,  # none of the real servers sends pings
                interface="asgi3",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,  # uvicorn's is up to a second old; the Hub's client compares it with its logs' times
                timeout_keep_alive=75,
                timeout_graceful_shutdown=UVICORN_GRACE,
            )
        )

    async def start(self) -> None:
        self._task = asyncio.create_task(self._uvicorn())
        while not self._server.started:
            if self._task.done():
                raise RuntimeError(f"the app {self.name!r} did not start") from self._lifespan_error
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        if self._task is None:
            self._listener.close()
            return
        self._server.should_exit = True
        await asyncio.wait([self._task], timeout=GRACE)
        self._stopping = True
        # Connections first: uvicorn would log a cancelled request if its connection were still open.
        for transport in list(self._transports.values()):
            transport.abort()
        await asyncio.sleep(0)
        for task in list(self._server.server_state.tasks):
            task.cancel()
        await asyncio.wait([self._task])

    async def _uvicorn(self) -> None:
        try:
            # In the main thread, `serve` would install handlers of SIGINT and SIGTERM.
            await self._server.serve(sockets=[self._listener])
        except SystemExit:
            # uvicorn raises this when a lifespan failed; here it must end this task only.
            return
        finally:
            self._listener.close()

    def _protocol(self) -> type[H11Protocol]:
        transports = self._transports

        class Protocol(H11Protocol):
            def connection_made(  # type: ignore[override] # as in the class itself
                self, transport: asyncio.Transport
            ) -> None:
                super().connection_made(transport)
                if self.client is not None:
                    transports[self.client] = transport

        return Protocol

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            except BaseException as error:
                self._lifespan_error = error
                raise
            return

        transport = self._transports.get(cast("tuple[str, int]", scope["client"]))

        def drop() -> None:
            if transport is not None:
                transport.abort()

        scope.setdefault("extensions", {}).update({CONNECTION: transport, DROP: drop})

        async def dated_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message["headers"], (b"date", formatdate(usegmt=True).encode())],
                }
            await send(message)

        try:
            await self._app(scope, receive, dated_send)
        except ClientDisconnect:
            return  # a client may disconnect at any time: that is no error of the app
        except asyncio.CancelledError:
            if not self._stopping:
                raise


class _WebSocket(WebSocketsSansIOProtocol):
    """Records pings, which uvicorn does not pass to the app."""

    def handle_ping(self) -> None:
        super().handle_ping()
        cast("Scope", self.scope)["extensions"][PINGED] = self.loop.time()


async def drop(scope: Scope, receive: Receive) -> None:
    """Break the connection of this request or websocket, and return when it is closed."""
    scope["extensions"][DROP]()
    while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
        pass


def check_free(ports: Mapping[str, int]) -> None:
    """Raise OSError if a port, by the name of its app, is taken or given twice; 0 picks a free one."""
    bound: list[socket.socket] = []
    try:
        bound += (_bind(name, port) for name, port in ports.items() if port)
    finally:
        for listener in bound:
            listener.close()


def _bind(name: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only if the protocol is named; without it each small answer would take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Allows a port with connections in TIME_WAIT, but not one that is in use.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        sentence = f"port {port} on {HOST}, for {name!r}, cannot be used: {error.strerror}; take another, or 0 for any"
        raise OSError(error.errno, sentence) from error
    return listener
