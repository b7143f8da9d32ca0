"""Whatever of the migrations is changed: it is found, and `watcher migrate --repair` restores it."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.support.database import Database, Worker
from watcher.cli import cli
from watcher.errors import Misconfigured, Transient
from watcher.operator.doctor import drift
from watcher.operator.repair import repair
from watcher.sandbox import Postgres

BREAKS = {
    "a function does something else": (
        "create or replace function watcher.max_attempts() returns integer language sql immutable as 'select 80'",
        "The function watcher.max_attempts() was changed",
    ),
    "a function of ours has a second form": (
        "create function public.watcher_beat(p_more integer) returns bigint language sql as 'select 1'",
        "There is an additional function public.watcher_beat(integer)",
    ),
    "a helper may not be called any more": (
        "revoke execute on function watcher.name_error(text) from authenticated",
        "A grant is missing: authenticated EXECUTE on watcher.name_error(text)",
    ),
    "the private schema is opened": (
        "grant usage on schema watcher to anon",
        "Unexpected grant: anon USAGE on schema watcher",
    ),
    "a column is gone": (
        "alter table public.trained_identities drop column training_config",
        "The column training_config of public.trained_identities is missing",
    ),
    "a column has another type": (
        "alter table watcher.attempts alter column reason type varchar(20)",
        "The column reason of watcher.attempts was changed",
    ),
    "a column lost its default": (
        "alter table public.trained_identities alter column status drop default",
        "The column status of public.trained_identities was changed",
    ),
    "a column needs no value any more": (
        "alter table public.trained_identities alter column identity_name drop not null",
        "The column identity_name of public.trained_identities was changed",
    ),
    "a constraint is dropped": (
        "alter table public.watcher_pulse drop constraint watcher_pulse_pkey",
        "The constraint watcher_pulse_pkey of public.watcher_pulse is missing",
    ),
    "an index is dropped": ("drop index watcher.work_due", "The index watcher.work_due is missing"),
    "an index is another": (
        "drop index watcher.work_held; create index work_held on watcher.work (kind)",
        "The index watcher.work_held was changed",
    ),
    "a trigger is another": (
        (
            "drop trigger a_count on public.trained_identities; create trigger a_count before insert on "
            "public.trained_identities for each row execute function watcher.after_insert()"
        ),
        "The trigger a_count on public.trained_identities was changed",
    ),
    "a trigger of ours is there twice": (
        (
            "create trigger z_count after insert on public.trained_identities for each row execute function "
            "watcher.after_insert()"
        ),
        "There is an additional trigger z_count on public.trained_identities",
    ),
    "a private table is dropped": (
        "drop table watcher.rejections",
        "The table watcher.rejections is missing",
    ),
    "only some columns are published": (
        (
            "alter publication supabase_realtime drop table public.trained_identities; "
            "alter publication supabase_realtime add table public.trained_identities (id, status)"
        ),
        "has only a part of public.trained_identities: id, status",
    ),
    "only some rows are published": (
        (
            "alter publication supabase_realtime drop table public.trained_identities; "
            "alter publication supabase_realtime add table public.trained_identities where (status = 'failed')"
        ),
        "has only a part of public.trained_identities: where",
    ),
}


@pytest.fixture(scope="module")
def own(postgres: Postgres, template: Callable[[bool], str]) -> Iterator[Database]:
    """A migrated database for all tests of this file, of which each leaves it as it was."""
    name = "to_be_repaired"
    postgres.create(name, template(False))
    database = Database(postgres, name)
    yield database
    database.close()
    postgres.drop(name)


@pytest.fixture
def url(own: Database) -> str:
    return own.postgres.dsn(own.name, "postgres")


def sql(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def catalogue(own: Database) -> dict[str, Any]:
    answer = Worker(own).call("catalogue")
    assert isinstance(answer, dict)
    return answer


def migrate(url: str, *options: str, **more: Any) -> Result:
    return CliRunner().invoke(cli, ["migrate", *options], env={"SUPABASE_DB_URL": url}, **more)


@pytest.mark.parametrize(("harm", "sentence"), BREAKS.values(), ids=BREAKS)
def test_what_was_changed_is_told_first_and_restored(
    own: Database, url: str, harm: str, sentence: str
) -> None:
    sql(url, harm)
    done = migrate(url, "--repair", "--yes")
    assert done.exit_code == 0, done.output
    assert sentence in next(line for line in done.output.splitlines() if line.startswith("- "))
    assert catalogue(own) == drift.load_expected()


def test_nothing_is_changed_unless_it_is_wanted(own: Database, url: str) -> None:
    sql(url, BREAKS["an index is dropped"][0])
    changed = catalogue(own)
    planned: list[drift.Drift] = []

    def refuse(all_of_it: list[drift.Drift]) -> bool:
        planned.extend(all_of_it)
        return False

    assert repair(url, confirm=refuse) == []
    assert [one.sentence for one in planned] == ["The index watcher.work_due is missing."]
    assert catalogue(own) == changed
    assert "Restored 1: see `watcher doctor`." in migrate(url, "--repair", "--yes").output
    assert "Nothing was restored." in migrate(url, "--repair", "--yes").output


def test_what_the_app_has_added_is_left_alone(own: Database, url: str) -> None:
    more = (
        "alter table public.trained_identities add column colour text;"
        "create index by_colour on public.trained_identities (colour);"
        "create function public.watcher_of_mine() returns integer language sql as 'select 1';"
        "revoke all on function public.watcher_of_mine() from public, anon, authenticated, service_role;"
        "create function public.mine() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger mine after insert on public.trained_identities for each row execute function public.mine();"
    )
    sql(url, more)
    try:
        assert "Nothing was restored." in migrate(url, "--repair", "--yes").output
    finally:
        sql(
            url,
            "drop trigger mine on public.trained_identities; drop function public.mine, public.watcher_of_mine;"
            "alter table public.trained_identities drop column colour;",
        )


def test_nobody_to_ask_is_a_usage_error_and_a_lock_leaves_everything_as_it_was(
    own: Database, url: str
) -> None:
    assert migrate(url, "--repair").exit_code == 2
    assert migrate(url, "--repair", "--yes", "--into", "/tmp").exit_code == 2
    sql(url, "drop index public.trained_identities_failed")
    try:
        with psycopg.connect(url) as somebody:
            somebody.execute("lock table public.trained_identities in share update exclusive mode")
            somebody.execute("update public.trained_identities set status = 'pending'")
            locked = migrate(url, "--repair", "--yes")
        assert isinstance(locked.exception, Transient)
        assert "is locked, and nothing was changed" in str(locked.exception)
    finally:
        assert migrate(url, "--repair", "--yes").exit_code == 0


def test_what_cannot_be_restored_is_told_and_nothing_is_changed(own: Database, url: str) -> None:
    # A row of which a column that needs a value has none any more.
    sql(url, "alter table watcher.limits drop column value; drop index watcher.work_due")
    sql(url, "insert into watcher.limits (name) values ('objects')")
    changed = catalogue(own)
    done = migrate(url, "--repair", "--yes")
    assert isinstance(done.exception, Misconfigured)
    assert "It could not be restored, and nothing was changed" in str(done.exception)
    assert catalogue(own) == changed
    sql(url, "delete from watcher.limits")
    assert migrate(url, "--repair", "--yes").exit_code == 0
