"""What was recorded of the real Realtime server, played to the sandbox: it says the same, frame by frame.

A step is a line of a recording. What the client sent is sent as it was, what the server sent is waited for and compared.
On one connection there are two orders, and both are compared: that of all replies, and that of all frames of a topic.
Between them the real server has none (a channel is a process of its own): both were recorded.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.live import INSERTS, JOBS, NEVER, QUICK, Project, running, template
from sandbox.transcripts import Comparison, Step, fields, lines, merged, steps
from watcher.sandbox import Postgres
from watcher.sandbox.keys import Keys
from watcher.sandbox.realtime.rate import Rate
from watcher.sandbox.realtime.timing import Timing

# What is not replayed. None of it is anything that a client does: it is what was done to the server, or not recorded.
LEFT_OUT = {
    "06, 16": "a scripted server; they tell of the client, which is what is tried in test_realtime_client.py",
    "09, 10, 11, 12, 12a, 13, 15": "something was killed while they ran: the faults are tried in test_realtime_faults.py",
    "10x": "the recording proxy's own fault, as `accept_then_drop` makes it on purpose",
    "02: 1 to 4 and 6 to 11, what the client thought": "the proxy accepted before it had asked the server; what the "
    "server answered is compared, and what the client makes of that is in test_realtime_client.py",
    "04: the end of connection 3": "the proxy closed at text that is not JSON; 17 has it without the proxy",
    "04: connections 4 and 5": "the proxy answered pings itself; 17 has the same silence without the proxy",
    "05: from 162 s on": "300 rows a second for 90 s; the numbers are held against the sandbox's arithmetic below",
    "04, 05, 07, 08: rows that were trimmed": "they were not kept; those of a bulk are checked to be all there, in order",
}

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

# 02 to 05 were recorded at the same time on one database, and hear each other's rows. When each began, in seconds past
# 14:33, as `created_at` of its rows shows (03's: when it heard of a row, beside 05).
TOGETHER = {"02": 17.423, "03": 17.294, "04": 17.350, "05": 18.309}
# When the server looked at what is published, which it does every minute; the sandbox is made to look then.
LOOKS = [
    step for at in (48.4, 108.4) for step in (("look", 18.309 + at), ("look no more", 18.309 + at + 0.04))
]
# Frames of a bulk that were not kept: after the one before it, so many more.
TRIMMED = {("04", 246): 246, ("05", 494): 245}

TABLES = f"""
{JOBS}
create table public.other (id int primary key);
create table public.rlsjobs (
    id bigint generated always as identity primary key, status text, owner uuid);
