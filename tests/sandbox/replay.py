"""Plays recordings to a sandbox: what the client sent is sent as it was, what the server sent is waited for and compared.

On one connection there are two orders, and both are compared: that of all replies, and that of all frames of a topic.
Between them the real server has none (a channel is a process of its own): both were recorded.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.sandbox.live import NEVER, QUICK, Project
from tests.sandbox.transcripts import Comparison, Step, fields
from watcher.sandbox.keys import Keys

# Where a recording says <jwt:…>, which token that was: by recording, connection, and ref of the frame, or None for the
# key in the URL. Others are good ones of the role that is named.
TOKENS = {
    ("01", 1, "3"): "fresh",
    ("01", 1, "4"): "fresh",
    ("01", 1, "5"): "fresh",
    ("01", 1, "6"): "fresh",
    ("02", 1, None): "foreign",
    ("02", 2, None): "foreign",
    ("02", 3, None): "expired",
    ("02", 4, None): "expired",
    ("02", 5, None): "without a role",
    ("02", 8, None): "without an expiry",
    ("02", 9, None): "without an expiry",
    ("02", 12, "1"): "expired",
    ("02", 12, "2"): "expired",
    ("02", 12, "3"): "expired",
    ("02", 13, "1"): "expiring",
    ("02", 14, "2"): "foreign",
    ("14", 2, None): "of a user",
    ("14", 2, "1"): "of a user",
}
USER = "11111111-1111-1111-1111-111111111111"

# Frames of a bulk that were not kept: after the one before it, so many more.
TRIMMED = {("04", 246): 246, ("05", 494): 245}

# Nothing happens by itself while a replay runs: it is slower than it was recorded, or quicker.
TIMING = replace(QUICK, publication_check=3600.0)
# So long after a change, the real server has polled it.
POLLED = 0.55


class Line:
    """A connection as it is replayed."""

    def __init__(self, socket: ClientConnection, comparison: Comparison, *, arrays: bool) -> None:
        self.socket = socket
        self._arrays = arrays
        self._comparison = comparison
        self._heard: list[str] = []

    async def hear(self, topic: str, event: str) -> str:
        """Return the next frame of a topic as it came; a reply is also the next reply."""
        async with asyncio.timeout(5):
            while not any(fields(json.loads(text))[0] == topic for text in self._heard):
                self._heard.append(str(await self.socket.recv()))
        for at, text in enumerate(self._heard):
            name, kind, *_ = fields(json.loads(text))
            if name == topic:
                return self._heard.pop(at)
            assert (kind, event) != ("phx_reply", "phx_reply"), f"{text} came before the reply on {topic}"
        raise AssertionError

    async def expect(self, recorded: Any) -> Any:
        """Assert that the next frame of the topic is the recorded one, and return it."""
        topic, event, *_ = fields(recorded)
        text = await self.hear(topic, event)
        heard = json.loads(text)
        theirs, ours = self._comparison.plain(recorded, heard, text)
        assert ours == theirs
        return heard

    async def end(self) -> None:
        """Assert that nothing more has come; what was sent before a heartbeat's reply comes before it."""
        beat: Any = {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "end", "join_ref": None}
        await self.socket.send(
            json.dumps([None, "end", "phoenix", "heartbeat", {}] if self._arrays else beat)
        )
        async with asyncio.timeout(5):
            self._heard.append(str(await self.socket.recv()))
        assert fields(json.loads(self._heard[0]))[2] == "end", f"{self._heard[0]} was not recorded"


