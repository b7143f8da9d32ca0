"""Migrating: over a database URL, or as files beside the app's own."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from tests.support.database import Database
from watcher import migrate
from watcher.cli import cli
from watcher.errors import Misconfigured, Transient

VERSIONS = [file.name.partition("_")[0] for file in migrate.files()]


def versions(project: Database) -> list[str]:
    return [row["version"] for row in project.run("select version from watcher.migrations order by version")]


def test_the_files_are_named_as_the_cli_of_supabase_wants_them() -> None:
    assert len(VERSIONS) >= 3
    assert sorted(VERSIONS) == VERSIONS
    assert all(len(version) == 14 and version.isdigit() for version in VERSIONS)


def test_migrating_over_a_url_does_what_is_missing_and_twice_is_nothing(project: Database) -> None:
    assert list(migrate.apply(project.dsn())) == VERSIONS
    assert versions(project) == VERSIONS
    assert list(migrate.apply(project.dsn())) == []


def test_a_file_that_was_applied_by_url_may_be_pushed_later(project: Database) -> None:
    list(migrate.apply(project.dsn()))
    project.run("insert into public.watcher_pulse default values on conflict do nothing")
    with psycopg.connect(project.dsn(), autocommit=True) as push:
        for file in migrate.files():
            push.execute(file.read_bytes())
    assert versions(project) == VERSIONS


def test_what_was_pushed_is_not_applied_again(project: Database) -> None:
    with psycopg.connect(project.dsn(), autocommit=True) as push:
        push.execute(migrate.files()[0].read_bytes())
    assert list(migrate.apply(project.dsn())) == VERSIONS[1:]


def test_a_table_of_that_name_is_left_alone_and_one_sentence_says_how_to_move_it(project: Database) -> None:
    project.run("create table public.trained_identities (id int)")
    project.run("insert into public.trained_identities values (7)")
    with pytest.raises(Misconfigured) as caught:
        list(migrate.apply(project.dsn()))
    assert "alter table public.trained_identities rename to trained_identities_before_watcher;" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert project.run("select * from public.trained_identities") == [{"id": 7}]
    project.run("alter table public.trained_identities rename to trained_identities_before_watcher")
    assert list(migrate.apply(project.dsn())) == VERSIONS


def test_a_migration_that_is_refused_is_named(project: Database) -> None:
    project.run("create schema watcher")
    project.run("create function watcher.name_error(name text) returns text language sql return name")
    with pytest.raises(Misconfigured, match=rf"^{VERSIONS[0]}_\w+\.sql failed and was rolled back: .*exists"):
        list(migrate.apply(project.dsn()))


def test_a_statement_of_the_files_is_found_whole() -> None:
    found = migrate.statement("create trigger b_queue_new_row ")
    assert (found[:31], found[-1], found.count(";")) == ("create trigger b_queue_new_row ", ";", 1)
    with pytest.raises(LookupError):
        migrate.statement("create trigger nobody ")


def test_a_database_that_is_away_may_be_there_later() -> None:
    with pytest.raises(Transient, match="could not be reached"):
        list(migrate.apply("postgresql://postgres:pass@127.0.0.1:9/postgres"))


@pytest.mark.parametrize("url", ["postgres:hush@host/postgres", "https://abc.supabase.co?password=hush"])
def test_what_is_no_database_url_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(Misconfigured, match="SUPABASE_DB_URL") as caught:
        list(migrate.apply(url))
    assert "hush" not in str(caught.value)


def test_the_files_go_beside_the_apps_own_and_are_written_once(tmp_path: Path) -> None:
    (tmp_path / "20250101000000_app.sql").write_text("select 1;")
    assert [file.name for file in migrate.copy(tmp_path)] == [file.name for file in migrate.files()]
    assert (tmp_path / migrate.files()[0].name).read_bytes() == migrate.files()[0].read_bytes()
    assert migrate.copy(tmp_path) == []
    assert (tmp_path / "20250101000000_app.sql").read_text() == "select 1;"


def test_a_copy_that_was_changed_is_never_written_over(tmp_path: Path) -> None:
    migrate.copy(tmp_path)
    changed = tmp_path / migrate.files()[0].name
    changed.write_text("-- ours now")
    with pytest.raises(Misconfigured, match="differs from the migration of that name"):
        migrate.copy(tmp_path)
    assert changed.read_text() == "-- ours now"


def test_a_folder_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="There is no folder"):
        migrate.copy(tmp_path / "supabase" / "migratoins")


def test_the_command_says_what_it_did(project: Database, tmp_path: Path) -> None:
    over_url = {"SUPABASE_DB_URL": project.dsn()}
    first = CliRunner().invoke(cli, ["migrate"], env=over_url)
    assert (first.exit_code, first.output.splitlines()) == (0, [f"Applied {version}" for version in VERSIONS])
    again = CliRunner().invoke(cli, ["migrate"], env=over_url)
    assert (again.exit_code, "Nothing to do" in again.output) == (0, True)
    into = CliRunner().invoke(cli, ["migrate", "--into", str(tmp_path)])
    assert (into.exit_code, into.output.count("Wrote ")) == (0, len(VERSIONS))


# Beside a busy app.


@contextmanager
def in_thread(operation: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Run it in a thread, which has ended when the body has."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(operation())
        except BaseException as error:  # noqa: BLE001  (it is raised where the result is asked for)
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        thread.join()


@contextmanager
def reading(project: Database) -> Iterator[psycopg.Connection]:
    """Give a transaction that has read storage.objects and stays open, until the body ends it or fails."""
    with psycopg.connect(project.dsn("supabase_admin"), application_name="a report") as reader:
        reader.execute("select from storage.objects")
        yield reader


def plant(project: Database, error: str, times: int) -> None:
    """Fail the next `times` tries to create a policy on storage.objects; note the lock_timeout of every statement."""
    for query in (
        "create table public.timeouts (lock_timeout text)",
        "create sequence public.tries",  # what it has counted is not rolled back
        f"""
        create function public.plant() returns event_trigger language plpgsql security definer as $$
        begin
          insert into public.timeouts values (current_setting('lock_timeout'));
          if nextval('public.tries') <= {times} then
            raise exception using errcode = '{error}', message = 'planted';
          end if;
        end $$
        """,
        "create event trigger plant on ddl_command_start when tag in ('CREATE POLICY') execute function public.plant()",
    ):
        project.run(query, role="supabase_admin")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "_PAUSE_FIRST", 0.01)
    monkeypatch.setattr(migrate, "_PAUSE_LONGEST", 0.01)


def test_who_reads_beside_a_migration_that_waits_does_not_wait_for_its_end(project: Database) -> None:
    waits: list[str] = []
    with (
        psycopg.connect(project.dsn("supabase_admin"), autocommit=True) as other,
        reading(project) as reader,
        in_thread(lambda: list(migrate.apply(project.dsn(), on_wait=waits.append))) as migrated,
    ):
        queued = 0
        while not queued:
            with in_thread(lambda: other.execute("select from storage.objects").fetchall()) as served:
                deadline = time.monotonic() + 60
                while not served.done():
                    queued += project.value(
                        "select count(*)::int from pg_locks where not granted and pid = %s",
                        [other.info.backend_pid],
                    )
                    if time.monotonic() > deadline:
                        reader.rollback()
                        pytest.fail("It waits until the reader has ended and the migration has run.")
            assert served.result() == []
        assert not migrated.done()
        reader.rollback()
        assert migrated.result() == VERSIONS
    assert 'for: create policy "Users read their own identity images" on storage.objects.' in waits[0]
    assert re.search(
        r"storage\.objects is locked by the transaction of process \d+ \(role supabase_admin, a report, .*open for \d s",
        waits[0],
    )


@pytest.mark.parametrize(("error", "times"), [("55P03", 7), ("40P01", 2)])
def test_a_lock_that_is_not_available_and_a_deadlock_are_tried_again(
    project: Database, monkeypatch: pytest.MonkeyPatch, error: str, times: int
) -> None:
    quick(monkeypatch)
    plant(project, error, times)
    waits: list[str] = []
    assert list(migrate.apply(project.dsn(), on_wait=waits.append)) == VERSIONS
    assert len(waits) == times
    assert project.run("select distinct lock_timeout from public.timeouts", role="supabase_admin") == [
        {"lock_timeout": "3s"}
    ]


def test_a_lock_that_never_comes_is_given_up_with_a_sentence_and_the_rest_is_kept(
    project: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_GIVE_UP_AFTER", 0)
    with reading(project) as reader:
        with pytest.raises(Transient) as caught:
            list(migrate.apply(project.dsn()))
        assert f"locked by the transaction of process {reader.info.backend_pid} " in str(caught.value)
        assert str(caught.value).endswith(" then run `watcher migrate` again.")
        assert versions(project) == VERSIONS[:-1]
    assert list(migrate.apply(project.dsn())) == VERSIONS[-1:]


def test_two_migrations_at_once_wait_for_each_other_and_say_so(
    project: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_GIVE_UP_AFTER", 0)
    with psycopg.connect(project.dsn()) as first:
        first.execute(migrate.files()[0].read_bytes())
        with pytest.raises(
            Transient, match=rf"The database is locked by .* process {first.info.backend_pid} "
        ):
            list(migrate.apply(project.dsn()))


def test_the_command_says_that_it_waits(project: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    plant(project, "55P03", 1)
    waited = CliRunner().invoke(cli, ["migrate"], env={"SUPABASE_DB_URL": project.dsn()})
    assert (waited.exit_code, waited.stdout.count("Applied")) == (0, len(VERSIONS))
    [line] = waited.stderr.splitlines()
    assert "create policy" in line
    assert "Trying again, for 10 minutes at most; 0 s so far." in line
