"""Each door is tried by each caller, through REST, Storage and Realtime, in both regimes of default privileges."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent

from tests.conftest import _names
from tests.migrations.doors import (
    CALLERS,
    COLUMNS,
    FUNCTIONS,
    Door,
    House,
    of_the_bucket,
    of_the_functions,
    of_the_private_schemas,
    of_the_tables,
)
from tests.support.database import Database
from tests.support.scene import Scene, staged
from tests.support.waiting import PATIENCE, until
from watcher.sandbox import Postgres

MAY_READ = {"owner", "stranger", "service"}
DOORS = {**of_the_tables(), **of_the_functions(), **of_the_private_schemas(), **of_the_bucket()}


@pytest.fixture(scope="module", params=[False, True], ids=["new project", "old project"])
def regime(
    request: pytest.FixtureRequest, postgres: Postgres, template: Callable[[bool], str]
) -> Iterator[Scene]:
    database = Database(postgres, next(_names))
    postgres.create(database.name, template(request.param))
    with staged(postgres, database) as scene:
        yield scene
    database.close()
    postgres.drop(database.name)


@pytest.fixture(scope="module")
def house(regime: Scene) -> House:
    return House(regime)


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_each_caller_gets_what_the_table_says_and_changes_nothing_else(house: House, door: Door) -> None:
    got = {}
    before = house.state()
    for caller in CALLERS:
        got[caller] = house.ask(caller, door)
        after = house.state()
        if after != before:
            assert got[caller] == "yes", f"{caller} was told {got[caller]}, and it was done."
            house.furnish()
            before = house.state()
    assert got == door.expected


def test_every_table_column_and_function_has_its_line(regime: Scene) -> None:
    columns = regime.database.run(
        "select table_name, column_name from information_schema.columns where table_schema = 'public'"
    )
    there: dict[str, set[str]] = {}
    for row in columns:
        there.setdefault(row["table_name"], set()).add(row["column_name"])
    assert there == {table: set(lines) for table, lines in COLUMNS.items()}
    functions = regime.database.run(
        "select proname from pg_proc where pronamespace = 'public'::regnamespace and prokind = 'f'"
    )
    assert {row["proname"] for row in functions} == set(FUNCTIONS)


@asynccontextmanager
async def listening(house: House, caller: str, table: str) -> AsyncIterator[list[dict[str, Any]]]:
    """What a caller is told of a table."""
    told: list[dict[str, Any]] = []
    ready = asyncio.Event()
    token = house.headers(caller)["authorization"].removeprefix("Bearer ")
    client = AsyncRealtimeClient(
        f"{house.scene.sandbox.supabase_url}/realtime/v1",
        house.headers(caller)["apikey"],
        auto_reconnect=False,
    )
    await client.connect()
    await client.set_auth(token)
    channel = client.channel("doors")
    channel.on_postgres_changes(
        RealtimePostgresChangesListenEvent.All,
        lambda payload: told.append(dict(payload["data"])),
        table=table,
    )
    channel.on_system(lambda _: ready.set())
    try:
        await channel.subscribe(lambda _state, _error: None)
        # Whoever may not listen at all is told so, or never told that it works.
        with_patience = asyncio.wait_for(ready.wait(), PATIENCE if caller in MAY_READ else 1)
        await asyncio.gather(with_patience, return_exceptions=True)
        yield told
    finally:
        for one in client.channels.values():
            one.rejoin_timer.reset()
            one.join_push.destroy()
        await client.close()


@pytest.mark.parametrize("caller", CALLERS)
async def test_realtime_tells_nobody_what_they_may_not_read(regime: Scene, caller: str) -> None:
    # A house of its own: what others did to theirs may still be told.
    house = House(regime)
    database = regime.database

    def kinds(events: list[dict[str, Any]]) -> list[str]:
        """The changes made below; what it took to furnish the house may still be told, too."""
        mine = {(str(new), "INSERT"), (str(house.failed), "UPDATE")}
        found = [(event, str(getattr(event["type"], "value", event["type"]))) for event in events]
        return [
            kind
            for event, kind in found
            if kind == "DELETE"
            or ((event["record"]["id"], kind) in mine and event["record"]["status"] == "pending")
        ]

    async with (
        listening(house, "service", "trained_identities") as everything,
        listening(house, caller, "trained_identities") as rows,
        listening(house, caller, "watcher_pulse") as pulse,
    ):
        new = database.insert(house.owner, house.paths)
        database.run("update public.trained_identities set status = 'pending' where id = %s", [house.failed])
        database.run("select public.watcher_beat()", role="service_role")
        # What is gone by the time that Realtime looks is told to nobody.
        await until(lambda: {"INSERT", "UPDATE"} <= set(kinds(everything)))
        database.run("delete from public.trained_identities where id = %s", [new])
        await until(lambda: "DELETE" in kinds(everything))
        due = {"owner": ["DELETE", "INSERT", "UPDATE"], "stranger": ["DELETE"]}
        due["service"] = due["owner"]
        await until(lambda: len(kinds(rows)) >= len(due.get(caller, ())) and (pulse or caller != "service"))
        await asyncio.sleep(0.2)
    assert sorted(kinds(rows)) == due[caller] if caller in due else set(kinds(rows)) <= {"DELETE"}
    for event in rows:
        if event["type"] == "DELETE":
            # Without a right to the table there is not even the id.
            assert event["old_record"] == ({"id": str(new)} if caller in MAY_READ else {})
    assert bool(pulse) == (caller == "service")
