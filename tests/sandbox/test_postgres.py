"""The private Postgres: what it is like, its faults, and that it leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.sandbox.project import Project, wait_until
from watcher.sandbox import Sandbox
from watcher.sandbox.postgres import Postgres
from watcher.sandbox.programs import PostgresError, Programs

RUN = """
import sys, time
from pathlib import Path
from watcher.sandbox.postgres import Postgres
postgres = Postgres()
postgres.start()
print(postgres._pid(), postgres._guard.pid, postgres._folder, flush=True)
time.sleep(60)
"""


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module", autouse=True)
def databases(postgres: Postgres) -> Iterator[None]:
    postgres.create("old", auto_expose=True)
    postgres.create("new")
    yield
    postgres.drop("old")
    postgres.drop("new")


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], int, int, Path]]:
    """Run a Postgres in another process: give that, the process ids of server and guard, and the cluster's folder."""
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server, guard, folder = process.stdout.readline().split()
        yield process, int(server), int(guard), Path(folder)
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_it_listens_on_loopback_and_has_logical_replication(postgres: Postgres) -> None:
    assert ask(postgres.dsn(), "select current_user") == "supabase_admin"
    assert ask(postgres.dsn(), "show listen_addresses") == "127.0.0.1"
    assert ask(postgres.dsn(), "show unix_socket_directories") == ""
    assert ask(postgres.dsn(), "show wal_level") == "logical"
    assert ask(postgres.dsn(), "show server_encoding") == "UTF8"


