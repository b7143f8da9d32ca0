"""Migrating: over a database URL, or as files beside the app's own."""

from pathlib import Path

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
