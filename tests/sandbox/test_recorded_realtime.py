"""What was recorded of the real Realtime server, from both sides: its frames, and what its own client made of them.

The frames are replayed and compared one by one, with what is generated in each run masked (`Comparison.GENERATED`,
`TOKENS`). The client is asked to do again what it did, and has to raise, call back and end as it did.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
import realtime._async.channel
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.sandbox.listening import listening
from tests.sandbox.project import FOREIGN, INSERTS, JOBS, PATIENCE, QUICK, Project, running, template, until
from tests.sandbox.replay import TIMING, TRIMMED, Replay, opened
from tests.sandbox.transcripts import Step, fields, lines, merged, row, steps, system
from tests.support.deprecations import CLOSED
from watcher.sandbox import Postgres

pytestmark = CLOSED

# What is not replayed, none of which is done by a client: it was done to the server, or was not recorded.
LEFT_OUT = {
    "06, 16": "recorded with a scripted server: they show what the client does, which the tests of the client cover",
    "09, 10, 11, 12, 12a, 13, 15": "something was killed during them: test_realtime_faults.py has these faults",
    "10x": "the recording proxy's own fault, which `accept_then_drop` imitates",
    "02: 1 to 4 and 6 to 11, what the client did": "the proxy accepted the handshake before it asked the server; the "
    "server's answer is compared here, and what the client makes of it below",
    "04: the end of connection 3": "the proxy closed at text that is not JSON; 17 has the same without the proxy",
    "04: connections 4 and 5": "the proxy answered pings itself; 17 has the same silence without the proxy",
    "05: from 162 s on": "300 rows a second for 90 s: test_realtime_timing.py has the numbers",
    "04, 05, 07, 08: trimmed rows": "they were not kept; those of a bulk insert have to come all, and in order",
}

# 02 to 05 were recorded at the same time on one database, and get each other's rows. When each began, in seconds after
# 14:33, by the `created_at` of its rows (for 03: by when an event came, beside 05).
TOGETHER = {"02": 17.423, "03": 17.294, "04": 17.350, "05": 18.309}
# When the server checked which tables are published. It does so every minute; the sandbox is made to check then.
LOOKS = [
    step for at in (48.4, 108.4) for step in (("look", 18.309 + at), ("look no more", 18.309 + at + 0.04))
]
TABLES = f"""
{JOBS}
create table public.other (id int primary key);
create table public.rlsjobs (
    id bigint generated always as identity primary key, status text, owner uuid);
alter table public.rlsjobs enable row level security;
create policy own on public.rlsjobs for select to authenticated using (auth.uid() = owner);
alter publication supabase_realtime add table public.rlsjobs;
"""


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Iterator[str]:
    with template(postgres, TABLES, auto_expose=True) as name:
        yield name


@pytest.fixture
async def replay(postgres: Postgres, tables: str) -> AsyncIterator[Replay]:
    """Replay to a project that has just started."""
    with (
        running(postgres, tables, timing=TIMING) as project,
        psycopg.connect(project.sandbox.db_url, autocommit=True) as own,
    ):
        async with AsyncExitStack() as sockets:
            yield Replay(project, sockets, own)


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[Project]:
    tables = f"{JOBS} create table public.other (id int primary key);"
    with template(postgres, tables) as name, running(postgres, name, timing=QUICK) as project:
        yield project


@pytest.fixture
def project(shared: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Give the project that the other tests share, and let the client join again sooner."""
    monkeypatch.setattr(realtime._async.channel, "REJOIN_DELAYS_SECONDS", (0.1,))
    yield shared
    shared.realtime.reset()


def _replayed(step: Step) -> bool:
    """Return whether a step is not among `LEFT_OUT`."""
    if step.recording == "04":
        return step.line.get("conn") not in {4, 5}
    late = step.recording == "05" and step.at > TOGETHER["05"] + 162
    return not (late and (step.received or step.sent or step.line.get("ev") == "transcript_trimmed"))


