"""`watcher migrate --repair`: says first what was changed, and restores all of it or nothing.

What can be changed is in test_breakages.py.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.operator.commands import migrate, sql
from tests.support.database import Database, Worker
from watcher.errors import Misconfigured, Transient
from watcher.operator.doctor import drift
from watcher.operator.repair import repair
from watcher.sandbox import Postgres

HARM = "drop index watcher.work_due"


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


def catalogue(own: Database) -> dict[str, Any]:
    answer = Worker(own).call("catalogue")
    assert isinstance(answer, dict)
    return answer


def test_what_was_changed_is_told_first_and_restored(own: Database, url: str) -> None:
    sql(url, HARM)
    done = migrate(url, "--repair", "--yes")
    assert done.exit_code == 0, done.output
    assert "- The index watcher.work_due is missing." in done.output.splitlines()
    assert catalogue(own) == drift.load_expected()


def test_nothing_is_changed_unless_it_is_wanted(own: Database, url: str) -> None:
    sql(url, HARM)
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
    unasked = migrate(url, "--yes")
    assert (unasked.exit_code, "nothing else asks" in unasked.output) == (2, True)
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


def test_what_the_last_pass_has_restored_is_restored(
    own: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.operator.repair._PASSES", 1)
    sql(url, HARM)
    assert "Restored 1: see `watcher doctor`." in migrate(url, "--repair", "--yes").output
    assert catalogue(own) == drift.load_expected()


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
