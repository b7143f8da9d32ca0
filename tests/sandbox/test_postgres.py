"""The private Postgres: what it is when it runs, and that nothing of it is left when it does not."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

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


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


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
def data() -> Iterator[Path]:
    """A folder that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], int, int, Path]]:
    """A process that runs a Postgres: itself, the ids of server and guard, the cluster's folder."""
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        server, guard, folder = process.stdout.readline().split()
        yield process, int(server), int(guard), Path(folder)
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_it_serves_loopback_only_and_logical_replication(postgres: Postgres) -> None:
    assert ask(postgres.dsn(), "select current_user") == "supabase_admin"
    assert ask(postgres.dsn(), "show listen_addresses") == "127.0.0.1"
    assert ask(postgres.dsn(), "show unix_socket_directories") == ""
    assert ask(postgres.dsn(), "show wal_level") == "logical"
    assert ask(postgres.dsn(), "show server_encoding") == "UTF8"


def test_a_wrong_password_is_refused(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn().replace(":postgres@", ":guess@"))


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


def test_a_database_is_dropped_with_its_slots_and_its_guests(postgres: Postgres) -> None:
    postgres.create("busy")
    with psycopg.connect(postgres.dsn("busy"), autocommit=True) as guest:
        guest.execute("select pg_create_logical_replication_slot('slot', 'pgoutput')")
        postgres.drop("busy")
        with pytest.raises(psycopg.OperationalError):
            guest.execute("select 1")
    assert ask(postgres.dsn(), "select count(*) from pg_replication_slots") == 0


def test_a_bootstrap_done_before_changes_nothing(postgres: Postgres) -> None:
    postgres.bootstrap("old")
    assert ask(postgres.dsn("old"), "select count(*) from pg_publication") == 1


def test_postgres_is_no_superuser_but_owns_the_database(postgres: Postgres) -> None:
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


def test_a_policy_on_objects_and_a_bucket_are_all_that_a_migration_gets_of_storage(
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
def test_only_an_old_project_opens_new_tables_by_itself(
    postgres: Postgres, database: str, exposed: bool
) -> None:
    with psycopg.connect(postgres.dsn(database, "postgres"), autocommit=True) as connection:
        connection.execute("create table public.fresh (id serial)")
    for role in ("anon", "authenticated", "service_role"):
        for right in ("select", "insert", "update", "delete"):
            query = f"select has_table_privilege('{role}', 'public.fresh', '{right}')"
            assert ask(postgres.dsn(database), query) is exposed
        # Both leave this open, which is why migrations revoke all.
        assert ask(
            postgres.dsn(database), f"select has_table_privilege('{role}', 'public.fresh', 'truncate')"
        )


def test_storage_helpers_take_paths_apart(postgres: Postgres) -> None:
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
def failing() -> Iterator[Sandbox]:
    """A sandbox whose Postgres nobody else uses."""
    with Sandbox() as sandbox:
        # The thread in which it does what it is asked for stays, and is no test's.
        told(sandbox, "postgres_start")
        yield sandbox


def told(sandbox: Sandbox, action: str, **fields: object) -> object:
    """Ask for a fault as another process does: over the control port."""
    answer = httpx.post(f"{sandbox.control_url}/actions/{action}", json=fields, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


FAULTS = [
    ("postgres_kill", {}, psycopg.errors.AdminShutdown),
    ("postgres_kill", {"name": "victim"}, psycopg.errors.AdminShutdown),
    ("postgres_restart", {}, psycopg.OperationalError),
    ("postgres_down", {"seconds": 0.3}, psycopg.OperationalError),
]


@pytest.mark.parametrize(("action", "fields", "kind"), FAULTS)
def test_a_connection_ends_by_a_fault_and_a_new_one_finds_all_that_was_committed(
    failing: Sandbox, action: str, fields: dict[str, Any], kind: type[psycopg.Error]
) -> None:
    with psycopg.connect(failing.db_url, application_name="victim") as connection:
        connection.execute("create table if not exists public.kept (id int)")
        connection.execute("insert into public.kept values (1)")
        connection.commit()
        connection.execute("insert into public.kept values (2)")
        told(failing, action, **fields)
        with pytest.raises(kind):
            connection.execute("select 1")
    assert ask(failing.db_url, "select count(*) from public.kept where id = 2") == 0
    assert ask(failing.db_url, "select min(id) from public.kept") == 1


def test_only_the_application_that_is_named_is_killed(failing: Sandbox) -> None:
    with psycopg.connect(failing.db_url, application_name="bystander") as bystander:
        with psycopg.connect(failing.db_url, application_name="victim") as victim:
            assert told(failing, "postgres_kill", name="victim") == 1
            with pytest.raises(psycopg.errors.AdminShutdown):
                victim.execute("select 1")
        assert bystander.execute("select 1").fetchone() == (1,)


def test_while_it_is_down_nobody_gets_in_and_then_it_is_back_by_itself(failing: Sandbox) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(told, failing, "postgres_down", seconds=1)
        assert eventually(lambda: refused(failing.db_url))
        assert not asked.done()
        asked.result()
    assert ask(failing.db_url, "select 1") == 1


def test_it_is_down_from_one_word_to_the_other(failing: Sandbox) -> None:
    told(failing, "postgres_halt")
    try:
        assert refused(failing.db_url)
    finally:
        told(failing, "postgres_start")
    assert ask(failing.db_url, "select 1") == 1


def refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "Connection refused" in str(error)
    return False


def test_a_temporary_cluster_is_gone_after_stop_and_a_kept_one_is_not(data: Path) -> None:
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


def test_a_kept_cluster_keeps_its_data_and_cares_for_it(data: Path) -> None:
    with Postgres(data) as postgres, psycopg.connect(postgres.dsn()) as connection:
        connection.execute("create table kept as select 7 as id")
    with Postgres(data) as postgres:
        assert ask(postgres.dsn(), "select id from kept") == 7
        assert ask(postgres.dsn(), "show fsync") == "on"


def test_a_second_server_on_the_same_data_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.sandbox.postgres._PREDECESSOR_SECONDS", 0.1)
    with Postgres(data) as first:
        with pytest.raises(PostgresError, match="Another sandbox"):
            Postgres(data).start()
        assert ask(first.dsn(), "select 1") == 1


def test_a_port_that_is_taken_is_said_to_be(postgres: Postgres) -> None:
    with pytest.raises(PostgresError, match=f"did not start on port {postgres.port}.*could not bind"):
        Postgres(port=postgres.port).start()


def test_it_dies_with_a_parent_that_is_killed_and_leaves_no_folder(
    child: tuple[subprocess.Popen[str], int, int, Path],
) -> None:
    parent, server, guard, folder = child
    parent.kill()
    assert eventually(lambda: ended(server) and ended(guard))
    assert not folder.exists()


def test_it_dies_with_a_guard_that_is_killed(child: tuple[subprocess.Popen[str], int, int, Path]) -> None:
    _, server, guard, _ = child
    os.kill(guard, signal.SIGKILL)
    assert eventually(lambda: ended(server))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_as_root_it_runs_as_nobody_and_links_programs_that_nobody_can_reach() -> None:
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_a_data_folder_that_nobody_can_enter_is_refused_in_a_sentence(data: Path) -> None:
    shut = data / "shut"
    shut.mkdir(mode=0o700)
    with pytest.raises(PostgresError, match=f"who cannot enter {shut}: choose another folder"):
        Postgres(shut).start()