def test_a_wrong_password_is_refused(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(re.sub(":[0-9a-f]{32}@", ":postgres@", postgres.dsn()))
    password = postgres.folder / "password"
    assert (password.read_text() in postgres.dsn(), password.stat().st_mode & 0o077) == (True, 0)


def test_a_copied_database_has_what_its_template_has(postgres: Postgres) -> None:
    postgres.create("template")
    with psycopg.connect(postgres.dsn("template", "postgres")) as connection:
        connection.execute("create table public.copied (id int)")
    postgres.create("copy", "template")
    assert ask(postgres.dsn("copy", "postgres"), "select count(*) from public.copied") == 0
    postgres.drop("template")
    postgres.drop("copy")
    postgres.drop("copy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres.dsn("copy"))


def test_a_database_is_dropped_with_its_slots_and_connections(postgres: Postgres) -> None:
    postgres.create("busy")
    with psycopg.connect(postgres.dsn("busy"), autocommit=True) as connection:
        connection.execute("select pg_create_logical_replication_slot('slot', 'pgoutput')")
        postgres.drop("busy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    assert ask(postgres.dsn(), "select count(*) from pg_replication_slots") == 0


def test_a_second_bootstrap_changes_nothing(postgres: Postgres) -> None:
    postgres.bootstrap("old")
    assert ask(postgres.dsn("old"), "select count(*) from pg_publication") == 1


def test_the_role_postgres_is_no_superuser_and_owns_the_database(postgres: Postgres) -> None:
    url = postgres.dsn("new", "postgres")
    attributes = "select (rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication)::text"
    assert ask(url, f"{attributes} from pg_roles where rolname = current_user") == "(f,t,t,t,t)"
    assert ask(url, "select pg_get_userbyid(datdba) from pg_database where datname = 'new'") == "postgres"
    with psycopg.connect(url) as connection:
        connection.execute("create table public.watched (id int primary key)")
        connection.execute("alter publication supabase_realtime add table public.watched")
        connection.execute("create table public.mine (id uuid references auth.users (id) on delete cascade)")


def test_api_roles_are_what_they_are_on_supabase(postgres: Postgres) -> None:
    query = """
        select jsonb_object_agg(rolname, array[rolcanlogin, rolinherit, rolbypassrls]) from pg_roles
        where rolname in ('anon', 'authenticated', 'service_role', 'authenticator')
    """
    assert ask(postgres.dsn(), query) == {
        "anon": [False, False, False],
        "authenticated": [False, False, False],
        "service_role": [False, False, True],
        "authenticator": [True, False, False],
    }
    assert ask(postgres.dsn("new", "authenticator"), "show statement_timeout") == "8s"
    assert ask(postgres.dsn("new", "authenticator"), "show lock_timeout") == "8s"


def test_a_migration_may_add_policies_on_objects_and_buckets_and_change_nothing_else_of_storage(
    postgres: Postgres,
) -> None:
    refused = [
        "alter table storage.objects add column mine int",
        "create index mine on storage.objects (owner)",
        "drop table storage.objects",
        "drop function storage.foldername",
        "create table storage.mine (id int)",
        "alter table auth.users add column mine int",
        "create table auth.mine (id int)",
        "delete from storage.buckets",
    ]
    with psycopg.connect(postgres.dsn("new", "postgres"), autocommit=True) as connection:
        connection.execute("create policy mine on storage.objects for select to authenticated using (true)")
        connection.execute("alter policy mine on storage.objects using (owner_id = auth.uid()::text)")
        connection.execute("drop policy mine on storage.objects")
        connection.execute("insert into storage.buckets (id, name) values ('mine', 'mine')")
        for statement in refused:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.parametrize(("database", "exposed"), [("old", True), ("new", False)])
def test_only_an_old_project_exposes_new_tables_by_itself(
    postgres: Postgres, database: str, exposed: bool
) -> None:
    with psycopg.connect(postgres.dsn(database, "postgres"), autocommit=True) as connection:
        connection.execute("create table public.fresh (id serial)")
    for role in ("anon", "authenticated", "service_role"):
        for right in ("select", "insert", "update", "delete"):
            query = f"select has_table_privilege('{role}', 'public.fresh', '{right}')"
            assert ask(postgres.dsn(database), query) is exposed
        # Both kinds grant this, which is why migrations revoke everything.
        assert ask(
            postgres.dsn(database), f"select has_table_privilege('{role}', 'public.fresh', 'truncate')"
        )


def test_storage_has_its_functions_for_paths(postgres: Postgres) -> None:
    url = postgres.dsn("new", "postgres")
    assert ask(url, "select storage.foldername('a/b/c.tar.gz')") == ["a", "b"]
    assert ask(url, "select storage.foldername('c')") == []
    assert ask(url, "select storage.filename('a/b/c.tar.gz')") == "c.tar.gz"
    assert ask(url, "select storage.extension('a/b/c.tar.gz')") == "gz"


def test_a_halted_server_comes_back_on_its_port_with_what_was_committed() -> None:
    with Postgres() as postgres:
        port = postgres.port
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute("create table kept (id int)")
            postgres.halt()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.dsn())
        postgres.start()
        postgres.restart()
        assert postgres.port == port
        assert ask(postgres.dsn(), "select count(*) from kept") == 0


@pytest.fixture(scope="module")
def own() -> Iterator[Project]:
    """Give a sandbox whose Postgres no other test uses."""
    with Sandbox() as sandbox:
        project = Project(sandbox._postgres, "postgres", sandbox)
        project.control("postgres_start")  # starts the thread in which actions run
        yield project


FAULTS = [
    ("postgres_kill", {}, psycopg.errors.AdminShutdown),
    ("postgres_kill", {"name": "victim"}, psycopg.errors.AdminShutdown),
    ("postgres_restart", {}, psycopg.OperationalError),
    ("postgres_down", {"seconds": 0.3}, psycopg.OperationalError),
]


@pytest.mark.parametrize(("action", "fields", "kind"), FAULTS)
def test_a_fault_ends_a_connection_and_a_new_one_finds_what_was_committed(
    own: Project, action: str, fields: dict[str, Any], kind: type[psycopg.Error]
) -> None:
    with psycopg.connect(own.sandbox.db_url, application_name="victim") as connection:
        connection.execute("create table if not exists public.kept (id int)")
        connection.execute("insert into public.kept values (1)")
        connection.commit()
        connection.execute("insert into public.kept values (2)")
        own.control(action, **fields)
        with pytest.raises(kind):
            connection.execute("select 1")
    assert ask(own.sandbox.db_url, "select count(*) from public.kept where id = 2") == 0
    assert ask(own.sandbox.db_url, "select min(id) from public.kept") == 1


def test_only_connections_of_the_named_application_are_killed(own: Project) -> None:
    with psycopg.connect(own.sandbox.db_url, application_name="bystander") as bystander:
        with psycopg.connect(own.sandbox.db_url, application_name="victim") as victim:
            assert own.control("postgres_kill", name="victim") == 1
            with pytest.raises(psycopg.errors.AdminShutdown):
                victim.execute("select 1")
        assert bystander.execute("select 1").fetchone() == (1,)


def test_it_refuses_connections_while_it_is_down_and_comes_back_by_itself(own: Project) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(own.control, "postgres_down", seconds=1)
        seen = False
        while not asked.done():
            seen = seen or refused(own.sandbox.db_url)
    assert seen
    assert ask(own.sandbox.db_url, "select 1") == 1


def test_it_is_down_from_halt_to_start(own: Project) -> None:
    own.control("postgres_halt")
    try:
        assert refused(own.sandbox.db_url)
    finally:
        own.control("postgres_start")
    assert ask(own.sandbox.db_url, "select 1") == 1


def refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "Connection refused" in str(error)
    return False


def test_stop_deletes_a_temporary_cluster_and_leaves_a_kept_one(data: Path) -> None:
    for kept in (None, data):
        postgres = Postgres(kept)
        postgres.start()
        folder, server = postgres._folder, postgres._pid()
        assert folder is not None
        assert server is not None
        postgres.stop()
        assert ended(server)
        assert folder.exists() is (kept is not None)
    assert (data / "postgres" / "cluster" / "PG_VERSION").exists()


def test_a_kept_cluster_has_its_data_again_and_writes_durably(data: Path) -> None:
    with Postgres(data) as postgres, psycopg.connect(postgres.dsn()) as connection:
        connection.execute("create table kept as select 7 as id")
    with Postgres(data) as postgres:
        assert ask(postgres.dsn(), "select id from kept") == 7
        assert ask(postgres.dsn(), "show fsync") == "on"


def test_a_cluster_whose_password_is_not_kept_is_refused_in_a_sentence(data: Path) -> None:
    with Postgres(data):
        pass
    (data / "postgres" / "password").unlink()
    with pytest.raises(PostgresError, match="delete the folder"):
        Postgres(data).start()


def test_a_second_server_on_the_same_data_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.sandbox.postgres._PREDECESSOR_SECONDS", 0.1)
    with Postgres(data) as first:
        with pytest.raises(PostgresError, match="Another sandbox"):
            Postgres(data).start()
        assert ask(first.dsn(), "select 1") == 1


def test_the_error_names_a_port_that_is_taken(postgres: Postgres) -> None:
    with pytest.raises(PostgresError, match=f"did not start on port {postgres.port}.*could not bind"):
        Postgres(port=postgres.port).start()


def test_it_ends_when_its_parent_is_killed_and_leaves_no_folder(
    child: tuple[subprocess.Popen[str], int, int, Path],
) -> None:
    parent, server, guard, folder = child
    parent.kill()
    wait_until(lambda: ended(server) and ended(guard))
    assert not folder.exists()


def test_it_ends_when_its_guard_is_killed(child: tuple[subprocess.Popen[str], int, int, Path]) -> None:
    _, server, guard, _ = child
    os.kill(guard, signal.SIGKILL)
    wait_until(lambda: ended(server))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_as_root_it_runs_as_nobody_and_links_programs_out_of_reach() -> None:
    private = Path("/root/.watcher-test") / str(os.getpid())
    package = Programs(None).bindir.parents[1]
    try:
        for tree in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(tree, private / tree.name, copy_function=os.link)
        with Postgres(bindir=private / package.name / "pginstall" / "bin") as postgres:
            assert Path(f"/proc/{postgres._pid()}").owner() == "nobody"
            assert ask(postgres.dsn(), "select 1") == 1
    finally:
        shutil.rmtree(private.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")
def test_the_error_names_a_data_folder_that_nobody_cannot_enter(data: Path) -> None:
    shut = data / "shut"
    shut.mkdir(mode=0o700)
    with pytest.raises(PostgresError, match=f"who cannot enter {shut}: choose another folder"):
        Postgres(shut).start()
