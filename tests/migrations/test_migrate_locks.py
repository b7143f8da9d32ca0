"""Migrating beside a busy app: nobody waits long for it, and it waits for locks as long as it must."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from tests.support.database import Database
from watcher import migrate
from watcher.cli import cli
from watcher.errors import Transient

VERSIONS = [file.name.partition("_")[0] for file in migrate.files()]


def versions(project: Database) -> list[str]:
    return [row["version"] for row in project.run("select version from watcher.migrations order by version")]


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
        # Whoever is asked for the holder may be refused a lock, too, for a moment.
        while not any("is locked by" in wait for wait in waits):
            assert not migrated.done()
            time.sleep(0.01)
        reader.rollback()
        assert migrated.result() == VERSIONS
    assert 'for: create policy "Users read their own identity images" on storage.objects.' in waits[0]
    holder = r"storage\.objects is locked by the transaction of process \d+ \(role supabase_admin, a report, .*for \d+ s"
    assert any(re.search(holder, wait) for wait in waits)


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
