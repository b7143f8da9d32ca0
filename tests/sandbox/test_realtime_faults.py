"""Realtime's faults, asked for over the control port, and what the real client makes of them."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import psycopg
import pytest
import realtime._async.channel
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from tests.sandbox.listening import listening
from tests.sandbox.project import INSERTS, JOBS, PATIENCE, Project, running, template, until
from tests.support.deprecations import CLOSED
from watcher.sandbox import Postgres

pytestmark = CLOSED

SLOT = "select slot_name from pg_replication_slots where database = current_database()"


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Iterator[Project]:
    with template(postgres, JOBS) as tables, running(postgres, tables) as project:
        yield project


@pytest.fixture
def project(shared: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Give a project without faults, and let the client join again sooner."""
    monkeypatch.setattr(realtime._async.channel, "REJOIN_DELAYS_SECONDS", (0.1,))
    yield shared
    shared.control("realtime_reset")


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (1000, ConnectionClosedOK, "received 1000 (OK); then sent 1000 (OK)"),
        (1006, ConnectionClosedError, "no close frame received or sent"),
        (1012, ConnectionClosedError, "received 1012 (service restart); then sent 1012 (service restart)"),
    ],
)
async def test_the_client_sees_the_close_code_and_connects_again(
    project: Project, code: int, kind: type[Exception], message: str
) -> None:
    async with listening(project) as listener:
        await listener.subscribe()
        project.control("realtime_close_all", code=code)
        await until(lambda: listener.subscribed == 2)
        await listener.reaches("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")
        error = listener.errors[1]
        assert (type(error), str(error)) == (kind, message)
        await listener.gets(f"after {code}")


@pytest.mark.parametrize("status", [401, 429, 502])
async def test_handshakes_are_refused_with_a_status_as_often_as_asked(project: Project, status: int) -> None:
    project.control("realtime_refuse", status=status, times=2)
    async with listening(project, max_retries=2, initial_backoff=0.01) as listener:
        with pytest.raises(InvalidStatus, match=f"server rejected WebSocket connection: HTTP {status}"):
            await listener.client.connect()
        await listener.subscribe()
        await listener.gets(f"after {status}")


async def test_five_refused_handshakes_end_the_client_without_a_callback(project: Project) -> None:
    """The recording of this was made with a scripted server, not the real one."""
    async with listening(project, initial_backoff=0.01) as listener:
        await listener.subscribe()
        task = listener.client._listen_task
        project.realtime.refuse(429, times=5)
        project.realtime.close_all(1012)
        assert task is not None
        await asyncio.wait([task], timeout=PATIENCE)
        assert isinstance(task.exception(), InvalidStatus)
        assert str(task.exception()) == "server rejected WebSocket connection: HTTP 429"
        assert listener.status() == ("errored", True, False)
        await listener.reaches("SUBSCRIBED", "CHANNEL_ERROR")
        await listener.client.connect()
        await listener.reaches("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED")


async def test_a_client_that_is_accepted_and_dropped_comes_back_at_once_every_time(project: Project) -> None:
    def sockets() -> int:
        return sum(seen.method == "WEBSOCKET" for seen in project.sandbox.faults.log())

    # A handshake that is accepted resets the client's back-off, however long that is.
    async with listening(project, initial_backoff=60) as listener:
        await listener.subscribe()
        before = sockets()
        project.control("realtime_accept_then_drop", times=20)
        project.control("realtime_close_all", code=1006)
        await until(lambda: sockets() == before + 21)
    async with listening(project) as listener:
        await listener.subscribe()
        await listener.gets("after the drops")


async def test_a_muted_channel_stays_joined_and_gets_no_event_until_it_joins_again(project: Project) -> None:
    async with listening(project) as listener, listening(project, "later") as later:
        await listener.subscribe()
        project.control("realtime_mute")
        await listener.misses("while muted")
        async with asyncio.timeout(PATIENCE):
            # Pings are answered, and so are heartbeats.
            assert listener.client._ws_connection is not None
            await (await listener.client._ws_connection.ping())
        assert listener.status() == ("joined", True, True)
        await later.subscribe()
        await later.gets("to the one that joined since")
        assert "to the one that joined since" not in listener.notes
        project.control("realtime_unmute")
        await listener.gets("unmuted")
        project.control("realtime_mute")
        await listener.client.remove_channel(listener.channel)
        async with listening(project) as anew:
            await anew.subscribe()
            await anew.gets("joined again")


