"""What goes wrong with Realtime on request, asked for over the control port, and what the real client makes of it."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
import realtime._async.channel
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from tests.sandbox.listening import listening
from tests.sandbox.live import JOBS, QUICK, Project, running, template, until
from watcher.sandbox import Postgres

TABLES = f"""
{JOBS}
grant all on public.jobs to service_role;
alter publication supabase_realtime add table public.jobs;
"""

# What the client itself uses of websockets is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[Project]:
    with template(postgres, TABLES) as tables, running(postgres, tables, QUICK) as project:
        project.ask_for(
            "realtime_reset"
        )  # the thread in which it does what it is asked for stays, and is no test's
        yield project


@pytest.fixture
def project(shared: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Give a project, and the client less patience."""
    monkeypatch.setattr(realtime._async.channel, "REJOIN_DELAYS_SECONDS", (0.1,))
    yield shared
    shared.ask_for("realtime_reset")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (1000, ConnectionClosedOK, "received 1000 (OK); then sent 1000 (OK)"),
        (1006, ConnectionClosedError, "no close frame received or sent"),
        (1012, ConnectionClosedError, "received 1012 (service restart); then sent 1012 (service restart)"),
    ],
)
async def test_a_close_is_seen_by_its_code_and_got_over(
    project: Project, code: int, kind: type[Exception], message: str
) -> None:
    async with listening(project) as listener:
        await listener.live()
        project.ask_for("realtime_close_all", code=code)
        await until(lambda: listener.subscribed == 2)
        await listener.comes_to("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
        error = listener.errors[1]
        assert (type(error), str(error)) == (kind, message)
        await listener.hears(f"after {code}")


@pytest.mark.parametrize("status", [401, 429, 502])
async def test_handshakes_are_refused_with_a_status_as_often_as_asked(project: Project, status: int) -> None:
    project.ask_for("realtime_refuse", status=status, times=2)
    async with listening(project, max_retries=2, initial_backoff=0.01) as listener:
        with pytest.raises(InvalidStatus, match=f"server rejected WebSocket connection: HTTP {status}"):
            await listener.client.connect()
        await listener.live()
        await listener.hears(f"after {status}")


async def test_who_is_accepted_and_dropped_comes_back_at_once_however_often(project: Project) -> None:
    def sockets() -> int:
        return sum(seen.method == "WEBSOCKET" for seen in project.sandbox.faults.log())

    # However long it is told to wait after a failure, it does not: it got in.
    async with listening(project, initial_backoff=60) as listener:
        await listener.live()
        before = sockets()
        project.ask_for("realtime_accept_then_drop", times=20)
        project.ask_for("realtime_close_all", code=1006)
        await until(lambda: sockets() == before + 21)
    async with listening(project) as listener:
        await listener.live()
        await listener.hears("after the drops")


async def test_a_zombie_is_joined_and_deaf_until_it_joins_anew(project: Project) -> None:
    async with listening(project) as listener, listening(project, "later") as later:
        await listener.live()
        project.ask_for("realtime_mute")
        await listener.misses("to a zombie")
        async with asyncio.timeout(5):
            # Its heartbeats are answered, and so is a ping.
            assert listener.client._ws_connection is not None
            await (await listener.client._ws_connection.ping())
        assert listener.is_where() == ("joined", True, True)
        await later.live()
        await later.hears("to who joined since")
        assert "to who joined since" not in listener.notes
        await listener.client.remove_channel(listener.channel)
        async with listening(project) as cured:
            await cured.live()
            await cured.hears("to who joined anew")


async def test_a_gap_is_silent_and_what_fell_into_it_is_lost(project: Project) -> None:
    async with listening(project) as listener:
        await listener.live()
        project.ask_for("realtime_drop_events", seconds=60)
        await listener.misses("in the gap")
        project.ask_for("realtime_drop_events", seconds=0)
        await listener.hears("after the gap")
        assert listener.notes == ["after the gap"]
        await listener.comes_to("SUBSCRIBED")


async def test_over_the_limit_all_is_dropped_in_silence_until_the_average_is_below(project: Project) -> None:
    async with listening(project) as listener:
        await listener.live()
        project.ask_for("realtime_limit_events", per_second=10, window=1.2)
        project.sql("insert into jobs (note) select 'burst' from generate_series(1, 30)")
        await until(lambda: len(listener.notes) == 30)
        await asyncio.sleep(0.2)
        await listener.misses("too much")
        assert listener.is_where() == ("joined", True, True)
        await asyncio.sleep(1.2)
        await listener.hears("below the average")
        assert "too much" not in listener.notes
        await listener.comes_to("SUBSCRIBED")


async def test_a_system_error_in_mid_life_ends_the_channel_since_the_new_reply_comes_before_the_old_close(
    project: Project,
) -> None:
    async with listening(project) as listener:
        await listener.live()
        project.ask_for("realtime_system_error", message="ERROR 42704 (undefined_object)")
        # It joins again on the same socket, is told that this went well, and takes the end of its first join for the
        # end of the second: the server tells a channel that the client has forgotten.
        await listener.comes_to("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED", "CLOSED")
        assert "ERROR 42704 (undefined_object)" in str(listener.errors[1])
        assert listener.is_where() == ("closed", False, True)
        await listener.misses("to nobody")
        async with listening(project) as cured:
            await cured.live()
            await cured.hears("to a new client")


async def test_a_restart_of_postgres_is_not_told_and_got_over(project: Project) -> None:
    slot = "select exists (select from pg_replication_slots where database = current_database())"
    async with listening(project) as listener:
        await listener.live()
        project.ask_for("postgres_restart")
        await until(lambda: project.ask(slot))
        await listener.hears("later")
        await listener.comes_to("SUBSCRIBED")
        assert listener.subscribed == 1


async def test_the_end_of_the_poller_is_not_told_and_loses_what_came_meanwhile(project: Project) -> None:
    slot = "select slot_name from pg_replication_slots where database = current_database()"
    async with listening(project) as listener:
        await listener.live()
        before = project.ask(slot)
        project.realtime.set_timing(retry_first=1.0)
        assert project.ask_for("postgres_kill", name="realtime_rls") == 1
        project.sql("insert into jobs (note) values ('meanwhile')")
        await until(lambda: project.ask(slot) not in {None, before})
        await listener.hears("later")
        assert listener.notes == ["later"]
        await listener.comes_to("SUBSCRIBED")
        assert listener.subscribed == 1


async def test_while_postgres_is_down_a_joined_channel_stays_joined_and_a_new_one_is_refused(
    project: Project,
) -> None:
    async with listening(project) as listener, listening(project, "new") as new:
        await listener.live()
        await new.client.connect()
        project.ask_for("postgres_halt")
        try:
            await new.join()
            assert new.states[-1] == "CHANNEL_ERROR"
            assert "UnableToConnectToProject: " in str(new.errors[-1])
            assert listener.is_where() == ("joined", True, True)
        finally:
            project.ask_for("postgres_start")
        await until(lambda: new.subscribed)
        await listener.hears("after the outage")
        await until(lambda: new.notes)
        await listener.comes_to("SUBSCRIBED")


def test_a_knob_that_there_is_not_is_refused(project: Project) -> None:
    url = f"{project.sandbox.control_url}/actions/realtime_set_timing"
    answer = httpx.post(url, json={"join": 1, "haste": 1})
    assert answer.status_code == 400
    assert "haste" in answer.json()["error"]
