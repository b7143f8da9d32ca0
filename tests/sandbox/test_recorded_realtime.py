"""What was recorded of the real Realtime server, played to the sandbox: it says the same, frame by frame.

What is generated anew each time is set aside by name: `Comparison.GENERATED` and `TOKENS`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.sandbox.live import JOBS, Project, running, template
from tests.sandbox.replay import TIMING, TRIMMED, Replay, opened
from tests.sandbox.transcripts import Step, lines, merged, row, steps, system
from watcher.sandbox import Postgres

# What is not replayed. None of it is anything that a client does: it is what was done to the server, or not recorded.
LEFT_OUT = {
    "06, 16": "a scripted server; they tell of the client, which is what is tried in test_realtime_client.py",
    "09, 10, 11, 12, 12a, 13, 15": "something was killed while they ran: the faults are tried in test_realtime_faults.py",
    "10x": "the recording proxy's own fault, as `accept_then_drop` makes it on purpose",
    "02: 1 to 4 and 6 to 11, what the client thought": "the proxy accepted before it had asked the server; what the "
    "server answered is compared, and what the client makes of that is in test_realtime_client.py",
    "04: the end of connection 3": "the proxy closed at text that is not JSON; 17 has it without the proxy",
    "04: connections 4 and 5": "the proxy answered pings itself; 17 has the same silence without the proxy",
    "05: from 162 s on": "300 rows a second for 90 s; test_realtime_timing.py has the numbers",
    "04, 05, 07, 08: rows that were trimmed": "they were not kept; those of a bulk are checked to be all there, in order",
}

# 02 to 05 were recorded at the same time on one database, and hear each other's rows. When each began, in seconds past
# 14:33, as `created_at` of its rows shows (03's: when it heard of a row, beside 05).
TOGETHER = {"02": 17.423, "03": 17.294, "04": 17.350, "05": 18.309}
# When the server looked at what is published, which it does every minute; the sandbox is made to look then.
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
alter publication supabase_realtime add table public.jobs, public.rlsjobs;
"""


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
        if system(step):
            await replay.write(_rows(_missed(cold)))
            await replay.settle()
        elif row(step):
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
        if told := row(step):
            note = told["note"]
            await replay.write(
                f"insert into jobs (note, payload) values ('{note}', to_jsonb(repeat('x', {note[1:]})))",
                step.at,
            )
        await replay.play([step])
    assert replay.compared == _compared(played)
    assert sum("_truncated_len" in step.line["frame"] for step in played if step.told) == 6


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