async def test_events_in_a_gap_are_lost_without_a_sign(project: Project) -> None:
    async with listening(project) as listener:
        await listener.subscribe()
        project.control("realtime_drop_events", seconds=60)
        await listener.misses("in the gap")
        project.control("realtime_drop_events", seconds=0.1)
        await asyncio.sleep(0.1)
        await listener.gets("after the gap")
        assert listener.notes == ["after the gap"]
        await listener.reaches("SUBSCRIBED")


async def test_events_over_the_limit_are_dropped_without_a_sign(project: Project) -> None:
    """How long it takes until the average is low enough again is tested in test_realtime_timing.py."""
    async with listening(project) as listener:
        await listener.subscribe()
        project.control("realtime_limit_events", per_second=2.5, window=12)
        project.sql("insert into jobs (note) select 'burst' from generate_series(1, 30)")
        await until(lambda: len(listener.notes) == 30)
        rate = project.realtime._poller.rate
        await until(lambda: rate.exceeded(time.monotonic()))
        await listener.misses("too much")
        assert listener.status() == ("joined", True, True)
        project.control("realtime_limit_events")
        await listener.gets("below the limit")
        assert "too much" not in listener.notes
        await listener.reaches("SUBSCRIBED")


async def test_a_system_error_ends_the_clients_channel_and_not_the_servers(project: Project) -> None:
    async with project.raw() as raw, listening(project) as listener:
        await raw.subscribe(INSERTS)
        await listener.subscribe()
        project.control("realtime_system_error", message="ERROR 42704 (undefined_object)")
        # The client joins again on the same socket and is told that it succeeded. Then it takes the close of its
        # first join for that of the second, and forgets a channel that the server goes on sending to.
        await listener.reaches("SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED", "CLOSED")
        assert "ERROR 42704 (undefined_object)" in str(listener.errors[1])
        assert listener.status() == ("closed", False, True)
        await listener.misses("to nobody")
        error = (await raw.receive())[4]
        assert (error["status"], error["extension"]) == ("error", "postgres_changes")
        assert (await raw.receive())[3] == "postgres_changes"
        async with listening(project) as anew:
            await anew.subscribe()
            await anew.gets("to a new client")


async def test_a_restart_of_postgres_is_survived_and_not_announced(project: Project) -> None:
    async with listening(project) as listener:
        await listener.subscribe()
        project.control("postgres_restart")
        await until(lambda: project.ask(SLOT))
        await listener.gets("later")
        await listener.reaches("SUBSCRIBED")
        assert listener.subscribed == 1


async def test_changes_are_lost_while_realtime_has_no_connection_to_postgres(project: Project) -> None:
    async with listening(project) as listener:
        await listener.subscribe()
        before = project.ask(SLOT)
        with (
            psycopg.connect(project.postgres.dsn(), autocommit=True) as other,
            psycopg.connect(project.sandbox.db_url, autocommit=True) as own,
        ):
            other.execute(f"alter database {project.database} allow_connections false".encode())
            assert project.control("postgres_kill", name="realtime_rls") == 1
            own.execute("insert into jobs (note) values ('meanwhile')")
            other.execute(f"alter database {project.database} allow_connections true".encode())
        await until(lambda: project.ask(SLOT) not in {None, before})
        await listener.gets("later")
        assert listener.notes == ["later"]
        await listener.reaches("SUBSCRIBED")
        assert listener.subscribed == 1


async def test_while_postgres_is_down_joined_channels_stay_and_new_ones_are_refused(project: Project) -> None:
    async with listening(project) as listener, listening(project, "new") as new:
        await listener.subscribe()
        await new.client.connect()
        project.control("postgres_halt")
        try:
            await new.join()
            assert new.states[-1] == "CHANNEL_ERROR"
            assert "UnableToConnectToProject: " in str(new.errors[-1])
            assert listener.status() == ("joined", True, True)
        finally:
            project.control("postgres_start")
        await until(lambda: new.subscribed)
        await listener.gets("after the outage")
        await until(lambda: new.notes)
        await listener.reaches("SUBSCRIBED")


def test_an_unknown_delay_is_refused(project: Project) -> None:
    url = f"{project.sandbox.control_url}/actions/realtime_set_timing"
    answer = httpx.post(url, json={"join": 1, "haste": 1})
    assert answer.status_code == 400
    assert "haste" in answer.json()["error"]