def _compared(played: Iterable[Step]) -> int:
    """Count what there is to compare: frames, kept or trimmed, and handshakes that were refused."""
    count = 0
    for step in played:
        if step.line.get("ev") == "transcript_trimmed":
            count += TRIMMED.get((step.recording, step.line["lines"]), 0)
        else:
            count += step.received or step.line.get("ev") == "upstream_rejected"
    return count


async def test_01_to_05_are_answered_frame_by_frame(replay: Replay) -> None:
    first = list(steps("01"))
    looks = [Step("05", at, {"ev": event}) for event, at in LOOKS]
    rest = [step for step in merged(TOGETHER, looks) if _replayed(step)]
    await replay.play(first)
    await replay.settle()
    await replay.play(rest)
    assert replay.compared == _compared([*first, *rest])
    assert replay.compared > 600


async def test_07_rows_before_a_cold_subscription_are_lost_and_08_before_a_warm_one_are_sent(
    replay: Replay,
) -> None:
    """The inserts were not recorded, but the first row's id was, and how many rows were missed."""
    cold, warm = list(steps("07")), list(steps("08"))
    await replay.number_from(27125)
    replay.timing(cold=3.0)
    for step in cold:
        if system(step):
            await replay.write(_rows(_missed(cold)))
            await replay.settle()
        elif row(step):
            await replay.write(_rows(1), step.at)
        await replay.play([step])
    await replay.number_from(27432)
    await replay.write(_rows(_missed(warm)))
    await replay.settle()
    # What is committed right after the next poll is polled 3 s later.
    replay.timing(poll_idle=3.0)
    await replay.poll()
    subscribed = next(step.at for step in warm if step.line.get("ev") == "subscribe_cb")
    await replay.write(_rows(4), subscribed - 0.2)
    for step in warm:
        await replay.play([step])
        if system(step):
            replay.timing(poll_idle=TIMING.poll_idle)
    assert replay.compared == _compared([*cold, *warm])


async def test_14_each_role_gets_what_it_may_see_and_a_row_is_cut_at_the_same_byte(replay: Replay) -> None:
    played = list(steps("14"))
    await replay.number_from(28940)
    for step in played:
        if inserted := row(step):
            note = inserted["note"]
            await replay.write(
                f"insert into jobs (note, payload) values ('{note}', to_jsonb(repeat('x', {note[1:]})))",
                step.at,
            )
        await replay.play([step])
    assert replay.compared == _compared(played)
    assert sum("_truncated_len" in step.line["frame"] for step in played if step.received) == 6


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


def _of_17(*tests: str) -> pytest.MarkDecorator:
    # A line with `send_exc` is the client's view of what the next line has with its close code.
    found = [line for line in lines("17") if line["test"].startswith(tests) and "send_exc" not in line]
    assert len(found) == len(tests)
    return pytest.mark.parametrize("recorded", found, ids=[line["test"] for line in found])


@_of_17(*BAD_FRAMES)
async def test_17_a_malformed_frame_is_not_answered(project: Project, recorded: dict[str, Any]) -> None:
    assert (recorded["exc"], recorded["code"]) == ("TimeoutError()", None)
    async with opened(project) as connection:
        await connection.socket.send(BAD_FRAMES[recorded["test"]])
        await connection.end()


@_of_17("6MB frame", "idle")
async def test_17_a_frame_too_long_and_a_long_silence_end_the_connection(
    project: Project, recorded: dict[str, Any]
) -> None:
    silent = recorded["test"] != "6MB frame"
    if silent:
        project.realtime.set_timing(idle=0.3)
    async with opened(project) as connection:
        if not silent:
            await connection.socket.send("x" * 6_000_000)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(PATIENCE):
                await connection.socket.recv()
        assert connection.socket.close_code == recorded["code"]


@_of_17("ws ping")
async def test_17_pings_alone_keep_a_connection_open(project: Project, recorded: dict[str, Any]) -> None:
    assert (recorded["exc"], recorded["code"]) == ("TimeoutError()", None)
    idle = 0.3
    while await _longest_gap(project, idle) >= idle:
        idle *= 2  # the machine was too busy to ping in time


