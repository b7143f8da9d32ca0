"""The real client makes of the sandbox what it made of the real server: it raises, calls back and ends as recorded."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import realtime._async.channel
from websockets.exceptions import InvalidStatus

from tests.sandbox.listening import listening
from tests.sandbox.live import INSERTS, JOBS, QUICK, Project, running, template, until
from tests.sandbox.transcripts import fields, lines, steps
from watcher.sandbox import Postgres
from watcher.sandbox.keys import Keys

TABLES = f"""
{JOBS}
grant all on public.jobs to service_role;
create table public.other (id int primary key);
alter publication supabase_realtime add table public.jobs;
"""
FOREIGN = Keys("another secret, as long as it has to be").service_role_jwt

# What the client itself uses of websockets is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[Project]:
    with template(postgres, TABLES) as tables, running(postgres, tables, QUICK) as project:
        yield project


@pytest.fixture
def project(shared: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Give a project, and the client less patience."""
    monkeypatch.setattr(realtime._async.channel, "REJOIN_DELAYS_SECONDS", (0.1,))
    yield shared
    shared.realtime.reset()


def called_back(recording: str, label: str) -> tuple[list[str], list[Any]]:
    """Return the states that were called back under a label, and the errors with them."""
    found = [line for line in lines(recording) if line.get("ev") == "subscribe_cb" and line["label"] == label]
    return [line["status"] for line in found], [line["err"] and json.loads(line["err"]) for line in found]


def said(errors: list[Exception | None]) -> list[Any]:
    """Return what errors say that hold JSON."""
    return [error and json.loads(str(error)) for error in errors]


def ageless(errors: list[Any]) -> str:
    """Return errors without how long ago a token expired."""
    return re.sub(r"expired [1-9]\d* seconds", "expired N seconds", str(errors))


def _subscriptions() -> Iterator[Any]:
    """Yield what 03 tried: the label, where it led, and the frame that the client joined by."""
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
async def test_each_subscription_of_03_leads_to_the_same_calls(
    project: Project, label: str, end: tuple[str, bool], joined: Any
) -> None:
    states, errors = called_back("03", label)
    topic, _, _, payload = fields(joined)
    [entry] = payload["config"]["postgres_changes"]
    # An answer that the client cannot read is none: it waited for 10 s.
    patience = 0.4 if "TIMED_OUT" in states else 10
    name = topic.removeprefix("realtime:")
    async with listening(project, name, entry=entry, timeout=patience) as listener:
        await listener.join()
        await listener.comes_to(*states)
        if states == ["SUBSCRIBED"]:
            await until(lambda: listener.subscribed)
            project.sql("insert into jobs (note) values ('a row that is pending')")
            await until(lambda: listener.notes)
        assert said(listener.errors) == errors
        assert listener.is_where() == (*end, True)


@pytest.mark.parametrize(("label", "exp"), [("bad_signature", None), ("expired", -30)])
async def test_a_refused_key_raises_as_in_02(project: Project, label: str, exp: int | None) -> None:
    [recorded] = [line["exc"] for line in lines("02") if line.get("label") == f"direct {label}"]
    key = FOREIGN if exp is None else project.token(role="service_role", exp=project.soon(exp))
    async with listening(project, key=key, max_retries=1) as listener:
        with pytest.raises(InvalidStatus) as refused:
            await listener.client.connect()
    assert f"{type(refused.value).__name__}: {refused.value}" == recorded


async def test_an_expired_token_is_tried_again_until_there_is_a_good_one_as_in_02(project: Project) -> None:
    states, errors = called_back("02", "expired_tok")
    project.realtime.set_timing(join_error=0.2)
    token = project.token(role="service_role", exp=project.soon(-30))
    async with listening(project, "j1", token=token) as listener:
        await listener.join()
        await until(lambda: len(listener.states) == 3)
        await listener.client.set_auth(project.keys.service_role_jwt)
        await listener.comes_to(*states)
        assert ageless(said(listener.errors)) == ageless(errors)
        await until(lambda: listener.subscribed)
        await listener.hears("with a good token")


