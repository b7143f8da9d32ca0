"""Replays recordings to a sandbox: the client's frames are sent, and what comes back is compared with the server's.

On each connection the order of all replies and the order of all frames of a topic are compared. The real server keeps
no other order, since each of its channels is a process of its own.
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

from tests.sandbox.project import FOREIGN, NEVER, PATIENCE, QUICK, Project
from tests.sandbox.transcripts import Comparison, Step, fields

# The recordings have `<jwt:role>` in place of tokens. Which token that was, by recording, connection, and the frame's
# ref (None: the key in the URL); any other was a valid one of that role.
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

# How many more events of a bulk insert there were than were kept, by recording and number of lines trimmed.
TRIMMED = {("04", 246): 246, ("05", 494): 245}

# A replay takes more or less time than its recording took, so the sandbox does nothing by the clock.
TIMING = replace(QUICK, publication_check=3600.0)
# Seconds after which the real server has polled a change.
POLLED = 0.55


class Connection:
    """A connection to the sandbox, in place of a recorded one."""

    def __init__(self, socket: ClientConnection, comparison: Comparison, *, arrays: bool) -> None:
        self.socket = socket
        self._arrays = arrays
        self._comparison = comparison
        self._received: list[str] = []

    async def receive(self, topic: str, event: str) -> str:
        """Return the next frame of a topic as text; if it is a reply, assert that it is also the next reply."""
        async with asyncio.timeout(PATIENCE):
            while not any(fields(json.loads(text))[0] == topic for text in self._received):
                self._received.append(str(await self.socket.recv()))
        for at, text in enumerate(self._received):
            name, kind, *_ = fields(json.loads(text))
            if name == topic:
                return self._received.pop(at)
            assert (kind, event) != ("phx_reply", "phx_reply"), f"{text} came before the reply on {topic}"
        raise AssertionError

    async def expect(self, recorded: Any) -> Any:
        """Assert that the next frame of the topic is the recorded one, and return it."""
        topic, event, *_ = fields(recorded)
        text = await self.receive(topic, event)
        received = json.loads(text)
        theirs, ours = self._comparison.plain(recorded, received, text)
        assert ours == theirs
        return received

    async def end(self) -> None:
        """Assert that nothing more was sent: the next frame is the reply to a heartbeat."""
        beat: Any = {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "end", "join_ref": None}
        await self.socket.send(
            json.dumps([None, "end", "phoenix", "heartbeat", {}] if self._arrays else beat)
        )
        async with asyncio.timeout(PATIENCE):
            self._received.append(str(await self.socket.recv()))
        assert fields(json.loads(self._received[0]))[2] == "end", f"{self._received[0]} was not recorded"


class Replay:
    """Replays steps to a project."""

    def __init__(self, project: Project, sockets: AsyncExitStack, database: psycopg.Connection[Any]) -> None:
        self.compared = 0
        self._project = project
        self._sockets = sockets
        self._database = database
        self._comparison = Comparison()
        self._connections: dict[tuple[str, int], Connection] = {}
        self._urls: dict[tuple[str, int], str] = {}
        self._written: str | None = None
        self._written_at = 0.0
        self._last: dict[tuple[str, int], Step] = {}
        self._received: tuple[Connection, Any] | None = None
        self._claims: dict[str, dict[str, Any]] = {
            "fresh": {"role": "service_role", "iat": 1},
            "without a role": {"role": None},
            "of a user": {"role": "authenticated", "sub": USER},
        }

    def timing(self, **seconds: float) -> None:
        """Change how long the sandbox takes."""
        self._project.realtime.set_timing(**seconds)

    async def number_from(self, number: int) -> None:
        """Give the next row of `jobs` this id."""
        self._database.execute(f"alter table jobs alter column id restart with {number}".encode())

    async def play(self, played: Iterable[Step]) -> None:
        """Replay steps, and return when the last is done."""
        for step in played:
            if self._written is not None and step.at - self._written_at > POLLED:
                await self.settle()
            await self._do(step)

    async def settle(self) -> None:
        """Wait until what was written is polled and sent."""
        if self._written is not None:
            self._project.settle(self._written)
            self._written = None

    async def poll(self) -> None:
        """Wait until it polls again."""
        self._project.wait_poll()

    async def write(self, statement: str, at: float = 0.0) -> None:
        """Run a statement of that second of the recording."""
        self._written, self._written_at = self._project.position(), at
        self._database.execute(statement.encode())

    async def _do(self, step: Step) -> None:
        line = step.line
        if step.sent:
            self._last[step.connection] = step
            await self._connections[step.connection].socket.send(
                json.dumps(self._signed(step, line["frame"]))
            )
        elif step.received:
            self._last[step.connection] = step
            connection = self._connections[step.connection]
            self._received = connection, await connection.expect(line["frame"])
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
                self._connections[step.connection] = Connection(socket, self._comparison, arrays=arrays)
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
            case "server_closed" | "closed" if step.connection in self._connections:
                connection = self._connections.pop(step.connection)
                if self._last[step.connection].received:  # otherwise the client did not wait for an answer
                    await self.settle()
                    await connection.end()
                await connection.socket.close()
            case "look":
                self.timing(publication_check=0.0)
            case "look no more":
                self.timing(publication_check=TIMING.publication_check)

    async def _rest_of_a_bulk(self, frames: int) -> None:
        if not frames:
            return
        assert self._received is not None
        connection, before = self._received
        topic, event, _, payload = fields(before)
        last = payload["data"]["record"]
        for number in range(1, frames + 1):
            _, _, _, payload = fields(json.loads(await connection.receive(topic, event)))
            assert payload["data"]["record"]["id"] == last["id"] + number
        self.compared += frames

    def _url(self, step: Step) -> str:
        query = dict(parse_qsl(urlsplit(self._urls[step.connection]).query))
        if "apikey" in query:
            query["apikey"] = self._token(query["apikey"], *step.connection, None)
        return f"{self._project.socket_url}?{urlencode(query)}"

    def _signed(self, step: Step, frame: Any) -> Any:
        """Return a frame of the client's with a token in place of `<jwt:…>`."""
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
                return FOREIGN.sign(claims)
            case "expired":
                return keys.sign({**claims, "exp": self._project.in_seconds(-30)})
            case "expiring":
                return keys.sign({**claims, "exp": self._project.in_seconds(3)})
            case "without an expiry":
                return keys.sign({"role": "service_role"})
            case known:
                return keys.sign({**claims, **self._claims[known]})


def _with_arguments(query: str, arguments: list[str]) -> str:
    for number, argument in enumerate(arguments, 1):
        query = query.replace(f"${number}", f"'{argument}'")
    # A transaction that was rolled back was recorded without its begin and rollback.
    return (
        f"do $$ begin {query}; raise exception ''; exception when raise_exception then end $$"
        if ("rolledback" in query)
        else query
    )


@asynccontextmanager
async def opened(project: Project) -> AsyncIterator[Connection]:
    """Open a connection that does not ping by itself."""
    url = f"{project.socket_url}?apikey={project.keys.secret}&vsn=1.0.0"
    async with connect(url, ping_interval=None) as socket:
        yield Connection(socket, Comparison(), arrays=False)
