"""What the watcher may ask: its version, what there is to do, a row's story, and every name there ever was."""

from uuid import uuid4

import pytest

from tests.support.database import Database, Row, Worker

pytestmark = pytest.mark.postgres


def names(database: Database, after: str = "", limit: int = 1000) -> list[Row]:
    return database.run("select * from public.watcher_names(%s, %s)", [after, limit], role="service_role")


def test_an_empty_table_has_an_empty_status(database: Database) -> None:
    assert Worker(database).call("status") == {
        "pending": 0,
        "deferred": 0,
        "oldest_pending_seconds": None,
        "overdue_seconds": 0,
        "waiting": [],
        "publishing": [],
        "failed": {},
        "last_failed": [],
        "published_24h": 0,
    }


def test_the_status_says_what_waits_what_runs_what_failed_and_what_was_published(database: Database) -> None:
    worker = Worker(database, "attic")
    rows = [database.insert(database.user()) for _ in range(5)]
    published, failed, deferred, running = (claim["attempt"] for claim in worker.claim(4))
    worker.complete(published)
    worker.fail(failed, "image_missing")
    worker.defer(deferred)
    worker.renew([running], [2])
    database.pass_time(2)
    status = worker.call("status")
    assert (status["pending"], status["deferred"], status["published_24h"]) == (2, 1, 1)
    assert status["failed"] == {"image_missing": 1}
    assert 2 <= status["oldest_pending_seconds"] < 60
    assert 2 <= status["overdue_seconds"] < 60
    later, first = sorted(status["waiting"], key=lambda line: -line["due_in_seconds"])
    assert (later["id"], later["spent"], later["last_reason"]) == (str(rows[2]), 1, "The Hub is away.")
    assert 0 < later["due_in_seconds"] <= 8
    assert (first["id"], first["spent"], first["due_in_seconds"]) == (str(rows[4]), 0, 0)
    [last] = status["last_failed"]
    assert (last["id"], last["error_code"], last["error_message"]) == (
        str(rows[1]),
        "image_missing",
        "Image 2 is gone.",
    )
    assert 2 <= last["failed_seconds_ago"] < 60
    [publishing] = status["publishing"]
    assert 2 <= publishing.pop("seconds") < 60
    assert 0 < publishing.pop("lease_seconds") <= 18
    assert publishing.pop("run_id") == str(worker.run)
    assert publishing == {
        "id": str(rows[3]),
        "identity_name": "Ada",
        "attempt": running,
        "instance": "attic",
        "images_published": 2,
        "num_training_images": 3,
    }


def test_a_row_that_nobody_holds_is_shown_as_publishing_all_the_same(database: Database) -> None:
    database.insert(database.user())
    Worker(database).claim_one()
    database.overwrite("delete from watcher.attempts")
    [publishing] = Worker(database).call("status")["publishing"]
    assert publishing["attempt"] is None


def test_a_story_tells_every_attempt_and_every_name(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    first = worker.reserve(attempt)
    second = worker.reserve(attempt, refused=first)
    worker.defer(attempt, "The Hub is away.")
    database.pass_time(10)
    worker.complete(worker.claim_one())
    story = worker.call("story", id=identity)
    assert (story["id"], story["status"], story["model_id"]) == (str(identity), "published", second)
    assert [(told["outcome"], told["reason"]) for told in story["attempts"]] == [
        ("deferred", "The Hub is away."),
        ("published", None),
    ]
    assert story["names"] == [first, second]


def test_there_is_no_story_of_a_row_that_is_not_there(database: Database) -> None:
    assert Worker(database).call("story", id=uuid4()) is None


def test_every_name_is_told_page_by_page(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    worker = Worker(database)
    reserved = set()
    for number in range(7):
        database.insert(user, paths)
        attempt = worker.claim_one()
        reserved.add(worker.reserve(attempt, slug=f"ada-{number}"))
        worker.complete(attempt)
    told: list[str] = []
    while page := names(database, told[-1] if told else "", 3):
        told += [row["model_id"] for row in page]
    assert len(told) == 7
    assert set(told) == reserved
    assert all(row["row_exists"] for row in names(database))


def test_each_beat_has_the_next_number(database: Database) -> None:
    worker = Worker(database)
    first = worker.call("beat")
    assert worker.call("beat") == first + 1
    [pulse] = database.run("select * from public.watcher_pulse", role="service_role")
    assert pulse["beats"] == first + 1