async def test_a_token_that_expires_ends_the_channel_for_good_as_in_02(project: Project) -> None:
    [end] = [line for line in lines("02") if "listen_done" in line]
    [again] = [line["exc"] for line in lines("02") if "Tried to subscribe" in str(line.get("exc"))]
    states, errors = called_back("02", "expiring")
    token = project.token(role="service_role", exp=project.soon(2))
    async with listening(project, "j2", token=token) as listener:
        await listener.join()
        await listener.comes_to(*states)
        assert said(listener.errors) == errors
        await listener.misses("after the token")
        assert listener.is_where() == (end["state"], end["in_socket"], end["connected"])
        assert listener.client._listen_task is not None
        assert listener.client._listen_task.done() is end["listen_done"]
        with pytest.raises(Exception, match=re.escape(again)):
            await listener.join()


async def test_a_bad_new_token_ends_the_channel_for_good_as_in_02(project: Project) -> None:
    states, errors = called_back("02", "refbad")
    async with listening(project, "j3") as listener:
        await listener.live()
        await listener.client.set_auth(FOREIGN)
        await listener.comes_to(*states)
        assert said(listener.errors) == errors
        assert listener.is_where() == ("closed", False, True)


async def test_an_opaque_key_as_a_new_token_changes_nothing_as_in_02(project: Project) -> None:
    states, _ = called_back("02", "sb")
    async with listening(project, "j4") as listener:
        await listener.live()
        await listener.client.set_auth("sb_secret_abc")
        await listener.hears("all the same")
        await listener.comes_to(*states)


async def test_a_row_whose_key_one_may_not_read_cannot_be_read_at_all_as_in_02(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    [recorded] = [line for line in lines("02") if "401: Unauthorized" in str(line) and "logger" in line]
    async with listening(project, "j5", key=project.keys.publishable) as listener:
        await listener.live()
        await listener.misses("anon has no grant")
    [record] = [record for record in caplog.records if "401: Unauthorized" in record.getMessage()]
    assert (record.name, record.levelname) == (recorded["logger"], recorded["level"])
    # All but the binding's id, and to the byte.
    ours, theirs = (
        re.sub(r'"ids":\[\d+\]', "", message.split("\n")[0])
        for message in (record.getMessage(), recorded["msg"])
    )
    assert ours == theirs


async def test_two_channels_hear_what_they_heard_in_01(project: Project) -> None:
    every = {**INSERTS, "event": "*"}
    pending = {**INSERTS, "filter": "status=eq.pending"}
    async with listening(project, "ins", entry=pending) as one, listening(project, "all", entry=every) as two:
        await one.live()
        await two.live()
        project.sql(
            "truncate jobs",
            "insert into jobs (note, status) values ('done', 'done'), ('both', 'pending')",
            "update jobs set status = 'pending' where note = 'done'",
        )
        await until(lambda: len(two.notes) == 3)
        assert one.notes == ["both"]
        assert two.notes == ["done", "both", "done"]
        await one.client.set_auth(project.token(role="service_role"))
        await until(lambda: one.subscribed == 2)
        await two.channel.unsubscribe()
        await two.comes_to(*called_back("01", "all")[0])
        assert two.client.channels == {}


async def test_handshakes_that_are_refused_five_times_end_the_client_without_a_word(project: Project) -> None:
    """Not recorded with the real server but with a scripted one: here it meets one that refuses as the real one does."""
    async with listening(project, initial_backoff=0.01) as listener:
        await listener.live()
        task = listener.client._listen_task
        project.realtime.refuse(429, times=5)
        project.realtime.close_all(1012)
        assert task is not None
        await asyncio.wait([task], timeout=5)
        assert isinstance(task.exception(), InvalidStatus)
        assert str(task.exception()) == "server rejected WebSocket connection: HTTP 429"
        assert listener.is_where() == ("errored", True, False)
        await listener.comes_to("SUBSCRIBED", "CHANNEL_ERROR")
        await listener.client.connect()
        await listener.comes_to("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")


async def test_a_reply_to_a_join_that_comes_too_late_ends_the_channel(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    project.realtime.set_timing(join=1.5)
    async with listening(project, timeout=1) as listener:
        await listener.join()
        await listener.comes_to("TIMED_OUT")
        project.realtime.set_timing(join=0.0)
        # The new reply comes before the old channel's close, which the client takes for the new one's.
        await until(lambda: listener.channel.state.value == "closed")
        await listener.comes_to("TIMED_OUT", "SUBSCRIBED", "CLOSED")
        assert "join push timeout for channel realtime:jobs" in caplog.text
