"""Whoever is forgotten is nowhere any more, and what cannot be erased at once goes on by itself and is said once."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.person import Person
from tests.acceptance.places import PHOTOS, at, hold, inserted
from tests.acceptance.repo import orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.acceptance.test_secrets import hub, run
from tests.support.waiting import wait_until
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer

_PATIENTLY = {"Retry-After": "20"}  # longer than an attempt waits, so each one ends at the first answer
_NAME, _FILE = "Zebedee Quill", "quill-at-the-sea.jpg"


def dump(sandbox: Sandbox) -> str:
    """Everything in every table of every schema."""
    tables = "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
    query = sql.SQL("select coalesce(string_agg(t::text, ' '), '') from {} t")
    with psycopg.connect(sandbox.admin_db_url) as connection:
        names = connection.execute(tables).fetchall()
        assert {schema for schema, _ in names} >= {"public", "watcher", "auth", "storage"}
        return "\n".join(
            str(connection.execute(query.format(sql.Identifier(*name))).fetchone()) for name in names
        )


def betrayed(text: str, words: dict[str, str]) -> list[str]:
    """Which of the words a text has, in letters or in the hexadecimal digits of a bytea."""
    folded = text.casefold()
    return [
        what for what, word in words.items() if word.casefold() in folded or word.encode().hex() in folded
    ]


def test_after_forget_neither_database_nor_log_nor_receipt_nor_disk_tells_of_the_person(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    with Watcher(stage, WATCHER_LOG_LEVEL="DEBUG") as watcher:
        watcher.ready()
        paths = [person.upload(photo, _FILE) for photo in PHOTOS]
        identity = person.insert(_NAME, paths)
        repo = person.wait_for(identity, "published")["model_id"]
        person.wait_for(person.insert(_NAME, [*paths, person.upload(b"GIF89a", _FILE)]), "failed")
        told = f"{repo}: {paths[0]}"
        trouble = sandbox.faults.add(Answer(503, {"error": told}, _PATIENTLY), **at("create"), times=None)
        waiting = person.insert(_NAME, paths)
        person.wait_until(waiting, lambda row: row["next_attempt_at"] is not None)
        sandbox.faults.remove(trouble)
        person.upload(PHOTOS[0], _FILE)
        words = {
            "user": person.id,
            "e-mail": person.email,
            "name": _NAME,
            "repo": repo.partition("/")[2],
            "slug": "zebedee",
            "file": _FILE,
            "folder": paths[0].split("/")[1],
        }
        assert betrayed(dump(sandbox), words) == list(words)

        forgotten = run(stage, "forget", person.id, "--yes")
        assert forgotten.returncode == 0, forgotten.stderr
        stage.admin.auth.admin.delete_user(person.id)
        stage.users.remove(person.id)
        stage.erase_due()
        receipts = run(stage, "erasures", "--json").stdout
        assert identity in receipts
        assert waiting in receipts
        assert orphans(stage) == stage.photos() == set()
        disk = " ".join(str(file) for file in watcher.spool.rglob("*"))
        watcher.stop()
    places = {
        "database": dump(sandbox),
        "log": watcher.text,
        "receipts": receipts,
        "what forget says": forgotten.stdout + forgotten.stderr.replace(person.id, ""),
        "Hub": hub(sandbox),
        "disk": disk,
    }
    assert {place: betrayed(text, words) for place, text in places.items()} == {place: [] for place in places}


def _hub_is_away(sandbox: Sandbox) -> Callable[[], None]:
    rule = sandbox.faults.add(Answer(503, "away", _PATIENTLY), service="hub", times=None)
    return lambda: sandbox.faults.remove(rule)


def _token_is_dead(sandbox: Sandbox) -> Callable[[], None]:
    sandbox.hub.access.revoke(sandbox.hub_token)
    return lambda: sandbox.hub.access.restore(sandbox.hub_token)


def _storage_does_nothing(sandbox: Sandbox) -> Callable[[], None]:
    rule = sandbox.faults.add(Answer(200, []), service="storage", method="DELETE", times=None)
    return lambda: sandbox.faults.remove(rule)


@pytest.mark.parametrize(
    ("trouble", "event"),
    [(_hub_is_away, "deferred"), (_token_is_dead, "outage"), (_storage_does_nothing, "deferred")],
)
def test_what_cannot_be_erased_for_long_is_said_once_and_goes_on_by_itself(
    stage: Stage,
    sandbox: Sandbox,
    person: Person,
    trouble: Callable[[Sandbox], Callable[[], None]],
    event: str,
) -> None:
    with Watcher(stage, WATCHER_POLL_ALIVE="0.3") as watcher:
        watcher.ready()
        identity = inserted(person)
        person.wait_for(identity, "published")
        end = trouble(sandbox)
        try:
            person.delete(identity)
            watcher.wait_for(event)
            wait_until(lambda: _tried_again(stage) >= 4)
            [open_one] = stage.rpc("watcher_erasures")["open"]
            assert open_one["id"] == identity
            assert open_one["last_reason"] or event == "outage"
        finally:
            end()
        stage.erase_due()
        assert orphans(stage) == stage.photos() == set()
        assert len(watcher.said(event)) == 1
        assert len(watcher.said("erased", identity=identity, repos=1)) == 1
        watcher.stop()


def _tried_again(stage: Stage) -> int:
    """Let the next attempt to erase fall due, however long it would wait; returns how many have ended."""
    stage.sql("update watcher.work set next_at = now() where kind = 'erase' and next_at > now()")
    [ended] = stage.sql("select count(*) from watcher.attempts where kind = 'erase' and ended_at is not null")
    return int(ended)


def test_a_row_deleted_while_it_is_published_leaves_no_file_on_the_host(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    held = hold(sandbox, "upload", "before")
    identity = inserted(person)
    with Watcher(stage) as watcher:
        held.wait_reached()
        assert list(watcher.spool.glob("attempt-*"))
        person.delete(identity)
        held.release()
        wait_until(lambda: not list(watcher.spool.glob("attempt-*")))
        stage.erase_due()
        assert orphans(stage) == stage.photos() == set()
        watcher.stop()
