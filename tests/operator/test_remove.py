"""`watcher migrate --remove` takes out what the migrations made, and nothing else."""

import pytest

from tests.operator.commands import migrate as command
from tests.operator.commands import sql
from tests.support.database import Database, Worker, schema
from watcher import migrate
from watcher.errors import Misconfigured, Transient
from watcher.operator.remove import Plan, remove


@pytest.fixture
def url(project: Database) -> str:
    return project.dsn("postgres")


def test_what_the_migrations_made_is_gone_and_they_work_again(project: Database, url: str) -> None:
    before = schema(project)
    for _ in range(2):
        versions = list(migrate.apply(url))
        assert len(versions) == len(migrate.files())
        Worker(project).call("version")
        done = command(url, "--remove", "--yes")
        assert done.exit_code == 0, done.output
        assert "- the table public.trained_identities (0 rows)" in done.output
        assert "- the bucket identity-images, which is empty" in done.output
        assert schema(project) == before
    again = command(url, "--remove", "--yes")
    assert (again.exit_code, again.output) == (0, "Nothing was removed.\n")


def test_photos_and_what_the_app_has_added_stay(project: Database, url: str) -> None:
    list(migrate.apply(url))
    sql(url, "create function public.watcher_of_mine() returns integer language sql as 'select 1'")
    project.insert(project.user())
    done = command(url, "--remove", "--yes", "--force")
    assert "- the bucket identity-images, which has 3 files" in done.output
    assert "- the table public.trained_identities (1 row)" in done.output
    assert project.value("select public.watcher_of_mine()") == 1
    assert project.value("select count(*) from storage.objects") == 3
    assert project.value(
        "select to_regnamespace('watcher') is null and to_regclass('public.watcher_pulse') is null"
    )
    assert len(list(migrate.apply(url))) == len(migrate.files())


def test_it_is_refused_while_daemons_run_or_erasures_are_open(project: Database, url: str) -> None:
    list(migrate.apply(url))
    row = project.insert(user := project.user())
    Worker(project, "attic").claim(0)
    running = command(url, "--remove", "--yes")
    assert isinstance(running.exception, Transient)
    assert "heard within the last 30 s: attic; stop them first" in str(running.exception)
    project.pass_time(31)
    project.run("delete from public.trained_identities where id = %s", [row], role="authenticated", user=user)
    waiting = command(url, "--remove", "--yes")
    assert isinstance(waiting.exception, Transient)
    assert "1 erasure open" in str(waiting.exception)
    assert "--force does it anyway" in str(waiting.exception)
    assert project.value("select to_regnamespace('watcher') is not null")


def test_what_the_app_hangs_on_our_table_stops_it(project: Database, url: str) -> None:
    list(migrate.apply(url))
    sql(url, "create view public.finished as select id from public.trained_identities")
    stopped = command(url, "--remove", "--yes")
    assert isinstance(stopped.exception, Misconfigured)
    assert "view finished depends on table trained_identities" in str(stopped.exception)
    assert project.value("select to_regprocedure('public.watcher_version()') is not null")


def test_nothing_is_removed_unless_it_is_wanted(project: Database, url: str) -> None:
    list(migrate.apply(url))
    assert command(url, "--remove").exit_code == 2
    assert command(url, "--remove", "--repair", "--yes").exit_code == 2
    assert command(url, "--force").exit_code == 2
    told: list[Plan] = []

    def refuse(planned: Plan) -> bool:
        told.append(planned)
        return False

    assert not remove(url, force=False, confirm=refuse)
    assert "the table public.trained_identities (0 rows)" in told[0].removed
    assert project.value("select to_regnamespace('watcher') is not null")
