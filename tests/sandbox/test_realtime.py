"""Realtime: what its own client hears, and what only a raw socket can show."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from realtime import AsyncRealtimeClient
from realtime.types import RealtimeSubscribeStates
from websockets.exceptions import InvalidStatus

from tests.sandbox.live import ALL, INSERTS, JOBS, QUICK, Project, Start, running, template, until
from watcher.sandbox import Postgres
from watcher.sandbox.keys import Keys

ANN, BEN = str(uuid4()), str(uuid4())
TABLES = f"""
{JOBS}
grant all on public.jobs to anon, authenticated, service_role;
create table public.mine (id int primary key, owner uuid, secret text);
alter table public.mine enable row level security;
create policy own on public.mine for select to authenticated using ((select auth.uid()) = owner);
grant select (id, owner) on public.mine to authenticated;
grant select on public.mine to service_role;
create table public.unpublished (id int primary key);
create table public.keyless (a int);
grant select on public.keyless to service_role;
alter table public.keyless replica identity full;
create table public.kinds (
    id int primary key, n numeric, b bytea, u uuid, a int[], t timestamp, d date, bo boolean, big bigint,
    f float8, iv interval, e text);
grant select on public.kinds to service_role;
alter publication supabase_realtime add table public.jobs, public.mine, public.keyless, public.kinds;
"""


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Iterator[str]:
    with template(postgres, TABLES) as name:
        yield name


@pytest.fixture
def start(postgres: Postgres, tables: str) -> Iterator[Start]:
    """Start a project that nobody else uses."""
    with ExitStack() as stack:
        yield lambda timing: stack.enter_context(running(postgres, tables, timing))


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tables: str) -> Iterator[Project]:
    with running(postgres, tables, QUICK) as project:
        yield project


@pytest.fixture
def project(shared: Project) -> Project:
    """Give the project that most tests use, with empty tables and nothing left to tell."""
    written = shared.ask("select pg_current_wal_lsn()")
    shared.sql("truncate jobs, mine, keyless, kinds restart identity")
    shared.settle(written)
    return shared


async def test_the_real_client_hears_of_an_insert(project: Project) -> None:
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    system: asyncio.Queue[object] = asyncio.Queue()
    states: list[RealtimeSubscribeStates] = []
    client = AsyncRealtimeClient(project.url, project.keys.secret)
    channel = client.channel("jobs")
    channel.on_postgres_changes("INSERT", heard.put_nowait, table="jobs", filter="status=eq.pending")
    channel.on_system(system.put_nowait)
    await channel.subscribe(lambda state, _: states.append(state))
    async with asyncio.timeout(5):
        await system.get()
        project.sql("insert into jobs (status) values ('done'), ('pending')")
        event = await heard.get()
    assert event["data"]["record"]["id"] == 2
    assert states == [RealtimeSubscribeStates.SUBSCRIBED]
    await client.close()


# The client itself asks for what its WebSocket library has deprecated.
@pytest.mark.filterwarnings("ignore:ConnectionClosed.(code|reason) is deprecated:DeprecationWarning")
async def test_the_real_client_comes_back_after_a_restart(project: Project) -> None:
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    system: asyncio.Queue[object] = asyncio.Queue()
    client = AsyncRealtimeClient(project.url, project.keys.secret, initial_backoff=0.05)
    channel = client.channel("jobs")
    channel.on_postgres_changes("*", heard.put_nowait, table="jobs")
    channel.on_system(system.put_nowait)
    await channel.subscribe()
    async with asyncio.timeout(5):
        await system.get()
        project.realtime.close_all(1012)
        await system.get()
        project.sql("insert into jobs (note) values ('after')")
        assert (await heard.get())["data"]["record"]["note"] == "after"
    await client.close()


async def test_events_have_the_shape_of_the_real_ones(project: Project) -> None:
    async with project.raw(version="1.0.0") as raw:
        payload = {"config": {"postgres_changes": [ALL]}}
        await raw.socket.send(
            json.dumps(
                {"topic": "realtime:x", "event": "phx_join", "payload": payload, "ref": "1", "join_ref": "1"}
            )
        )
        reply = await raw.hear()
        (told,) = reply["payload"]["response"]["postgres_changes"]
        assert told == {**ALL, "id": told["id"]}
        assert reply == {
            "ref": "1",
            "event": "phx_reply",
            "topic": "realtime:x",
            "payload": {"status": "ok", "response": {"postgres_changes": [told]}},
        }
        subscribed = {
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
            "extension": "postgres_changes",
            "channel": "x",
        }
        assert await raw.hear() == {
            "ref": None,
            "event": "system",
            "topic": "realtime:x",
            "payload": subscribed,
        }
        project.sql(
            "insert into jobs (note, payload, created_at) values ('n', '{\"a\": 1.50}', '2026-01-02 03:04:05.6')"
        )
        event = await raw.hear()
        committed = event["payload"]["data"].pop("commit_timestamp")
        assert (len(committed), committed[-1]) == (24, "Z")
        columns = [
            {"name": "id", "type": "int8"},
            {"name": "status", "type": "text"},
            {"name": "payload", "type": "jsonb"},
            {"name": "note", "type": "text"},
            {"name": "created_at", "type": "timestamptz"},
        ]
        record = {
            "id": 1,
            "status": "pending",
            "payload": {"a": 1.5},
            "note": "n",
            "created_at": "2026-01-02T03:04:05.6+00:00",
        }
        data = {"schema": "public", "table": "jobs", "columns": columns, "errors": None}
        assert event == {
            "ref": None,
            "event": "postgres_changes",
            "topic": "realtime:x",
            "payload": {"ids": [told["id"]], "data": {**data, "type": "INSERT", "record": record}},
        }
        project.sql("update jobs set note = 'm'", "delete from jobs")
        updated, deleted = (await raw.hear())["payload"]["data"], (await raw.hear())["payload"]["data"]
        assert (updated["record"], updated["old_record"]) == ({**record, "note": "m"}, {"id": 1})
        assert (deleted["type"], deleted["old_record"], "record" in deleted) == ("DELETE", {"id": 1}, False)


async def test_values_look_as_postgres_shows_them_in_json(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe({"event": "*", "schema": "public", "table": "kinds"})
        project.sql(
            r"""insert into kinds values (1, 1.50, '\xdeadbeef', '7f1f5a3e-3a0e-4f3a-9f55-0123456789ab', '{1,2,3}',
                '2026-01-02 03:04:05', '2026-01-02', true, 9007199254740993, 1.5e300, '1 day', 'ünï"\n')"""
        )
        async with asyncio.timeout(5):
            text = await raw.socket.recv()
        assert isinstance(text, str)
        assert '"n": 1.50' in text
        record = json.loads(text)[4]["data"]["record"]
        assert record == {
            "id": 1,
            "n": 1.5,
            "b": "deadbeef",
            "u": "7f1f5a3e-3a0e-4f3a-9f55-0123456789ab",
            "a": [1, 2, 3],
            "t": "2026-01-02T03:04:05",
            "d": "2026-01-02",
            "bo": True,
            "big": 9007199254740993,
            "f": 15 * 10**299,
            "iv": "1 day",
            "e": 'ünï"\\n',
        }


async def test_in_the_second_protocol_events_have_no_join_ref(project: Project) -> None:
    async with project.raw() as raw:
        assert (await raw.join(INSERTS))[:4] == ["1", "1", "realtime:jobs", "phx_reply"]
        assert (await raw.hear())[:4] == ["1", None, "realtime:jobs", "system"]
        project.sql("insert into jobs default values")
        assert (await raw.hear())[:4] == [None, None, "realtime:jobs", "postgres_changes"]
        await raw.send(None, "7", "phoenix", "heartbeat", {})
        assert await raw.hear() == [None, "7", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
        await raw.send("1", "8", "realtime:jobs", "phx_leave", {})
        assert await raw.hear() == ["1", "8", "realtime:jobs", "phx_reply", {"status": "ok", "response": {}}]
        assert await raw.hear() == ["1", "1", "realtime:jobs", "phx_close", {}]


async def test_a_row_that_two_bindings_match_is_told_once(project: Project) -> None:
    async with project.raw() as raw:
        reply = await raw.join(INSERTS, {**INSERTS, "filter": "status=eq.pending"})
        first, second = (entry["id"] for entry in reply[4]["response"]["postgres_changes"])
        await raw.hear()
        project.sql("insert into jobs default values")
        assert (await raw.hear())[4]["ids"] == [second, first]
        assert await raw.silent()


async def test_joining_again_closes_the_channel_before_by_its_own_ref(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS, ref="2")
        reply = await raw.join(INSERTS, ref="3")
        assert (reply[1], reply[4]["status"]) == ("3", "ok")
        assert await raw.hear() == ["2", "2", "realtime:jobs", "phx_close", {}]
        assert (await raw.hear())[4]["message"] == "Subscribed to PostgreSQL"
        project.sql("insert into jobs default values")
        assert (await raw.hear())[3] == "postgres_changes"
        assert await raw.silent()


FILTERS = [
    ("status=eq.pending", {1, 4}),
    (" status=eq.pending ", {1, 4}),
    ("status=neq.pending", {2, 3}),
    ("status=not.eq.pending", {2, 3}),
    ("id=lt.3", {1, 2}),
    ("id=gte.2,id=lte.3", {2, 3}),
    ("status=in.(done,new)", {2, 3}),
    ('note=in.("a,b",c)', {1}),
    ("note=is.null", {2, 3}),
    ("note=not.is.null", {1, 4}),
    ("note=like.a%", {1}),
    ("note=ilike.X%", {4}),
    ("note=match.^[ax]", {1, 4}),
    ("note=isdistinct.xyz", {1, 2, 3}),
    ('note=eq."a,b"', {1}),
    ("", {1, 2, 3, 4}),
]


async def test_filters_compare_as_postgres_does(project: Project) -> None:
    async with project.raw() as raw:
        for number, (condition, _) in enumerate(FILTERS):
            await raw.subscribe({**INSERTS, "filter": condition}, topic=str(number), ref=str(number))
        project.sql(
            "insert into jobs (status, note) values ('pending', 'a,b'), ('done', null), ('new', null), ('pending', 'xyz')"
        )
        heard: dict[str, set[int]] = {condition: set() for condition, _ in FILTERS}
        for _ in range(sum(len(ids) for _, ids in FILTERS)):
            frame = await raw.hear()
            heard[FILTERS[int(frame[2].removeprefix("realtime:"))][0]].add(frame[4]["data"]["record"]["id"])
        assert heard == dict(FILTERS)
        assert await raw.silent()


UNABLE = "Unable to subscribe to changes with given parameters. "
CHECK = f"{UNABLE}Please check Realtime is enabled for the given connect parameters: "
RAISED = f"{UNABLE}An exception happened so please check your connect parameters: "


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"table": "unpublished"},
            f"{CHECK}[event: INSERT, schema: public, table: unpublished, filters: [], select: nil]",
        ),
        ({"table": "nope"}, f"{CHECK}[event: INSERT, schema: public, table: nope, filters: [], select: nil]"),
        ({"filter": "status=foo.pending"}, 'Error parsing `filter` params: ["foo", "pending"]'),
        ({"filter": "undefined"}, 'Error parsing `filter` params: ["undefined"]'),
        (
            {"filter": "nocol=eq.1"},
            (
                f"{RAISED}[event: INSERT, schema: public, table: jobs, filters: "
                '[{"nocol", "eq", "1", false}], select: nil]. '
                "Exception: ERROR P0001 (raise_exception) invalid column for filter nocol"
            ),
        ),
        (
            {"filter": "id=eq.abc"},
            (
                f"{RAISED}[event: INSERT, schema: public, table: jobs, filters: "
                '[{"id", "eq", "abc", false}], select: nil]. Exception: ERROR 22P02 '
                '(invalid_text_representation) invalid input syntax for type bigint: "abc"'
            ),
        ),
    ],
)
async def test_a_subscription_that_cannot_be_is_told_after_the_join(
    project: Project, changed: dict[str, str], message: str
) -> None:
    async with project.raw() as raw:
        assert (await raw.join({**INSERTS, **changed}))[4]["status"] == "ok"
        told = await raw.hear()
        assert (told[3], told[4]["status"], told[4]["message"]) == ("system", "error", message)
        assert await raw.silent()


async def test_a_subscription_that_cannot_be_disturbs_nobody_else(project: Project) -> None:
    slot = "select slot_name from pg_replication_slots where database = current_database()"
    async with project.raw() as raw, project.raw() as other:
        await raw.subscribe(INSERTS)
        before = project.ask(slot)
        for ref, condition in enumerate(("nocol=eq.1", "id=eq.abc", "note=is.maybe"), 1):
            await other.join({**INSERTS, "filter": condition}, topic=condition, ref=str(ref))
            assert (await other.hear())[4]["status"] == "error"
        await other.join(INSERTS, ref="9", access_token=project.token(role="nosuchrole"))
        assert (await other.hear())[4]["status"] == "error"
        project.sql("insert into jobs default values")
        assert (await raw.hear())[3] == "postgres_changes"
        assert project.ask(slot) == before


async def test_an_unknown_role_may_join_and_hears_why_nothing_comes(project: Project) -> None:
    async with project.raw() as raw:
        await raw.join(INSERTS, access_token=project.token(role="nosuchrole"))
        message = (await raw.hear())[4]["message"]
        assert message.endswith('Exception: ERROR 42704 (undefined_object) role "nosuchrole" does not exist')


async def test_row_level_security_hides_rows_but_not_deletes(project: Project) -> None:
    entry = {"event": "*", "schema": "public", "table": "mine"}
    async with project.raw() as raw:
        await raw.subscribe(entry, topic="service")
        await raw.subscribe(entry, topic="ann", access_token=project.token(ANN))
        await raw.subscribe(entry, topic="ben", access_token=project.token(BEN))
        project.sql(f"insert into mine values (1, '{ANN}', 'hush')")
        events = {frame[2]: frame[4]["data"] for frame in [await raw.hear(), await raw.hear()]}
        assert events.keys() == {"realtime:service", "realtime:ann"}
        assert events["realtime:service"]["record"] == {"id": 1, "owner": ANN, "secret": "hush"}
        # Column privileges trim the record.
        assert events["realtime:ann"]["record"] == {"id": 1, "owner": ANN}
        assert [column["name"] for column in events["realtime:ann"]["columns"]] == ["id", "owner"]
        project.sql("delete from mine")
        frames = [await raw.hear() for _ in range(3)]
        assert {frame[2] for frame in frames} == {"realtime:service", "realtime:ann", "realtime:ben"}
        assert [frame[4]["data"]["old_record"] for frame in frames] == [{"id": 1}] * 3
        assert await raw.silent()


async def test_who_may_not_read_the_key_is_told_that_alone(project: Project) -> None:
    anon = project.keys.publishable
    async with project.raw(anon) as raw:
        await raw.subscribe({"event": "*", "schema": "public", "table": "mine"})
        project.sql(f"insert into mine values (1, '{ANN}', 'hush')")
        assert (await raw.hear())[4]["data"] == {
            "type": "INSERT",
            "schema": "public",
            "table": "mine",
            "record": {},
            "columns": [],
            "errors": ["Error 401: Unauthorized"],
            "commit_timestamp": None,
        }


async def test_a_table_without_a_key_is_told_as_an_error(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe({"event": "INSERT", "schema": "public", "table": "keyless"})
        project.sql("insert into keyless values (1)")
        assert (await raw.hear())[4]["data"]["errors"] == ["Error 400: Bad Request, no primary key"]


async def test_a_row_over_a_mebibyte_comes_without_its_long_values(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(ALL)
        project.sql("insert into jobs (note, payload) values ('big', to_jsonb(repeat('x', 1200000)))")
        data = (await raw.hear())[4]["data"]
        assert data["errors"] == ["Error 413: Payload Too Large"]
        assert data["record"].keys() == {"id", "status", "note", "created_at"}


async def test_chosen_columns_come_with_the_key(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe({**INSERTS, "select": ["status"]})
        project.sql("insert into jobs default values")
        assert (await raw.hear())[4]["data"]["record"] == {"id": 1, "status": "pending"}


async def test_a_large_transaction_comes_whole_and_in_order(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.sql("insert into jobs (note) select i from generate_series(1, 250) i")
        notes = [(await raw.hear())[4]["data"]["record"]["note"] for _ in range(250)]
        assert notes == [str(i) for i in range(1, 251)]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("{expired}", "Token has expired"),
        ("{foreign}", "Failed to validate JWT signature"),
        ("garbage", "The token provided is not a valid JWT"),
        ("{endless}", "Fields `role` and `exp` are required in JWT"),
    ],
)
async def test_a_bad_key_is_refused_at_the_handshake(project: Project, key: str, message: str) -> None:
    tokens = {
        "expired": project.token(exp=1),
        "foreign": Keys("another secret, as long as it has to be").service_role_jwt,
        "endless": project.keys.sign({"role": "anon"}),
    }
    with pytest.raises(InvalidStatus) as caught:
        async with project.raw(key.format(**tokens)):
            pass
    response = caught.value.response
    assert (response.status_code, json.loads(response.body)) == (401, {"error": message})


async def test_a_bad_token_is_refused_at_the_join(project: Project) -> None:
    async with project.raw() as raw:
        expired = await raw.join(INSERTS, access_token=project.token(exp=project.soon(-30)))
        assert expired[4]["status"] == "error"
        assert expired[4]["response"]["reason"].startswith("InvalidJWTToken: Token has expired 3")
        unnamed = await raw.join(topic="")
        assert unnamed[4]["response"]["reason"] == "TopicNameRequired: You must provide a topic name"


async def test_a_token_that_expires_closes_the_channel_and_not_the_socket(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS, access_token=project.token(ANN, exp=project.soon(2)))
        told = await raw.hear()
        assert (told[4]["extension"], told[4]["status"]) == ("system", "error")
        assert told[4]["message"] == "Token has expired 0 seconds ago"
        assert await raw.hear() == ["1", "1", "realtime:jobs", "phx_close", {}]
        await raw.send(None, "2", "phoenix", "heartbeat", {})
        assert (await raw.hear())[4]["status"] == "ok"


async def test_a_new_token_is_taken_in_silence_and_a_bad_one_closes(project: Project) -> None:
    entry = {"event": "*", "schema": "public", "table": "mine"}
    async with project.raw() as raw:
        await raw.subscribe(entry, access_token=project.token(BEN))
        for ignored in ("sb_secret_x", project.token(BEN), None):
            await raw.send("1", "2", "realtime:jobs", "access_token", {"access_token": ignored})
        assert await raw.silent()
        await raw.send("1", "3", "realtime:jobs", "access_token", {"access_token": project.token(ANN)})
        assert (await raw.hear())[4]["message"] == "Subscribed to PostgreSQL"
        project.sql(f"insert into mine values (1, '{ANN}', 'hush')")
        assert (await raw.hear())[4]["data"]["record"]["id"] == 1
        foreign = Keys("another secret, as long as it has to be").service_role_jwt
        await raw.send("1", "4", "realtime:jobs", "access_token", {"access_token": foreign})
        assert (await raw.hear())[4]["message"] == ":signature_error"
        assert (await raw.hear())[3] == "phx_close"


async def test_what_is_no_frame_is_passed_over_and_what_is_no_topic_answered(project: Project) -> None:
    async with project.raw(version="1.0.0") as raw:
        for garbage in ("{", "[]", '["1","1","realtime:x","phx_join",{}]', '{"topic":"x","event":"y"}'):
            await raw.socket.send(garbage)
        assert await raw.silent()
        stray = {"topic": "foo:bar", "event": "phx_join", "payload": {}, "ref": "1", "join_ref": "1"}
        await raw.socket.send(json.dumps(stray))
        refused = {"status": "error", "response": {"reason": "unmatched topic"}}
        assert (await raw.hear())["payload"] == refused


async def test_a_frame_over_five_megabytes_closes_with_1009(project: Project) -> None:
    async with project.raw() as raw:
        await raw.socket.send("x" * 6_000_000)
        assert await raw.closed() == 1009


async def test_a_client_that_says_nothing_is_closed_with_1000(start: Start) -> None:
    async with start(replace(QUICK, idle=0.2)).raw() as raw:
        assert await raw.closed() == 1000


async def test_a_cold_subscription_takes_longer_and_misses_what_came_before(start: Start) -> None:
    project = start(replace(QUICK, cold=0.5))
    async with project.raw() as raw:
        await raw.join(INSERTS)
        project.sql("insert into jobs (note) values ('missed')")
        assert await raw.silent(0.3)
        assert (await raw.hear())[4]["message"] == "Subscribed to PostgreSQL"
        project.sql("insert into jobs (note) values ('heard')")
        assert (await raw.hear())[4]["data"]["record"]["note"] == "heard"


async def test_a_poller_that_is_killed_loses_what_came_meanwhile_and_tells_nobody(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        polling = "select active_pid from pg_replication_slots where database = current_database()"
        before = project.ask(polling)
        project.ask(f"select pg_terminate_backend({before})")
        await until(lambda: project.ask(polling) not in {before, None})
        project.sql("insert into jobs (note) values ('after')")
        assert (await raw.hear())[4]["data"]["record"]["note"] == "after"


async def test_a_long_outage_makes_zombies_that_only_a_new_join_cures(start: Start) -> None:
    project = start(replace(QUICK, give_up=0.2))
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.postgres.halt()
        try:
            refused = await raw.join(INSERTS, topic="meanwhile", ref="2")
            assert refused[4]["response"]["reason"].startswith("UnableToConnectToProject: ")
            await asyncio.sleep(0.6)
        finally:
            project.postgres.start()
        project.sql("insert into jobs (note) values ('to nobody')")
        await raw.send(None, "3", "phoenix", "heartbeat", {})
        assert (await raw.hear())[1] == "3"
        assert await raw.silent()
        await raw.subscribe(INSERTS, topic="new", ref="4")
        project.sql("insert into jobs (note) values ('to the new one')")
        assert (await raw.hear())[2] == "realtime:new"
        assert await raw.silent()


async def test_the_slot_goes_when_nobody_has_subscribed_for_a_while(start: Start) -> None:
    project = start(replace(QUICK, linger=0.1))
    slots = "select count(*) from pg_replication_slots where database = current_database()"
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        assert project.ask(slots) == 1
    await until(lambda: project.ask(slots) == 0)
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.sql("insert into jobs default values")
        assert (await raw.hear())[3] == "postgres_changes"


async def test_a_change_of_the_publication_subscribes_everybody_anew(start: Start) -> None:
    project = start(QUICK)
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.sql("alter publication supabase_realtime add table unpublished")
        assert (await raw.hear())[4]["message"] == "Subscribed to PostgreSQL"
        project.sql("alter publication supabase_realtime drop table jobs")
        assert (await raw.hear())[4]["status"] == "error"


async def test_a_muted_channel_is_deaf_until_it_is_joined_anew(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.realtime.mute()
        project.sql("insert into jobs default values")
        assert await raw.silent()
        await raw.send(None, "2", "phoenix", "heartbeat", {})
        assert (await raw.hear())[4]["status"] == "ok"
        await raw.subscribe(INSERTS, topic="new", ref="3")
        project.sql("insert into jobs default values")
        assert (await raw.hear())[2] == "realtime:new"
        project.realtime.unmute()
        project.sql("insert into jobs default values")
        assert {(await raw.hear())[2], (await raw.hear())[2]} == {"realtime:jobs", "realtime:new"}


async def test_dropped_events_are_gone_for_good(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.realtime.drop_events(0.3)
        project.sql("insert into jobs (note) values ('lost')")
        await asyncio.sleep(0.4)
        project.sql("insert into jobs (note) values ('heard')")
        assert (await raw.hear())[4]["data"]["record"]["note"] == "heard"


async def test_handshakes_are_refused_as_often_as_asked(project: Project) -> None:
    project.realtime.refuse(429, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as caught:
            async with project.raw():
                pass
        assert caught.value.response.status_code == 429
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)


@pytest.mark.parametrize("code", [1000, 1006, 1012])
async def test_sockets_are_closed_with_the_code_that_is_asked_for(project: Project, code: int) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.realtime.close_all(code)
        assert await raw.closed() == code


async def test_a_socket_may_be_accepted_and_dropped(project: Project) -> None:
    project.realtime.accept_then_drop()
    async with project.raw() as raw:
        assert await raw.closed() == 1006
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)


async def test_a_system_error_leaves_the_channel_joined(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.realtime.system_error("out of luck")
        told = await raw.hear()
        assert (told[4]["status"], told[4]["extension"]) == ("error", "postgres_changes")
        project.sql("insert into jobs default values")
        assert (await raw.hear())[3] == "postgres_changes"
