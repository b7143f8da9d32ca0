"""Wrong settings end with one sentence and 78; a service that is away does not end anything."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.person import Person
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage
from tests.checks.photos.judging import judged
from tests.support.database import migrate
from tests.support.hostile import a_phones_photo
from tests.support.pictures import jpeg
from tests.support.waiting import PATIENCE
from tests.support.watching import Manager
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer
from watcher.sandbox.hub.access import User


def _sentence(stage: Stage, *, without: str = "", **settings: str) -> str:
    """Run with these settings and see it end with one line, which has no secret in it."""
    given = {
        **stage.settings,
        "WATCHER_SPOOL": str(stage.folder / "spool"),
        "WATCHER_INSTANCE": "settings",
        **settings,
    }
    given.pop(without, None)
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "run"],
        env=environment(given, stage.folder),
        cwd=stage.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    for secret in (stage.secret_key, stage.token):
        assert secret not in done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 1, done.stderr
    assert said[0].startswith("watcher: ")
    assert said[0].endswith((".", ")"))
    return said[0]


def test_a_setting_that_is_missing_is_named(stage: Stage) -> None:
    for name in ("SUPABASE_URL", "HF_TOKEN"):
        assert f"{name} is not set" in _sentence(stage, without=name)
    assert "SUPABASE_SECRET_KEY is not set" in _sentence(stage, without="SUPABASE_SECRET_KEY")


def test_all_problems_are_named_at_once(stage: Stage) -> None:
    said = _sentence(
        stage, SUPABASE_URL="example.com", WATCHER_SLOTS="0", HF_NAMESPACE="a/b", without="HF_TOKEN"
    )
    for name in ("SUPABASE_URL", "WATCHER_SLOTS", "HF_NAMESPACE", "HF_TOKEN"):
        assert name in said


def test_a_key_that_is_not_the_secret_one_is_told_apart(stage: Stage) -> None:
    publishable = _sentence(stage, SUPABASE_SECRET_KEY=stage.public_key)
    assert "SUPABASE_SECRET_KEY" in publishable
    assert "secret key" in publishable
    wrong = _sentence(stage, SUPABASE_SECRET_KEY="sb_secret_nobody")
    assert "Supabase" in wrong
    assert "key" in wrong


def test_the_legacy_keys_are_told_apart_too(stage: Stage, sandbox: Sandbox) -> None:
    said = _sentence(stage, SUPABASE_SECRET_KEY=sandbox.keys.anon_jwt)
    assert "secret key" in said
    assert "Supabase" in _sentence(stage, SUPABASE_SECRET_KEY=sandbox.keys.service_role_jwt[:-3] + "abc")


def test_the_legacy_service_role_key_works(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    del stage.settings["SUPABASE_SECRET_KEY"]
    try:
        with Watcher(stage, SUPABASE_SERVICE_ROLE_KEY=sandbox.keys.service_role_jwt) as watcher:
            watcher.ready()
            person.wait_for(person.insert(), "published")
            assert sandbox.keys.service_role_jwt not in watcher.text
            watcher.stop()
    finally:
        stage.settings["SUPABASE_SECRET_KEY"] = sandbox.keys.secret


def test_a_token_that_the_hub_does_not_know_is_told(stage: Stage) -> None:
    said = _sentence(stage, HF_TOKEN="hf_nobody")
    assert "Hub" in said
    assert "token" in said


def test_a_token_or_a_namespace_that_cannot_be_written_with_is_told(stage: Stage, sandbox: Sandbox) -> None:
    users = sandbox.hub.access._users
    users["hf_read"] = User(sandbox.hub_user, "read")
    users["hf_fine"] = User(sandbox.hub_user, "fineGrained", ("repo.content.read",))
    users["hf_reader"] = User(sandbox.hub_user, orgs={"acme": "read"})
    assert "write" in _sentence(stage, HF_TOKEN="hf_read")
    assert "HF_NAMESPACE is somebody" in _sentence(stage, HF_NAMESPACE="somebody")


@pytest.fixture(scope="module")
def bare(postgres: Postgres) -> Iterator[Sandbox]:
    """A project without our migrations."""
    with Sandbox(postgres=postgres) as running:
        yield running


def test_a_database_without_the_migrations_is_told_the_remedy_and_used_once_it_has_them(
    stage: Stage, sandbox: Sandbox, bare: Sandbox
) -> None:
    with Watcher(stage, **bare.settings()) as watcher:
        assert "run `watcher migrate`" in watcher.wait_for("unreachable")["reason"]
        migrate(bare.db_url)
        watcher.ready()
        watcher.stop()


def test_the_service_manager_shows_why_it_ended(stage: Stage) -> None:
    with Manager() as manager:
        said = _sentence(stage, HF_TOKEN="hf_nobody", NOTIFY_SOCKET=manager.address)
        assert manager.wait_for("STATUS=The Hub refused the token").line[7:] in said
        manager_told = [message.line for message in manager.told("READY")]
    assert manager_told == []


def test_a_schema_that_is_too_old_or_too_new_is_told(stage: Stage, sandbox: Sandbox) -> None:
    stage.sql("delete from watcher.migrations where version = '20261122100300'")
    try:
        assert "run `watcher migrate`" in _sentence(stage)
    finally:
        stage.sql("insert into watcher.migrations values ('20261122100300')")


def test_a_spool_that_cannot_be_written_to_is_told(stage: Stage) -> None:
    (stage.folder / "file").touch()
    assert "WATCHER_SPOOL" in _sentence(stage, WATCHER_SPOOL=str(stage.folder / "file"))
    assert "WATCHER_SPOOL" in _sentence(stage, WATCHER_SPOOL="/proc/nowhere")


def test_a_second_run_of_the_same_instance_ends_and_leaves_the_first_alone(
    stage: Stage, person: Person
) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        said = _sentence(stage, WATCHER_INSTANCE=watcher.instance, WATCHER_SPOOL=str(watcher.spool.parent))
        assert "WATCHER_INSTANCE" in said
        person.wait_for(person.insert(), "published")
        watcher.stop()


def test_a_supabase_that_is_away_at_the_start_is_waited_for(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    photos = [jpeg(seed=n) for n in range(3)]
    identity = person.insert("Ada", [person.upload(photo) for photo in photos])
    away = sandbox.faults.add(Answer(503, "away"), service="rest", path="/rpc/", times=None)
    with Watcher(stage) as watcher:
        watcher.wait_for("unreachable")
        away.wait_reached(count=2)
        sandbox.faults.remove(away)
        audit(stage, person.wait_for(identity, "published"), photos)
        assert len(watcher.said("unreachable")) == 1
        watcher.stop()


@pytest.mark.parametrize("metadata", ["clean", "keep"])
def test_photos_are_published_without_their_metadata_or_as_they_came(
    stage: Stage, person: Person, metadata: str
) -> None:
    photos = [a_phones_photo(), jpeg(seed=1), jpeg(seed=2)]
    with Watcher(stage, WATCHER_METADATA=metadata) as watcher:
        row = person.wait_for(person.insert("Ada", [person.upload(photo) for photo in photos]), "published")
        watcher.stop()
    published, _ = judged(photos[0])
    assert published is not None
    assert len(published) < len(photos[0]) / 2
    files = audit(stage, row, [photos[0] if metadata == "keep" else published, *photos[1:]])
    card = files["README.md"].decode()
    assert ("including their metadata" in card) == (metadata == "keep")


@pytest.mark.parametrize("name", ["SUPABASE_URL", "HF_ENDPOINT"])
def test_a_service_where_nobody_listens_is_waited_for_until_told_to_stop(stage: Stage, name: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Watcher(stage, **{name: f"http://127.0.0.1:{nobody.getsockname()[1]}"}) as watcher:
            watcher.wait_for("unreachable")
            time.sleep(1.5)
            assert watcher.process.poll() is None
            assert len(watcher.said("unreachable")) == 1
            watcher.stop()


def test_a_hub_that_is_away_at_the_start_is_waited_for(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    identity = person.insert()
    away = sandbox.faults.add(Answer(503), service="hub", times=None)
    with Watcher(stage) as watcher:
        watcher.wait_for("unreachable")
        assert person.row(identity)["status"] == "pending"
        sandbox.faults.remove(away)
        person.wait_for(identity, "published")
        watcher.stop()
