"""The migrations themselves: on projects old and new, twice, at once, and where something is in the way."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.database import MIGRATIONS, Database, Row, Worker, migrate
from tests.support.waiting import PATIENCE

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("auto_expose", [False, True], ids=["new project", "old project"]),
]

VERSIONS = [file.name.split("_")[0] for file in MIGRATIONS]


def schema(database: Database) -> list[Row]:
    """Return all that migrations could have changed: objects, their grants and their text."""
    return database.run("""
        select 'class' as kind, c.oid::regclass::text as name, c.relacl::text as grants, c.relrowsecurity::text as text
        from pg_class c where c.relnamespace in (select oid from pg_namespace where nspname !~ '^pg_')
        union all
        select 'column', a.attrelid::regclass || '.' || a.attname, a.attacl::text, a.atttypid::regtype::text
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace in (select oid from pg_namespace where nspname in ('public', 'watcher', 'storage'))
        union all
        select 'function', f.oid::regprocedure::text, f.proacl::text, f.prosrc
        from pg_proc f where f.pronamespace in (select oid from pg_namespace where nspname !~ '^pg_')
        union all
        select 'policy', tablename || '.' || policyname, roles::text, coalesce(qual, '') || coalesce(with_check, '')
        from pg_policies
        union all
        select 'schema', nspname, nspacl::text, '' from pg_namespace where nspname !~ '^pg_'
        union all
        select 'trigger', tgrelid::regclass || '.' || tgname, '', pg_get_triggerdef(oid) from pg_trigger
        union all
        select 'bucket', id, '', '' from storage.buckets
        union all
        select 'publication', pubname || '.' || tablename, '', '' from pg_publication_tables
        order by 1, 2, 3
    """)


def published(database: Database) -> set[str]:
    rows = database.run(
        "select schemaname || '.' || tablename as name from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    return {row["name"] for row in rows}


def test_each_migration_records_its_version(project: Database) -> None:
    migrate(project.dsn())
    assert [
        row["version"] for row in project.run("select version from watcher.migrations order by 1")
    ] == VERSIONS
    [answer] = project.run("select public.watcher_version() as version", role="service_role")
    assert answer["version"]["schema"] == VERSIONS[-1]


def test_a_second_migration_changes_nothing(project: Database) -> None:
    migrate(project.dsn())
    user = project.user()
    identity = project.insert(user)
    Worker(project).claim_one()
    before = schema(project), project.row(identity), project.run("select * from watcher.migrations")
    migrate(project.dsn())
    assert (schema(project), project.row(identity), project.run("select * from watcher.migrations")) == before


def test_each_file_can_run_again_by_itself_in_any_order(project: Database) -> None:
    migrate(project.dsn())
    before = schema(project)
    for file in reversed(MIGRATIONS):
        migrate(project.dsn(), [file])
    assert schema(project) == before


def test_two_migrations_at_once_do_no_harm(project: Database) -> None:
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(migrate, project.dsn()) for _ in range(4)]:
            done.result(PATIENCE)
    assert [
        row["version"] for row in project.run("select version from watcher.migrations order by 1")
    ] == VERSIONS
    project.insert(project.user())


def test_all_files_in_one_transaction_work_too(project: Database) -> None:
    with psycopg.connect(project.dsn()) as connection:
        for file in MIGRATIONS:
            connection.execute(file.read_bytes())
    project.insert(project.user())


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
    assert schema(project) == before
    project.run(remedy)
    migrate(project.dsn())
    project.insert(project.user())
    assert project.run("select * from trained_identities_before_watcher") == [{"id": 1, "name": "Ada"}]


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


def test_both_tables_are_published_and_nothing_private_is(project: Database) -> None:
    migrate(project.dsn())
    assert published(project) == {"public.trained_identities", "public.watcher_pulse"}


def test_a_project_that_publishes_other_tables_keeps_them(project: Database) -> None:
    project.run("create table public.messages (id bigint primary key)")
    project.run("alter publication supabase_realtime add table public.messages")
    migrate(project.dsn())
    assert published(project) == {"public.messages", "public.trained_identities", "public.watcher_pulse"}


def test_a_missing_publication_is_made(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    migrate(project.dsn())
    assert published(project) == {"public.trained_identities", "public.watcher_pulse"}


def test_a_publication_of_all_tables_is_left_as_it_is(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    project.run("create publication supabase_realtime for all tables", role="supabase_admin")
    migrate(project.dsn())
    assert {"public.trained_identities", "public.watcher_pulse"} <= published(project)
    assert project.value("select puballtables from pg_publication")


def test_a_publication_of_the_schema_public_is_added_to(project: Database) -> None:
    project.run("drop publication supabase_realtime")
    project.run("create publication supabase_realtime for tables in schema public", role="supabase_admin")
    project.run("alter publication supabase_realtime owner to postgres", role="supabase_admin")
    try:
        migrate(project.dsn())
    except psycopg.errors.InsufficientPrivilege:
        pytest.fail("the migration asked for what only a superuser may do")
    assert {"public.trained_identities", "public.watcher_pulse"} <= published(project)


def test_a_bucket_that_was_there_is_closed(project: Database) -> None:
    project.run(
        "insert into storage.buckets (id, name, public) values ('identity-images', 'identity-images', true)",
        role="supabase_admin",
    )
    migrate(project.dsn())
    [bucket] = project.run("select * from storage.buckets", role="supabase_admin")
    assert (bucket["public"], bucket["file_size_limit"]) == (False, 20971520)
    assert bucket["allowed_mime_types"] == ["image/jpeg", "image/png"]


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