class Replay:
    """Plays steps to a project."""

    def __init__(self, project: Project, sockets: AsyncExitStack, database: psycopg.Connection[Any]) -> None:
        self.compared = 0
        self._project = project
        self._sockets = sockets
        self._database = database
        self._comparison = Comparison()
        self._lines: dict[tuple[str, int], Line] = {}
        self._urls: dict[tuple[str, int], str] = {}
        self._written: str | None = None
        self._written_at = 0.0
        self._last: dict[tuple[str, int], Step] = {}
        self._heard: tuple[Line, Any] | None = None
        self._tokens = {
            "fresh": {"role": "service_role", "iat": 1},
            "without a role": {"role": None},
            "of a user": {"role": "authenticated", "sub": USER},
        }

    def timing(self, **seconds: float) -> None:
        """Let the sandbox take so long."""
        self._project.realtime.set_timing(**seconds)

    async def number_from(self, number: int) -> None:
        """Give the next row of `jobs` this id."""
        self._database.execute(f"alter table jobs alter column id restart with {number}".encode())

    async def play(self, played: Iterable[Step]) -> None:
        """Play; return when the last is done."""
        for step in played:
            if self._written is not None and step.at - self._written_at > POLLED:
                await self.settle()
            await self._do(step)

    async def settle(self) -> None:
        """Let it poll what was written."""
        if self._written is not None:
            self._project.settle(self._written)
            await asyncio.sleep(0.02)
            self._written = None

    async def write(self, statement: str, at: float = 0.0) -> None:
        """Run a statement, at that second of the recording."""
        row = self._database.execute("select pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        self._written, self._written_at = row[0], at
        self._database.execute(statement.encode())

    async def _do(self, step: Step) -> None:
        line = step.line
        if step.sent:
            self._last[step.connection] = step
            await self._lines[step.connection].socket.send(json.dumps(self._signed(step, line["frame"])))
        elif step.told:
            self._last[step.connection] = step
            ear = self._lines[step.connection]
            self._heard = ear, await ear.expect(line["frame"])
            self.compared += 1
        else:
            await self._event(step)

    async def _event(self, step: Step) -> None:
        line = step.line
        match line["ev"]:
            case "open":
                self._urls[step.connection] = line["url"]
            case "upstream_accepted":
                socket = await self._sockets.enter_async_context(connect(self._url(step), max_size=None))
                arrays = "vsn=2" in self._urls[step.connection]
                self._lines[step.connection] = Line(socket, self._comparison, arrays=arrays)
            case "upstream_rejected":
                with pytest.raises(InvalidStatus) as refused:
                    await connect(self._url(step))
                answer = refused.value.response
                assert answer.status_code == line["status"]
                assert json.loads(answer.body) == json.loads(line["body"])
                assert answer.headers["content-type"].startswith("application/json")
                self.compared += 1
            case "sql":
                await self.write(_with_arguments(line["q"], line["args"]), step.at)
            case "transcript_trimmed":
                await self._rest_of_a_bulk(TRIMMED.get((step.recording, line["lines"]), 0))
            case "server_closed" | "closed" if step.connection in self._lines:
                ear = self._lines.pop(step.connection)
                if self._last[step.connection].told:  # or else it did not wait for an answer
                    await self.settle()
                    await ear.end()
                await ear.socket.close()
            case "look":
                self.timing(publication_check=0.0)
            case "look no more":
                self.timing(publication_check=TIMING.publication_check)

    async def _rest_of_a_bulk(self, frames: int) -> None:
        if not frames:
            return
        assert self._heard is not None
        ear, before = self._heard
        topic, event, _, payload = fields(before)
        last = payload["data"]["record"]
        for number in range(1, frames + 1):
            _, _, _, payload = fields(json.loads(await ear.hear(topic, event)))
            assert payload["data"]["record"]["id"] == last["id"] + number
        self.compared += frames

    def _url(self, step: Step) -> str:
        query = dict(parse_qsl(urlsplit(self._urls[step.connection]).query))
        if "apikey" in query:
            query["apikey"] = self._token(query["apikey"], *step.connection, None)
        return f"{self._project.socket_url}?{urlencode(query)}"

    def _signed(self, step: Step, frame: Any) -> Any:
        """Return a frame of the client's with a token in place of what stands for one."""
        payload = frame["payload"] if isinstance(frame, dict) else {}
        if "access_token" not in payload:
            return frame
        token = self._token(payload["access_token"], *step.connection, frame["ref"])
        return {**frame, "payload": {**payload, "access_token": token}}

    def _token(self, recorded: str, recording: str, connection: int, ref: str | None) -> str:
        if not recorded.startswith("<jwt:"):
            return recorded
        keys, claims = self._project.keys, {"role": recorded[5:-1], "exp": NEVER}
        match TOKENS.get((recording, connection, ref)):
            case None:
                return keys.sign(claims)
            case "foreign":
                return Keys("another secret, as long as it has to be").sign(claims)
            case "expired":
                return keys.sign({**claims, "exp": self._project.soon(-30)})
            case "expiring":
                return keys.sign({**claims, "exp": self._project.soon(2)})
            case "without an expiry":
                return keys.sign({"role": "service_role"})
            case known:
                return keys.sign({**claims, **self._tokens[known]})


def _with_arguments(query: str, arguments: list[str]) -> str:
    for number, argument in enumerate(arguments, 1):
        query = query.replace(f"${number}", f"'{argument}'")
    # Recorded without its begin and rollback.
    return (
        f"do $$ begin {query}; raise exception ''; exception when raise_exception then end $$"
        if ("rolledback" in query)
        else query
    )


@asynccontextmanager
async def opened(project: Project) -> AsyncIterator[Line]:
    """Open a connection that pings only when it is told to."""
    url = f"{project.socket_url}?apikey={project.keys.secret}&vsn=1.0.0"
    async with connect(url, ping_interval=None) as socket:
        yield Line(socket, Comparison(), arrays=False)