async def _longest_gap(project: Project, idle: float) -> float:
    """Ping for longer than `idle`, and return the longest time that the server may have waited for a ping.

    The connection has to stay open unless that is longer than `idle`.
    """
    project.realtime.set_timing(idle=idle)
    loop = asyncio.get_running_loop()
    gaps = []
    async with opened(project) as connection:
        sent = loop.time()
        try:
            for _ in range(30):
                before, sent = sent, loop.time()
                await (await connection.socket.ping())
                gaps.append(loop.time() - before)
                await asyncio.sleep(idle / 10)
            await connection.end()
        except ConnectionClosed:
            gaps.append(loop.time() - sent)
            assert max(gaps) >= idle
    return max(gaps)


# What the client makes of it.


def called_back(recording: str, label: str) -> tuple[list[str], list[Any]]:
    """Return the states that were called back under a label, and the errors with them."""
    found = [line for line in lines(recording) if line.get("ev") == "subscribe_cb" and line["label"] == label]
    return [line["status"] for line in found], [line["err"] and json.loads(line["err"]) for line in found]


def parsed(errors: list[Exception | None]) -> list[Any]:
    """Return the JSON that errors hold."""
    return [error and json.loads(str(error)) for error in errors]


def ageless(errors: list[Any]) -> list[str]:
    """Return errors without how long ago a token expired."""
    return [re.sub(r"expired \d+ seconds", "expired N seconds", str(error)) for error in errors]


def _subscriptions() -> Iterator[Any]:
    """Yield the subscriptions of 03: the label, the state in which it ended, and the client's join frame."""
    label = ""
    joined: Any = None
    for step in steps("03"):
        if "kw" in step.line:
            label, joined = step.line["msg"], None
        elif step.sent and joined is None:
            joined = step.line["frame"]
        elif "in_socket" in step.line:
            yield pytest.param(label, (step.line["state"], step.line["in_socket"]), joined, id=label)


@pytest.mark.parametrize(("label", "end", "joined"), list(_subscriptions()))
async def test_each_subscription_of_03_leads_to_the_same_callbacks(
    project: Project, label: str, end: tuple[str, bool], joined: Any
) -> None:
    states, errors = called_back("03", label)
    topic, _, _, payload = fields(joined)
    [entry] = payload["config"]["postgres_changes"]
    # The client ignores a reply that it cannot read: it waited for one for 10 s.
    patience = 1.5 if "TIMED_OUT" in states else 10
    name = topic.removeprefix("realtime:")
    async with listening(project, name, entry=entry, timeout=patience) as listener:
        await listener.join()
        await listener.reaches(*states)
        if states == ["SUBSCRIBED"]:
            await until(lambda: listener.subscribed)
            project.sql("insert into jobs (note) values ('a row that is pending')")
            await until(lambda: listener.notes)
        assert parsed(listener.errors) == errors
        assert listener.status() == (*end, True)


@pytest.mark.parametrize(("label", "exp"), [("bad_signature", None), ("expired", -30)])
async def test_a_refused_key_raises_as_in_02(project: Project, label: str, exp: int | None) -> None:
    [recorded] = [line["exc"] for line in lines("02") if line.get("label") == f"direct {label}"]
    expired = project.token(role="service_role", exp=project.in_seconds(exp or 0))
    key = FOREIGN.service_role_jwt if exp is None else expired
    async with listening(project, key=key, max_retries=1) as listener:
        with pytest.raises(InvalidStatus) as refused:
            await listener.client.connect()
    assert f"{type(refused.value).__name__}: {refused.value}" == recorded


async def test_with_an_expired_token_the_client_joins_again_until_it_has_a_good_one_as_in_02(
    project: Project,
) -> None:
    states, errors = called_back("02", "expired_tok")
    token = project.token(role="service_role", exp=project.in_seconds(-30))
    async with listening(project, "j1", token=token) as listener:
        await listener.join()
        await until(lambda: len(listener.states) == len(states) - 1)
        await listener.client.set_auth(project.keys.service_role_jwt)
        await until(lambda: listener.subscribed)
        # How often it was refused meanwhile is a matter of time.
        assert listener.states[-1] == states[-1]
        assert set(listener.states[:-1]) == set(states[:-1])
        assert set(ageless(parsed(listener.errors))) == set(ageless(errors))
        await listener.gets("with a good token")


