"""Realtime, frame by frame, where no recording shows it; test_recorded_realtime.py has what was recorded."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.sandbox.project import FOREIGN, INSERTS, JOBS, QUICK, Project, Start, running, template, until
from watcher.sandbox import Postgres

ANN, BEN = str(uuid4()), str(uuid4())
TABLES = f"""
{JOBS}
create table public.mine (id int primary key, owner uuid, secret text);
alter table public.mine enable row level security;
create policy own on public.mine for select to authenticated using ((select auth.uid()) = owner);
grant select (id, owner) on public.mine to authenticated;
grant select on public.mine to service_role;
create table public.money (id int primary key, amount numeric, large bigint);
grant select on public.money to service_role;
alter publication supabase_realtime add table public.mine, public.money;
"""
MINE = {"event": "*", "schema": "public", "table": "mine"}
SLOT = "select slot_name from pg_replication_slots where database = current_database()"


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Iterator[str]:
    with template(postgres, TABLES) as name:
        yield name


@pytest.fixture
def start(postgres: Postgres, tables: str) -> Iterator[Start]:
    """Start a project that no other test uses."""
    with ExitStack() as stack:
        yield lambda timing: stack.enter_context(running(postgres, tables, timing=timing))


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tables: str) -> Iterator[Project]:
    with running(postgres, tables) as project:
        yield project


@pytest.fixture
def project(shared: Project) -> Project:
    """Give the project that most tests share, with empty tables and no changes left to send."""
    position = shared.position()
    shared.sql("truncate jobs, mine, money restart identity")
    shared.settle(position)
    return shared


async def test_numbers_are_written_as_postgres_writes_them(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe({"event": "*", "schema": "public", "table": "money"})
        project.sql("insert into money values (1, 1.50, 9007199254740993)")
        text = str(await raw.socket.recv())
    assert '"amount": 1.50' in text
    assert '"large": 9007199254740993' in text


async def test_heartbeats_and_leaving_are_answered_in_the_second_protocol(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        await raw.send(None, "7", "phoenix", "heartbeat", {})
        assert await raw.receive() == [None, "7", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
        await raw.send("1", "8", "realtime:jobs", "phx_leave", {})
        assert await raw.receive() == [
            "1",
            "8",
            "realtime:jobs",
            "phx_reply",
            {"status": "ok", "response": {}},
        ]
        assert await raw.receive() == ["1", "1", "realtime:jobs", "phx_close", {}]


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
        received: dict[str, set[int]] = {condition: set() for condition, _ in FILTERS}
        for _ in range(sum(len(ids) for _, ids in FILTERS)):
            frame = await raw.receive()
            received[FILTERS[int(frame[2].removeprefix("realtime:"))][0]].add(
                frame[4]["data"]["record"]["id"]
            )
        assert received == dict(FILTERS)
        assert await raw.silent()


async def test_a_subscription_that_is_refused_disturbs_no_other(project: Project) -> None:
    refused = {
        "undefined": 'Error parsing `filter` params: ["undefined"]',
        "nocol=eq.1": "invalid column for filter nocol",
        "id=eq.abc": 'invalid input syntax for type bigint: "abc"',
        "note=is.maybe": "invalid value for is filter",
    }
    async with project.raw() as raw, project.raw() as other:
        await raw.subscribe(INSERTS)
        before = project.ask(SLOT)
        for ref, (condition, message) in enumerate(refused.items(), 1):
            await other.join({**INSERTS, "filter": condition}, topic=condition, ref=str(ref))
            answer = (await other.receive())[4]
            assert answer["status"] == "error"
            assert message in answer["message"]
        await other.join(INSERTS, ref="9", access_token=project.token(role="nosuchrole"))
        assert (await other.receive())[4]["status"] == "error"
        project.sql("insert into jobs default values")
        assert (await raw.receive())[3] == "postgres_changes"
        assert project.ask(SLOT) == before


async def test_column_privileges_trim_the_record(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(MINE, topic="service")
        await raw.subscribe(MINE, topic="ann", access_token=project.token(ANN))
        project.sql(f"insert into mine values (1, '{ANN}', 'hush')")
        events = {frame[2]: frame[4]["data"] for frame in [await raw.receive(), await raw.receive()]}
    assert events["realtime:service"]["record"] == {"id": 1, "owner": ANN, "secret": "hush"}
    assert events["realtime:ann"]["record"] == {"id": 1, "owner": ANN}
    assert [column["name"] for column in events["realtime:ann"]["columns"]] == ["id", "owner"]


async def test_selected_columns_come_with_the_key(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe({**INSERTS, "select": ["status"]})
        project.sql("insert into jobs default values")
        assert (await raw.receive())[4]["data"]["record"] == {"id": 1, "status": "pending"}


async def test_a_new_token_brings_its_users_rows_and_a_bad_one_closes_the_channel(project: Project) -> None:
    async with project.raw() as raw:
        await raw.subscribe(MINE, access_token=project.token(BEN))
        for ignored in ("sb_secret_x", project.token(BEN), None):
            await raw.send("1", "2", "realtime:jobs", "access_token", {"access_token": ignored})
        project.sql(f"insert into mine values (1, '{ANN}', 'hush')")
        assert await raw.silent()
        await raw.send("1", "3", "realtime:jobs", "access_token", {"access_token": project.token(ANN)})
        assert (await raw.receive())[4]["message"] == "Subscribed to PostgreSQL"
        project.sql(f"insert into mine values (2, '{ANN}', 'hush')")
        assert (await raw.receive())[4]["data"]["record"]["id"] == 2
        foreign = {"access_token": FOREIGN.service_role_jwt}
        await raw.send("1", "4", "realtime:jobs", "access_token", foreign)
        assert (await raw.receive())[4]["message"] == ":signature_error"
        assert (await raw.receive())[3] == "phx_close"


async def test_after_a_long_outage_only_a_new_join_gets_events(start: Start) -> None:
    project = start(replace(QUICK, give_up=0.2))
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.postgres.halt()
        try:
            refused = await raw.join(INSERTS, topic="meanwhile", ref="2")
            assert refused[4]["response"]["reason"].startswith("UnableToConnectToProject: ")
            await until(lambda: not project.realtime._poller._running)
        finally:
            project.postgres.start()
        project.sql("insert into jobs (note) values ('to nobody')")
        await raw.send(None, "3", "phoenix", "heartbeat", {})
        assert (await raw.receive())[1] == "3"
        assert await raw.silent()
        await raw.subscribe(INSERTS, topic="new", ref="4")
        project.sql("insert into jobs (note) values ('to the new one')")
        assert (await raw.receive())[2] == "realtime:new"
        assert await raw.silent()


async def test_the_slot_is_dropped_some_time_after_the_last_subscription(start: Start) -> None:
    project = start(replace(QUICK, linger=0.1))
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        assert project.ask(SLOT) is not None
    await until(lambda: project.ask(SLOT) is None)
    async with project.raw() as raw:
        await raw.subscribe(INSERTS)
        project.sql("insert into jobs default values")
        assert (await raw.receive())[3] == "postgres_changes"
