"""Killed before or after any request that changes something, or while it is late, and started again.

Nothing is lost and nothing is doubled, and no repo is there without its row, or row without its repo.
"""

from uuid import uuid4

import psycopg
import pytest

from tests.acceptance.boundaries import CLAIM, COMMIT, LATE, RENEWAL, Request, kill_everywhere
from tests.acceptance.person import Person, Row
from tests.acceptance.places import PHOTOS, at, at_fault, inserted, outcomes
from tests.acceptance.repo import audit, orphans
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer

pytestmark = pytest.mark.timeout(300)


def test_a_row_that_is_published(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]

    def look(row: Row, request: Request, when: str) -> None:
        audit(stage, row, PHOTOS)
        assert list(stage.names().values()).count(row["id"]) == 1
        ended = outcomes(stage, row["id"])
        if request in {CLAIM, RENEWAL} or (when == "after" and "complete" in request.route):
            assert ended in (["published"], ["crashed", "published"])  # as the case may be
        else:
            assert ended == ["crashed", "published"]

    requests = kill_everywhere(
        stage, person, insert=lambda: person.insert("Ada", photos), end="published", look=look
    )
    assert len(requests) >= 9, requests


def test_a_row_that_is_published_while_a_request_is_late(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]

    def look(row: Row, request: Request, when: str) -> None:
        assert person.row(row["id"]) == row
        audit(stage, row, PHOTOS)
        assert not orphans(stage)

    requests = kill_everywhere(
        stage, person, insert=lambda: person.insert("Ada", photos), end="published", look=look, faults=LATE
    )
    assert len(requests) >= 9, requests


def publish_one(stage: Stage, person: Person) -> None:
    """Publish a row, which shows that the Hub accepts others."""
    with Watcher(stage) as watcher:
        person.wait_for(inserted(person), "published")
        watcher.stop()


def test_a_row_that_fails_for_good(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]
    publish_one(stage, person)
    sandbox.faults.add(Answer(400, {"error": "No."}), **at("commit"), times=None)

    def look(row: Row, request: Request, when: str) -> None:
        assert (row["error_code"], row["model_id"]) == ("hub_refused", None)
        assert row["id"] not in stage.names().values()
        assert not orphans(stage)
        assert outcomes(stage, row["id"]) in (["failed"], ["crashed", "failed"])

    requests = kill_everywhere(
        stage,
        person,
        insert=lambda: person.insert("Ada", photos, id=at_fault(stage)),
        end="failed",
        look=look,
    )
    assert "/api/repos/delete" in {request.route for request in requests}


def test_a_row_that_fails_while_a_request_is_late_and_is_retried(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]
    publish_one(stage, person)
    refusals = []

    def insert() -> str:
        """A row that is refused; what is late has met its own fault before."""
        refusals.append(sandbox.faults.add(Answer(400, {"error": "No."}), **at("commit"), times=None))
        return person.insert("Ada", photos, id=at_fault(stage))

    def retry(row: Row) -> Row:
        sandbox.faults.remove(refusals.pop())
        person.retry(row["id"])
        return person.wait_for(row["id"], "published")

    def look(row: Row, request: Request, when: str) -> None:
        assert person.row(row["id"]) == row
        audit(stage, row, PHOTOS)
        assert not orphans(stage)

    requests = kill_everywhere(
        stage, person, insert=insert, end="failed", then=retry, look=look, faults=LATE, also=[COMMIT]
    )
    assert {"/api/repos/create", "/api/repos/delete"} <= {request.route for request in requests}


def test_a_row_whose_budget_is_spent(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    photos = [person.upload(photo) for photo in PHOTOS]

    def insert() -> str:
        """A row with a repo that is empty, and nothing left but to look at it."""
        identity, seconds = str(uuid4()), len(stage.rows)
        repo = f"{stage.namespace}/identity-spent-{seconds}"
        sandbox.hub.store.create("models", repo, stage.namespace, {".gitattributes": b""}, private=True)
        stage.rows.append(identity)
        with psycopg.connect(stage.settings["SUPABASE_DB_URL"]) as connection:
            connection.execute(
                "insert into public.trained_identities (id, user_id, identity_name, image_paths, model_id) "
                "values (%s, %s, 'Ada', %s, %s)",
                [identity, person.id, photos, repo],
            )
            connection.execute(
                "insert into watcher.names values (%s, %s, 'spent', %s, %s)",
                [repo, stage.namespace, seconds, identity],
            )
            connection.execute("update watcher.work set spent = 8 where identity_id = %s", [identity])
        return identity

    def look(row: Row, request: Request, when: str) -> None:
        assert (row["error_code"], row["model_id"]) == ("attempts_exhausted", None)
        assert not orphans(stage)

    requests = kill_everywhere(stage, person, insert=insert, end="failed", look=look)
    assert [request.route.rsplit("/", 1)[1] for request in requests] == [
        "watcher_claim", "watcher_fail", "watcher_settle_repo", "delete", "watcher_erased", "watcher_renew",
    ]  # fmt: skip