alter table public.rlsjobs enable row level security;
create policy own on public.rlsjobs for select to authenticated using (auth.uid() = owner);
alter publication supabase_realtime add table public.jobs, public.rlsjobs;
"""
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


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Iterator[str]:
    with template(postgres, TABLES, auto_expose=True) as name:
        yield name


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tables: str) -> Iterator[Project]:
    with running(postgres, tables, TIMING) as project:
        yield project


@pytest.fixture
def project(shared: Project) -> Iterator[Project]:
    """Give a project that has been used, as quick as at the start."""
    yield shared
    shared.realtime.reset()


@pytest.fixture
async def replay(postgres: Postgres, tables: str) -> AsyncIterator[Replay]:
    """Play to a project that has just started."""
    with running(postgres, tables, TIMING) as project:
        # A slot reads what is flushed.
        flush = "-c synchronous_commit=on"
        with psycopg.connect(
            project.postgres.dsn(project.name, "postgres"), autocommit=True, options=flush
        ) as own:
            async with AsyncExitStack() as sockets:
                yield Replay(project, sockets, own)


def _replayed(step: Step) -> bool:
    """Say whether a step is not among `LEFT_OUT`."""
    if step.recording == "04":
        return step.line.get("conn") not in {4, 5}
    late = step.recording == "05" and step.at > TOGETHER["05"] + 162
    return not (late and (step.told or step.sent or step.line.get("ev") == "transcript_trimmed"))


def _compared(played: Iterable[Step]) -> int:
    """Count what there is to compare: frames, kept or trimmed, and handshakes that were refused."""
    trimmed = sum(
        TRIMMED.get((step.recording, step.line["lines"]), 0)
        for step in played
        if step.line.get("ev") == "transcript_trimmed"
    )
    return trimmed + sum(step.told or step.line.get("ev") == "upstream_rejected" for step in played)


async def test_01_to_05_are_said_again_frame_by_frame(replay: Replay) -> None:
    first = list(steps("01"))
    looks = [Step("05", at, {"ev": event}) for event, at in LOOKS]
    rest = [step for step in merged(TOGETHER, looks) if _replayed(step)]
    await replay.play(first)
    await replay.settle()
    await replay.play(rest)
    assert replay.compared == _compared([*first, *rest])
    assert replay.compared > 600


async def test_07_rows_before_a_cold_subscription_are_lost_and_08_before_a_warm_one_are_heard(
    replay: Replay,
) -> None:
    """The inserts were not recorded, but their numbers: which came first, and how many were missed."""
    cold, warm = list(steps("07")), list(steps("08"))
    await replay.number_from(27125)
    replay.timing(cold=0.5)
    for step in cold:
        if _is_system(step):
            await replay.write(_rows(_missed(cold)))
            await replay.settle()
        elif _row(step):
            await replay.write(_rows(1), step.at)
        await replay.play([step])
    await replay.number_from(27432)
    # What is committed now is polled in a second.
    replay.timing(poll_idle=1.0)
    await replay.write(_rows(_missed(warm)))
    await replay.settle()
    await asyncio.sleep(0.1)
    await replay.write(
        _rows(4), next(step.at for step in warm if step.line.get("ev") == "subscribe_cb") - 0.2
    )
    await replay.play(warm)
    assert replay.compared == _compared([*cold, *warm])


async def test_14_each_role_hears_what_it_may_and_a_row_is_cut_at_the_same_byte(replay: Replay) -> None:
    played = list(steps("14"))
    await replay.number_from(28940)
    for step in played:
        if row := _row(step, "jobs"):
            await replay.write(
                f"insert into jobs (note, payload) values ('{row['note']}', to_jsonb(repeat('x', {row['note'][1:]})))",
                step.at,
            )
        await replay.play([step])
    assert replay.compared == _compared(played)
    assert sum("_truncated_len" in step.line["frame"] for step in played if step.told) == 6


def _is_system(step: Step) -> bool:
    return step.told and fields(step.line["frame"])[1] == "system"


def _row(step: Step, table: str = "jobs") -> dict[str, Any] | None:
    """Return the row that a frame tells of."""
    if not step.told:
        return None
    _, event, _, payload = fields(step.line["frame"])
    if event != "postgres_changes" or payload["data"]["table"] != table:
        return None
    record: dict[str, Any] | None = payload["data"].get("record")
    return record


def _missed(played: Iterable[Step]) -> int:
    [missed] = [int(step.line["missed"]) for step in played if "missed" in step.line]
    return missed


def _rows(count: int) -> str:
    return f"insert into jobs (note) select 'ins' from generate_series(1, {count})"


BAD_FRAMES = {
    "bad json": "{",
    "missing fields": '{"topic":"realtime:x","event":"phx_join"}',
    "array on v1": '["1","1","realtime:x","phx_join",{}]',
}


@asynccontextmanager
async def opened(project: Project) -> AsyncIterator[Line]:
    """Open a connection that pings only when it is told to."""
    url = f"{project.socket_url}?apikey={project.keys.secret}&vsn=1.0.0"
    async with connect(url, ping_interval=None) as socket:
        yield Line(socket, Comparison(), arrays=False)


def _of_17(*tests: str) -> pytest.MarkDecorator:
    # The first line is the client's view of what the second says again, with a code.
    found = [line for line in lines("17") if line["test"].startswith(tests) and "send_exc" not in line]
    assert len(found) == len(tests)
    return pytest.mark.parametrize("recorded", found, ids=[line["test"] for line in found])


@_of_17(*BAD_FRAMES)
async def test_17_what_is_no_frame_has_no_answer(project: Project, recorded: dict[str, Any]) -> None:
    assert (recorded["exc"], recorded["code"]) == ("TimeoutError()", None)
    async with opened(project) as line:
        await line.socket.send(BAD_FRAMES[recorded["test"]])
        await line.end()


@_of_17("6MB frame", "idle")
async def test_17_who_says_too_much_or_nothing_is_closed(project: Project, recorded: dict[str, Any]) -> None:
    project.realtime.set_timing(idle=0.3)
    async with opened(project) as line:
        if recorded["test"] == "6MB frame":
            await line.socket.send("x" * 6_000_000)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                await line.socket.recv()
        assert line.socket.close_code == recorded["code"]


@_of_17("ws ping")
async def test_17_pings_alone_keep_a_connection(project: Project, recorded: dict[str, Any]) -> None:
    assert (recorded["exc"], recorded["code"]) == ("TimeoutError()", None)
    project.realtime.set_timing(idle=0.3)
    async with opened(project) as line:
        for _ in range(8):
            await asyncio.sleep(0.1)
            await line.socket.ping()
        await line.end()


# How long the real server took, in seconds, for what each knob is about; and that the sandbox takes about as long.


def _measured(recording: str, first: Callable[[Step], object], then: Callable[[Step], object]) -> list[float]:
    """Return how long it took from the last step of one kind to each of another, on one connection and topic."""
    began: dict[object, float] = {}
    found = []
    for step in steps(recording):
        where = step.line.get("conn"), fields(step.line["frame"])[0] if step.told or step.sent else None
        if then(step) and where in began:
            found.append(step.at - began.pop(where))
        if first(step):
            began[where] = step.at
    return found


def _reply(status: str) -> Callable[[Step], bool]:
    def is_one(step: Step) -> bool:
        topic, event, _, payload = fields(step.line["frame"]) if step.told else ("", "", None, {})
        return event == "phx_reply" and topic != "phoenix" and payload["status"] == status

    return is_one


def _sent(event: str) -> Callable[[Step], bool]:
    return lambda step: step.sent and fields(step.line["frame"])[1] == event


def _event(name: str) -> Callable[[Step], bool]:
    return lambda step: bool(step.line.get("ev") == name)


def _polls(recording: str) -> list[float]:
    """Return how long after each statement something was heard of it."""
    found = []
    written: float | None = None
    for step in steps(recording):
        if step.line.get("ev") == "sql":
            written = step.at
        elif _row(step) and written is not None:
            found.append(step.at - written)
            written = None
    return found


MEASURED = {
    "handshake_error": _measured("02", _event("open"), _event("upstream_rejected")),
    "join_error": [
        *_measured("02", _sent("phx_join"), _reply("error")),
        _measured("04", _sent("phx_join"), _reply("error"))[-1],
    ],
    "warm": [*_measured("03", _reply("ok"), _is_system), *_measured("08", _reply("ok"), _is_system)],
    "cold": [
        _measured("01", _reply("ok"), _is_system)[0],
        *_measured("07", _reply("ok"), _is_system),
        *[seconds for seconds in _measured("14", _reply("ok"), _is_system) if seconds > 1],
    ],
    "resubscribe": _measured("01", _sent("access_token"), _is_system),
    "idle": [line["closed_after"] for line in lines("17") if line["test"].startswith("idle")],
    # What is written right after a poll is heard of at the next.
    "poll_idle": [max(_polls("01"))],
    # It looked every minute, and found a change twice.
    "publication_check": [max(_measured("05", _is_system, _is_system))],
}


@pytest.mark.parametrize("knob", MEASURED)
def test_by_default_it_takes_as_long_as_it_did(knob: str) -> None:
    default = getattr(Timing(), knob)
    assert min(MEASURED[knob]) * 0.9 <= default <= max(MEASURED[knob]) * 1.1


async def test_it_takes_as_long_as_its_knobs_say(project: Project) -> None:
    knobs = {"handshake_error": 0.2, "join_error": 0.3, "warm": 0.25, "resubscribe": 0.35}
    project.realtime.set_timing(**knobs, cold=0.25)
    took: dict[str, float] = {}
    with _timed(took, "handshake_error"), pytest.raises(InvalidStatus):
        async with project.raw("garbage"):
            pass
    async with project.raw() as raw:
        with _timed(took, "join_error"):
            assert (await raw.join(topic=""))[4]["status"] == "error"
        assert (await raw.join(INSERTS, ref="2"))[4]["status"] == "ok"
        with _timed(took, "warm"):
            await raw.hear()
        with _timed(took, "resubscribe"):
            token = {"access_token": project.token(role="service_role")}
            await raw.send("2", "3", "realtime:jobs", "access_token", token)
            await raw.hear()
    assert took == {knob: pytest.approx(seconds + 0.05, abs=0.06) for knob, seconds in knobs.items()}


@contextmanager
def _timed(took: dict[str, float], knob: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[knob] = time.monotonic() - began


def test_05_at_300_rows_a_second_as_many_are_dropped_as_were() -> None:
    """Recorded: 179 batches of 150 rows, then a probe every 5 s; but not when in its 5 s the server counts."""
    [sums] = [line for line in lines("05") if line.get("lost")]
    probes = [
        (line["t"] - 5 - _BURST, bool(line["delivered"])) for line in lines("05") if "after_burst_s" in line
    ]
    found = [_under_load(sums["sent"], [at for at, _ in probes], phase / 20) for phase in range(100)]
    assert (sums["delivered"], [heard for _, heard in probes]) in found
    # However it counts, about half is lost, and for long after.
    for told, heard in found:
        assert abs(told - sums["delivered"]) <= 1500
        assert not any(heard[:5])


# When the burst began, and how long from one batch to the next.
_BURST, _PERIOD = 162.428, 66.04 / 131


def _under_load(sent: int, probes: Iterable[float], phase: float) -> tuple[int, list[bool]]:
    """Return how many of so many rows are told, and which of the probes after them."""
    rate, told = Rate(), 0
    for number in range(sent // 150):
        now = 1000 + phase + number * _PERIOD
        if not rate.exceeded(now):
            rate.add(150, now)
            told += 150
    return told, [not rate.exceeded(1000 + phase + probe) for probe in probes]