async def test_a_token_that_expires_ends_the_channel_for_good_as_in_02(project: Project) -> None:
    [end] = [line for line in lines("02") if "listen_done" in line]
    [again] = [line["exc"] for line in lines("02") if "Tried to subscribe" in str(line.get("exc"))]
    states, errors = called_back("02", "expiring")
    expiry = project.in_seconds(3)
    async with listening(project, "j2", token=project.token(role="service_role", exp=expiry)) as listener:
        await listener.join()
        await listener.reaches(*states)
        [late] = re.findall(r"expired (\d+) seconds", str(listener.errors))
        assert int(late) <= project.in_seconds(0) - expiry
        assert ageless(parsed(listener.errors)) == ageless(errors)
        await listener.misses("after the token")
        assert listener.status() == (end["state"], end["in_socket"], end["connected"])
        assert listener.client._listen_task is not None
        assert listener.client._listen_task.done() is end["listen_done"]
        with pytest.raises(Exception, match=re.escape(again)):
            await listener.join()


async def test_a_bad_new_token_ends_the_channel_for_good_as_in_02(project: Project) -> None:
    states, errors = called_back("02", "refbad")
    async with listening(project, "j3") as listener:
        await listener.subscribe()
        await listener.client.set_auth(FOREIGN.service_role_jwt)
        await listener.reaches(*states)
        assert parsed(listener.errors) == errors
        assert listener.status() == ("closed", False, True)


async def test_an_opaque_key_as_a_new_token_changes_nothing_as_in_02(project: Project) -> None:
    states, _ = called_back("02", "sb")
    async with listening(project, "j4") as listener:
        await listener.subscribe()
        await listener.client.set_auth("sb_secret_abc")
        await listener.gets("all the same")
        await listener.reaches(*states)


async def test_the_client_logs_and_drops_an_event_whose_key_it_may_not_read_as_in_02(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    [recorded] = [line for line in lines("02") if "401: Unauthorized" in str(line) and "logger" in line]
    async with listening(project, "j5", key=project.keys.publishable) as listener:
        await listener.subscribe()
        await listener.misses("anon has no grant")
    [record] = [record for record in caplog.records if "401: Unauthorized" in record.getMessage()]
    assert (record.name, record.levelname) == (recorded["logger"], recorded["level"])
    # To the byte, but for the binding's id.
    ours, theirs = (
        re.sub(r'"ids":\[\d+\]', "", message.split("\n")[0])
        for message in (record.getMessage(), recorded["msg"])
    )
    assert ours == theirs


async def test_two_channels_get_the_events_that_they_got_in_01(project: Project) -> None:
    every = {**INSERTS, "event": "*"}
    pending = {**INSERTS, "filter": "status=eq.pending"}
    async with listening(project, "ins", entry=pending) as one, listening(project, "all", entry=every) as two:
        await one.subscribe()
        await two.subscribe()
        project.sql(
            "truncate jobs",
            "insert into jobs (note, status) values ('done', 'done'), ('both', 'pending')",
            "update jobs set status = 'pending' where note = 'done'",
        )
        # Events come in order, so each channel has got all of its own before this one.
        await one.gets("last")
        await until(lambda: "last" in two.notes)
        assert one.notes == ["both", "last"]
        assert two.notes == ["done", "both", "done", "last"]
        await one.client.set_auth(project.token(role="service_role"))
        await until(lambda: one.subscribed == 2)
        await two.channel.unsubscribe()
        await two.reaches(*called_back("01", "all")[0])
        assert two.client.channels == {}


async def test_a_reply_to_a_join_that_comes_too_late_ends_the_channel(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    project.realtime.set_timing(join=3.0)
    async with listening(project, timeout=2) as listener:
        await listener.join()
        await listener.reaches("TIMED_OUT")
        project.realtime.set_timing(join=0.0)
        # The new reply comes before the old channel's close, which the client takes for the new channel's.
        await until(lambda: listener.channel.state.value == "closed")
        await listener.reaches("TIMED_OUT", "SUBSCRIBED", "CLOSED")
        assert "join push timeout for channel realtime:jobs" in caplog.text
