"""A client's WebSocket: its frames, in order, and its channels, by topic."""

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from watcher.sandbox.absent import Absent
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Caller, Keys
from watcher.sandbox.realtime import phoenix, tokens
from watcher.sandbox.realtime.bindings import identity
from watcher.sandbox.realtime.channel import Channel, Entries
from watcher.sandbox.realtime.phoenix import Frame, Version, reply
from watcher.sandbox.realtime.poller import Poller
from watcher.sandbox.realtime.private import may_read
from watcher.sandbox.realtime.timing import Timing
from watcher.sandbox.server import DROP, PINGED

ABNORMAL = 1006
"""The code that a client reports for a broken connection, without a close frame."""

_FRAME_BYTES = 5_000_000


class Socket:
    """A WebSocket. Frames are handled one after another: while a join is delayed, nothing else is answered."""

    def __init__(
        self,
        websocket: WebSocket,
        token: str,
        *,
        database: Database,
        keys: Keys,
        poller: Poller,
        timing: Timing,
    ) -> None:
        self.keys = keys
        self.poller = poller
        self.timing = timing
        self._websocket = websocket
        self._version: Version = "2.0.0" if websocket.query_params.get("vsn") == "2.0.0" else "1.0.0"
        self._token = token
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._outgoing: asyncio.Queue[str | int] = asyncio.Queue()

    async def serve(self) -> None:
        """Handle frames until either side closes."""
        writing = asyncio.create_task(self._write())
        try:
            await self._read()
        except TimeoutError:
            self.close(1000)
            await writing
        except WebSocketDisconnect:
            pass
        finally:
            writing.cancel()
            for channel in self._channels.values():
                channel.stop()

    def push(self, frame: Frame) -> None:
        """Send a frame, after those sent before."""
        self._outgoing.put_nowait(phoenix.encode(self._version, frame))

    def close(self, code: int) -> None:
        """Close with this code when all frames are sent; `ABNORMAL` breaks the connection at once."""
        if code == ABNORMAL:
            self._websocket.scope["extensions"][DROP]()
        else:
            self._outgoing.put_nowait(code)

    def send_system_error(self, message: str) -> None:
        """Send an error of `postgres_changes` to all channels; they stay joined."""
        for channel in self._channels.values():
            channel.send_system("postgres_changes", "error", message)

    def forget(self, channel: Channel) -> None:
        """Remove a channel that has closed."""
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]

    async def _write(self) -> None:
        while isinstance(message := await self._outgoing.get(), str):
            await self._websocket.send_text(message)
        await self._websocket.close(message)

    async def _read(self) -> None:
        """Handle frames. Raises WebSocketDisconnect at the end, TimeoutError after a long silence."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            text = message.get("text") or ""
            if len(text.encode()) > _FRAME_BYTES:
                self.close(1009)
            elif (frame := phoenix.decode(self._version, text)) is not None:
                await self._handle(frame)

    async def _receive(self) -> Message:
        """Return the next message. Raises TimeoutError if for a long time there was none, nor a ping."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(heard + self.timing.idle):
                    return await self._websocket.receive()
            except TimeoutError:
                pinged = self._websocket.scope["extensions"].get(PINGED, heard)
                if pinged <= heard:
                    raise
                heard = pinged

    async def _handle(self, frame: Frame) -> None:
        channel = self._channels.get(frame.topic)
        match frame.topic, frame.event:
            case "phoenix", "heartbeat":
                self.push(reply(frame, "ok", {}))
            case topic, "phx_join" if topic.startswith("realtime:"):
                await self._join(frame)
            case _, "phx_leave":
                self.push(reply(frame, "ok", {}))
                if channel is not None:
                    channel.close()
                    self.forget(channel)
            case _, "broadcast" | "presence" if channel is not None:
                feature = Absent.REALTIME_PRESENCE if frame.event == "presence" else Absent.REALTIME_BROADCAST
                self.push(reply(frame, "error", {"reason": feature.sentence}))
                channel.send_system(frame.event, "error", feature.sentence)
            case _, "access_token" if channel is not None:
                payload = frame.payload if isinstance(frame.payload, dict) else {}
                channel.refresh(payload.get("access_token"))
            case _ if channel is None:
                self.push(reply(frame, "error", {"reason": "unmatched topic"}))

    async def _join(self, frame: Frame) -> None:
        payload = frame.payload if isinstance(frame.payload, dict) else {}
        token = payload.get("access_token")
        if not isinstance(token, str) or token.startswith("sb_"):
            token = self._token
        await asyncio.sleep(self.timing.join)
        config = payload.get("config")
        asked = _Asked.of(config if isinstance(config, dict) else {})
        try:
            claims = await self._checked(frame.topic, token, asked)
        except _JoinError as error:
            await asyncio.sleep(self.timing.join_error)
            self.push(reply(frame, "error", {"reason": str(error)}))
            return
        entries = _entries(frame.topic, payload)
        bindings = [{"id": identity(entry), **dict(sorted(entry.items()))} for entry in entries]
        self.push(reply(frame, "ok", {"postgres_changes": bindings}))
        # The channel that it replaces closes only after the reply, with the ref of its own join.
        if frame.topic in self._channels:
            self._channels[frame.topic].close()
        channel = self._channels[frame.topic] = Channel(self, frame, entries, token, claims)
        if asked.broadcast:
            channel.send_system("broadcast", "error", Absent.REALTIME_BROADCAST.sentence)
        if entries:
            channel.subscribe()

    async def _checked(self, topic: str, token: str, asked: "_Asked") -> dict[str, Any]:
        """Return the claims of `token` if it may join `topic`. Raises `_JoinError`."""
        if topic == "realtime:":
            raise _JoinError("TopicNameRequired: You must provide a topic name")
        try:
            claims = tokens.verify(self.keys, token)
        except tokens.TokenError as error:
            raise _JoinError(error.reason) from error
        try:
            async with self._database.admin() as cursor:
                await cursor.execute("select")
        except (psycopg.Error, TimeoutError) as error:
            message = "Realtime was unable to connect to the project database"
            raise _JoinError(f"UnableToConnectToProject: {message}") from error
        name = topic.removeprefix("realtime:")
        if asked.private and not await may_read(self._database, Caller.of(claims), name):
            message = "You do not have permissions to read from this Channel topic"
            raise _JoinError(f"Unauthorized: {message}: {name}")
        if asked.presence:
            raise _JoinError(Absent.REALTIME_PRESENCE.sentence)
        return claims


@dataclass(frozen=True)
class _Asked:
    """What a join asks for besides changes of the database. That a channel can broadcast is in every join."""

    private: bool
    presence: bool
    broadcast: bool

    @classmethod
    def of(cls, config: dict[str, Any]) -> "_Asked":
        broadcast, presence = (
            part if isinstance(part := config.get(name), dict) else {} for name in ("broadcast", "presence")
        )
        wants = any(broadcast.get(name) for name in ("ack", "self", "replay"))
        return cls(bool(config.get("private")), bool(presence.get("enabled")), wants)


class _JoinError(Exception):
    """The join is refused; the message is the reason."""


def _entries(topic: str, payload: dict[str, Any]) -> Entries:
    """Return the entries of a join; without a config they are in the topic, as in older clients."""
    if "config" not in payload:
        names = topic.removeprefix("realtime:").split(":", 2)
        return [dict(zip(("schema", "table", "filter"), names, strict=False))]
    config = payload["config"]
    changes = config.get("postgres_changes") if isinstance(config, dict) else None
    return [entry for entry in changes or () if isinstance(entry, dict)]
