"""What docs/operating.md says under "Changing something", but for commands that have tests of their own."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.support.database import Database, Worker
from tests.support.deprecations import CONTENT
from tests.support.scene import Scene, carry
from tests.support.waiting import PATIENCE
from watcher.engine.attempt import Attempts
from watcher.operator.doctor import drift
from watcher.sandbox import Postgres
from watcher.supabase.verbs import Verbs

pytestmark = CONTENT

PAGE = Path(__file__).parents[2] / "docs/operating.md"
TABLES = [
    name.partition(" ")[2] for name in drift.load_expected()["definitions"] if name.startswith("table ")
]


def back_up(scene: Scene) -> None:
    """Copy every table of ours."""
    with psycopg.connect(scene.database.dsn("postgres"), autocommit=True) as connection:
        connection.execute("create schema backup")
        for number, table in enumerate(TABLES):
            connection.execute(f"create table backup.t{number} as table {table}".encode())


def restore(scene: Scene) -> None:
    """Put the copies in the place of what is there, with triggers off as a restore does."""
    with psycopg.connect(scene.database.dsn("supabase_admin")) as connection:
        connection.execute("set session_replication_role = replica")
        for number, table in enumerate(TABLES):
            connection.execute(f"delete from {table}".encode())
            connection.execute(f"insert into {table} overriding system value table backup.t{number}".encode())
        connection.execute("drop schema backup cascade")


async def test_a_row_that_was_published_after_the_backup_finds_its_repo_again(
    scene: Scene, verbs: Verbs, attempts: Attempts
) -> None:
    identity = scene.insert(name="Ada")
    back_up(scene)
    await carry(attempts, verbs)
    before = scene.database.row(identity)
    restore(scene)
    assert scene.database.status(identity) == "pending"
    scene.sandbox.faults.reset()
    for _ in range(2):
        await carry(attempts, verbs)
        scene.database.pass_time(60)
    after = scene.database.row(identity)
    assert after["status"] == "published"
    assert (after["model_id"], after["commit_sha"]) == (before["model_id"], before["commit_sha"])
    assert scene.repos() == [before["model_id"]]
    assert scene.seen("PUT", "/_lfs/") == scene.seen("POST", "/commit/") == []


def test_rows_and_history_move_to_another_project_with_the_commands_of_the_page(
    database: Database, postgres: Postgres, template: Callable[[bool], str], tmp_path: Path
) -> None:
    user = database.user()
    published, waiting = database.insert(user), database.insert(user)
    database.run(
        "update watcher.training_settings set usd_a_day = 12.5, flavor = 'a100-large', prompts = '{A}'"
    )
    worker = Worker(database)
    worker.complete(first := worker.claim_one())
    name = "moved"
    postgres.create(name, template(False))
    other = Database(postgres, name)
    try:
        other.run("insert into auth.users (id) values (%s)", [user])
        other.store(database.row(published)["image_paths"] + database.row(waiting)["image_paths"])
        [commands] = re.findall(r"```bash\n( +pg_dump .*?)```", PAGE.read_text(), re.DOTALL)
        urls = {"OLD_DB_URL": database.dsn("postgres"), "NEW_DB_URL": other.dsn("supabase_admin")}
        programs = f"{postgres._programs.bindir}:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "-euc", commands], env={"PATH": programs, **urls}, cwd=tmp_path,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [other.status(row) for row in (published, waiting)] == ["published", "pending"]
        assert other.row(published) == database.row(published)
        settings = "select * from watcher.training_settings"
        assert other.run(settings) == database.run(settings)
        there = Worker(other)
        second = there.claim_one()
        assert second > first
        there.complete(second)
        assert other.outcomes(waiting) == ["published"]
        assert other.outcomes(published) == ["published"]
    finally:
        other.close()
        postgres.drop(name)
