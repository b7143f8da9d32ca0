"""What is kept to be told: each thing once, without names, and nothing where nobody tells."""

from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Worker


def told(database: Database) -> list[tuple[str, UUID, dict[str, Any]]]:
    rows = database.run("select event, identity_id, details from watcher.notifications order by happened_at")
    return [(row["event"], row["identity_id"], row["details"]) for row in rows]


@pytest.fixture
def worker(database: Database) -> Worker:
    """A daemon that tells."""
    worker = Worker(database)
    worker.call("notify_from_now")
    return worker


def test_a_row_that_fails_is_told(database: Database, worker: Worker) -> None:
    identity = database.insert(database.user())
    attempt = worker.claim_one()
    for _ in range(2):  # the second time because the answer was lost
        worker.call(
            "fail", attempt=attempt, code="image_unreadable", message="Image 2.", details=Jsonb({"image": 2})
        )
    assert told(database) == [("row.failed", identity, {"code": "image_unreadable", "image": 2})]


def test_nothing_is_kept_where_nobody_has_told_for_a_day(database: Database, worker: Worker) -> None:
    database.pass_time(86400 + 60)
    database.insert(database.user())
    worker.fail(worker.claim_one())
    assert told(database) == []
    assert database.value("select count(*) from watcher.work where kind = 'notify'") == 0


def test_a_daemon_that_asks_for_work_keeps_it_on(database: Database, worker: Worker) -> None:
    database.pass_time(2 * 3600)
    worker.ask({"notify": 1})
    assert database.value("select until > now() + interval '23 hours' from watcher.notifying")


def test_what_was_told_is_gone_and_a_repetition_changes_nothing(database: Database, worker: Worker) -> None:
    database.insert(database.user())
    worker.fail(worker.claim_one())
    attempt = worker.claim_one(kind="notify")
    assert [worker.call("notified", attempt=attempt) for _ in range(2)] == ["done", "done"]
    assert told(database) == []
    assert database.value("select count(*) from watcher.work where kind = 'notify'") == 0


def test_a_receiver_that_stays_away_is_given_up_and_the_row_stays_failed(
    database: Database, worker: Worker
) -> None:
    identity = database.insert(database.user())
    worker.fail(worker.claim_one())
    for _ in range(8):
        assert worker.defer(worker.claim_one(kind="notify")) == "done"
        database.pass_time(1200)
    assert told(database) == []
    assert database.status(identity) == "failed"


def test_an_overdue_erasure_is_told_once(database: Database, worker: Worker) -> None:
    identity = database.insert(database.user())
    worker.reserve(worker.claim_one())
    database.run("delete from public.trained_identities")
    worker.sweep()
    assert told(database) == []
    database.pass_time(86400 + 3600)
    for _ in range(3):
        worker.call("notify_from_now")
        worker.sweep()
    assert told(database) == [("erasure.overdue", identity, {})]


def test_an_erasure_that_was_overdue_while_nobody_told_is_told_later(
    database: Database, worker: Worker
) -> None:
    identity = database.insert(database.user())
    worker.reserve(worker.claim_one())
    database.run("delete from public.trained_identities")
    database.pass_time(3 * 86400)
    worker.sweep()
    assert told(database) == []
    worker.call("notify_from_now")
    worker.sweep()
    assert told(database) == [("erasure.overdue", identity, {})]


def test_an_erasure_that_is_opened_again_is_told_again(database: Database, worker: Worker) -> None:
    identity = database.insert(database.user())
    worker.reserve(worker.claim_one())
    database.run("delete from public.trained_identities")
    for many in (1, 2):
        database.pass_time(86400 + 3600)
        worker.call("notify_from_now")
        worker.sweep()
        assert told(database) == [("erasure.overdue", identity, {})] * many
        assert worker.call("close_erasure", id=identity, because="By hand.")
        database.run("select watcher.open_erasure(%s, 'row', null)", [identity])
        database.run("update watcher.erase_lines set gone_at = null, due_at = now()")


def test_what_was_not_told_for_a_week_is_forgotten(database: Database, worker: Worker) -> None:
    old = database.insert(database.user())
    worker.fail(worker.claim_one())
    database.pass_time(6 * 86400)
    worker.call("notify_from_now")
    young = database.insert(database.user())
    worker.fail(worker.claim_one(kind="publish"))
    worker.sweep()
    assert [identity for _, identity, _ in told(database)] == [old, young]
    database.pass_time(86400 + 60)
    worker.sweep()
    assert [identity for _, identity, _ in told(database)] == [young]
    assert database.value("select count(*) from watcher.work where kind = 'notify'") == 1
