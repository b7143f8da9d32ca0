"""The migrations, pushed or applied over a URL: to projects old and new, twice, at once, with something in the way."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from tests.support.database import MIGRATIONS, Database, Worker, migrate, schema
from tests.support.waiting import PATIENCE
from watcher.cli import cli
from watcher.errors import Misconfigured, Transient
from watcher.migrate import apply, copy, files

pytestmark = pytest.mark.postgres

VERSIONS = [file.name.partition("_")[0] for file in MIGRATIONS]
in_each_project = pytest.mark.parametrize("auto_expose", [False, True], ids=["new project", "old project"])


def versions(project: Database) -> list[str]:
    return [row["version"] for row in project.run("select version from watcher.migrations order by version")]


def published(database: Database) -> set[str]:
    rows = database.run(
        "select schemaname || '.' || tablename as name from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    return {row["name"] for row in rows}


def test_the_program_has_the_files_and_they_are_named_as_the_cli_of_supabase_wants_them() -> None:
    assert [file.name for file in files()] == [file.name for file in MIGRATIONS]
    assert all(len(version) == 14 and version.isdigit() for version in VERSIONS)


@in_each_project
def test_each_file_records_its_version_and_a_second_time_changes_nothing(project: Database) -> None:
    assert list(apply(project.dsn())) == versions(project) == VERSIONS
    [answer] = project.run("select public.watcher_version() as version", role="service_role")
    assert answer["version"]["schema"] == VERSIONS[-1]
    identity = project.insert(project.user())
    Worker(project).claim_one()
    before = schema(project), project.row(identity), project.run("select * from watcher.migrations")
    migrate(project.dsn())
    assert list(apply(project.dsn())) == []
    assert (schema(project), project.row(identity), project.run("select * from watcher.migrations")) == before


def test_what_was_pushed_is_not_applied_again(project: Database) -> None:
    migrate(project.dsn(), MIGRATIONS[:1])
    assert list(apply(project.dsn())) == VERSIONS[1:]


@in_each_project
def test_each_file_can_run_again_by_itself_in_any_order(project: Database) -> None:
    migrate(project.dsn())
    before = schema(project)
    for file in reversed(MIGRATIONS):
        migrate(project.dsn(), [file])
    assert schema(project) == before


@in_each_project
def test_two_migrations_at_once_do_no_harm(project: Database) -> None:
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(migrate, project.dsn()) for _ in range(4)]:
            done.result(PATIENCE)
    assert versions(project) == VERSIONS
    project.insert(project.user())


@in_each_project
def test_all_files_in_one_transaction_work_too(project: Database) -> None:
    with psycopg.connect(project.dsn()) as connection:
        for file in MIGRATIONS:
            connection.execute(file.read_bytes())
    project.insert(project.user())


@in_each_project
def test_a_table_in_the_way_stops_the_migration_which_says_how_to_move_it_aside(project: Database) -> None:
    project.run("create table public.trained_identities (id bigint primary key, name text)")
    project.run("insert into public.trained_identities values (1, 'Ada')")
    before = schema(project)
    remedy = "alter table public.trained_identities rename to trained_identities_before_watcher;"
    with pytest.raises(psycopg.errors.DuplicateTable) as error:
        migrate(project.dsn())
    assert error.value.diag.message_primary == (
        "The table public.trained_identities exists already, so nothing was changed: "
        f'move it aside with "{remedy}", then migrate again.'
    )
    for file in MIGRATIONS[1:]:
        with pytest.raises(psycopg.Error):
            migrate(project.dsn(), [file])
    with pytest.raises(Misconfigured) as said:
        list(apply(project.dsn()))
    assert (remedy in str(said.value), "\n" in str(said.value)) == (True, False)
    assert schema(project) == before
    project.run(remedy)
    migrate(project.dsn())
    project.insert(project.user())
    assert project.run("select * from trained_identities_before_watcher") == [{"id": 1, "name": "Ada"}]


def test_a_migration_that_is_refused_is_named(project: Database) -> None:
    project.run("create schema watcher")
    project.run("create function watcher.name_error(name text) returns text language sql return name")
    with pytest.raises(Misconfigured, match=rf"^{VERSIONS[0]}_\w+\.sql failed and was rolled back: .*exists"):
        list(apply(project.dsn()))


@in_each_project
@pytest.mark.parametrize("done", range(1, len(MIGRATIONS)))
def test_nothing_is_open_before_the_last_migration_has_run(project: Database, done: int) -> None:
    migrate(project.dsn(), MIGRATIONS[:done])
    for role in ("anon", "authenticated", "service_role"):
        assert not project.value("select has_schema_privilege(%s, 'watcher', 'usage')", [role])
        functions = """
            select oid::regprocedure from pg_proc
            where pronamespace = 'public'::regnamespace and has_function_privilege(%s, oid, 'execute')
        """
        assert project.run(functions, [role]) == []
    unguarded = """
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and not relrowsecurity
    """
    assert (
        project.run(unguarded) == project.run("select * from pg_policies where schemaname = 'public'") == []
    )


@in_each_project
def test_both_tables_are_published_and_nothing_private_is(project: Database) -> None:
    migrate(project.dsn())
    assert published(project) == {"public.trained_identities", "public.watcher_pulse"}


@in_each_project
def test_a_project_that_publishes_other_tables_keeps_them(project: Database) -> None:
    project.run("create table public.messages (id bigint primary key)")
    project.run("alter publication supabase_realtime add table public.messages")
    migrate(project.dsn())
    assert published(project) == {"public.messages", "public.trained_identities", "public.watcher_pulse"}


@in_each_project
def test_a_missing_publication_is_made(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    migrate(project.dsn())
    assert published(project) == {"public.trained_identities", "public.watcher_pulse"}


@in_each_project
def test_a_publication_of_all_tables_is_left_as_it_is(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    project.run("create publication supabase_realtime for all tables", role="supabase_admin")
    migrate(project.dsn())
    assert {"public.trained_identities", "public.watcher_pulse"} <= published(project)
    assert project.value("select puballtables from pg_publication")


@in_each_project
def test_a_publication_of_the_schema_public_is_added_to(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    project.run("create publication supabase_realtime for tables in schema public", role="supabase_admin")
    project.run("alter publication supabase_realtime owner to postgres", role="supabase_admin")
    try:
        migrate(project.dsn())
    except psycopg.errors.InsufficientPrivilege:
        pytest.fail("the migration asked for what only a superuser may do")
    assert {"public.trained_identities", "public.watcher_pulse"} <= published(project)


@in_each_project
def test_a_bucket_that_was_there_is_closed(project: Database) -> None:
    project.run(
        "insert into storage.buckets (id, name, public) values ('identity-images', 'identity-images', true)",
        role="supabase_admin",
    )
    migrate(project.dsn())
    [bucket] = project.run("select * from storage.buckets", role="supabase_admin")
    assert (bucket["public"], bucket["file_size_limit"]) == (False, 20971520)
    assert bucket["allowed_mime_types"] == ["image/jpeg", "image/png", "image/jpg", "image/pjpeg"]


@in_each_project
def test_deletions_of_accounts_and_rescues_find_what_they_need_by_an_index(project: Database) -> None:
    migrate(project.dsn())
    unindexed = project.run("""
        select c.conrelid::regclass as table, c.conname
        from pg_constraint c join pg_class t on t.oid = c.conrelid
        where c.contype = 'f' and t.relnamespace in ('public'::regnamespace, 'watcher'::regnamespace)
          and not exists (
            select from pg_index i
            where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1] and i.indpred is null
          )
    """)
    assert unindexed == []


# Without a database, or with what is no database of ours.


def test_a_database_that_is_away_may_be_there_later() -> None:
    with pytest.raises(Transient, match="could not be reached"):
        list(apply("postgresql://postgres:pass@127.0.0.1:9/postgres"))


@pytest.mark.parametrize("url", ["postgres:hush@host/postgres", "https://abc.supabase.co?password=hush"])
def test_what_is_no_database_url_is_said_without_repeating_it(url: str) -> None:
    with pytest.raises(Misconfigured, match="SUPABASE_DB_URL") as caught:
        list(apply(url))
    assert "hush" not in str(caught.value)


def test_the_files_go_beside_the_apps_own_and_are_written_once(tmp_path: Path) -> None:
    (tmp_path / "20250101000000_app.sql").write_text("select 1;")
    assert [file.name for file in copy(tmp_path)] == [file.name for file in files()]
    assert (tmp_path / files()[0].name).read_bytes() == files()[0].read_bytes()
    assert copy(tmp_path) == []
    assert (tmp_path / "20250101000000_app.sql").read_text() == "select 1;"


def test_a_copy_that_was_changed_is_never_written_over(tmp_path: Path) -> None:
    copy(tmp_path)
    changed = tmp_path / files()[0].name
    changed.write_text("-- ours now")
    with pytest.raises(Misconfigured, match="differs from the migration of that name"):
        copy(tmp_path)
    assert changed.read_text() == "-- ours now"


def test_a_folder_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="There is no folder"):
        copy(tmp_path / "supabase" / "migratoins")


def test_the_command_says_what_it_did(project: Database, tmp_path: Path) -> None:
    over_url = {"SUPABASE_DB_URL": project.dsn()}
    first = CliRunner().invoke(cli, ["migrate"], env=over_url)
    assert (first.exit_code, first.output.splitlines()) == (0, [f"Applied {version}" for version in VERSIONS])
    again = CliRunner().invoke(cli, ["migrate"], env=over_url)
    assert (again.exit_code, "Nothing to do" in again.output) == (0, True)
    into = CliRunner().invoke(cli, ["migrate", "--into", str(tmp_path)])
    assert (into.exit_code, into.output.count("Wrote ")) == (0, len(VERSIONS))
