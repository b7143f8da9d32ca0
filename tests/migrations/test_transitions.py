"""What may follow what: every pair of statuses on the real table, for everybody who might try."""

from itertools import product
from uuid import UUID

import psycopg
import pytest

from tests.support import trainings
from tests.support.database import Database, Worker

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.parametrize("auto_expose", [False, True], ids=["new project", "old project"]),
]

STATUSES = ("pending", "publishing", "published", "training", "ready", "failed")
ALLOWED = {
    ("pending", "publishing"),
    ("publishing", "published"),
    ("published", "training"),
    ("ready", "training"),
    ("training", "ready"),
    ("training", "published"),
    ("publishing", "failed"),
    ("publishing", "pending"),
    ("pending", "failed"),
    ("failed", "pending"),
}
every_pair = pytest.mark.parametrize(("old", "new"), list(product(STATUSES, STATUSES)))
every_status = pytest.mark.parametrize("status", STATUSES)

# All that goes with a status, so that nothing but the transition itself is in question.
WHOLE = """
update public.trained_identities t set
    status = %(status)s,
    images_published = case when whole then 3 else 0 end,
    model_id = 'acme/identity-ada-1',
    training_config = '{}',
    huggingface_repo_url = case when whole then 'https://hub/x' end,
    commit_sha = case when whole then 'c0ffee' end,
    published_at = case when whole then now() end,
    error_image = null,
    error_code = case when %(status)s = 'failed' then 'x' end,
    error_message = case when %(status)s = 'failed' then 'X.' end,
    train = %(status)s = 'training',
    training_commit_sha = case %(status)s when 'ready' then 'beef' when 'training' then training_commit_sha end,
    training_seconds = case %(status)s when 'ready' then 540 when 'training' then training_seconds end,
    sample_paths = case %(status)s when 'ready' then '{}' when 'training' then sample_paths end
from (select %(status)s in ('published', 'training', 'ready') as whole) will_be
"""
STATUS_ALONE = "update public.trained_identities set status = %(status)s returning id"


def identity_that_is(database: Database, status: str, user: UUID | None = None) -> UUID:
    """Lead a row to `status` by the verbs."""
    if status in {"training", "ready"}:
        trainings.switch_on(database, usd_a_day=1000)
        lead = trainings.running if status == "training" else trainings.ready
        database.run(
            "insert into watcher.limits values ('trainings_per_day', null, 1000) on conflict do nothing"
        )
        identity = lead(database, user)
        assert database.status(identity) == status
        return identity
    identity = database.insert(user or database.user())
    worker = Worker(database)
    if status != "pending":
        attempt = worker.claim_one()
        worker.reserve(attempt)
        if status == "published":
            worker.complete(attempt)
        elif status == "failed":
            worker.fail(attempt)
    assert database.status(identity) == status
    return identity


@every_pair
def test_the_owner_of_the_table_is_held_to_what_may_follow(database: Database, old: str, new: str) -> None:
    identity = identity_that_is(database, old)
    if old == new or (old, new) in ALLOWED:
        database.run(WHOLE, {"status": new})
        assert database.status(identity) == new
        return
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        database.run(WHOLE, {"status": new})
    assert error.value.diag.message_primary == f"An identity that is {old} cannot become {new}."
    assert database.status(identity) == old


@every_pair
def test_the_service_role_changes_nothing_by_itself(database: Database, old: str, new: str) -> None:
    identity = identity_that_is(database, old)
    for query in (WHOLE, STATUS_ALONE):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run(query, {"status": new}, role="service_role")
    assert database.status(identity) == old


@every_pair
def test_a_user_may_only_try_a_failed_row_again(database: Database, old: str, new: str) -> None:
    user = database.user()
    identity = identity_that_is(database, old, user)
    before = database.row(identity)
    if (old, new) == ("failed", "pending"):
        assert database.run(STATUS_ALONE, {"status": new}, role="authenticated", user=user) == [
            {"id": identity}
        ]
        assert database.status(identity) == "pending"
        return
    if old not in {"failed", "published", "ready"}:
        assert database.run(STATUS_ALONE, {"status": new}, role="authenticated", user=user) == []
    elif old == new != "failed":
        assert database.run(STATUS_ALONE, {"status": new}, role="authenticated", user=user)
        before["updated_at"] = database.row(identity)["updated_at"]
    else:
        refusal: type[psycopg.Error] = psycopg.errors.InsufficientPrivilege
        if new in {
            "pending",
            "published",
            "ready",
        }:  # row-level security lets it pass, and what may follow does not
            refusal = psycopg.errors.CheckViolation
        with pytest.raises(refusal):
            database.run(STATUS_ALONE, {"status": new}, role="authenticated", user=user)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(WHOLE, {"status": new}, role="authenticated", user=user)
    assert database.row(identity) == before


@every_pair
def test_a_stranger_changes_nothing(database: Database, old: str, new: str) -> None:
    identity = identity_that_is(database, old)
    before = database.row(identity)
    stranger = database.user()
    assert database.run(STATUS_ALONE, {"status": new}, role="authenticated", user=stranger) == []
    assert database.run(STATUS_ALONE, {"status": new}, role="authenticated") == []
    assert database.row(identity) == before


@every_pair
def test_nobody_changes_anything_without_signing_in(database: Database, old: str, new: str) -> None:
    identity = identity_that_is(database, old)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(STATUS_ALONE, {"status": new}, role="anon")
    assert database.status(identity) == old


# Deletion.

DELETE = "delete from public.trained_identities returning id"


@every_status
def test_a_user_deletes_their_row_whatever_its_status(database: Database, status: str) -> None:
    user = database.user()
    identity = identity_that_is(database, status, user)
    assert database.run(DELETE, role="authenticated", user=user) == [{"id": identity}]
    assert database.line(identity) == {}
    assert database.outcomes(identity) == (["revoked"] if status == "publishing" else [])
    assert database.work(identity, "erase")


@every_status
def test_nobody_else_deletes_a_row(database: Database, status: str) -> None:
    identity = identity_that_is(database, status)
    assert database.run(DELETE, role="authenticated", user=database.user()) == []
    for role in ("anon", "service_role"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run(DELETE, role=role)
    assert database.status(identity) == status


@every_status
def test_an_account_can_be_deleted_whatever_its_rows_are(database: Database, status: str) -> None:
    user, other = database.user(), database.user()
    for _ in range(3):
        identity_that_is(database, status, user)
    kept = identity_that_is(database, status, other)
    database.delete_account(user)
    assert database.run("select id from public.trained_identities") == [{"id": kept}]
    left = {
        row["identity_id"]
        for row in database.run("select identity_id from watcher.attempts where ended_at is null")
    }
    left |= {
        row["identity_id"]
        for row in database.run("select identity_id from watcher.work where kind = 'publish'")
    }
    assert left <= {kept}


# What goes with a change.


def test_a_change_moves_the_time_of_the_last_change_and_nothing_else_does(database: Database) -> None:
    identity = identity_that_is(database, "pending")
    database.pass_time(60)
    before = database.row(identity)
    Worker(database).claim_one()
    after = database.row(identity)
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]


@every_status
def test_an_open_row_has_a_place_in_the_queue_and_no_other_has(database: Database, status: str) -> None:
    identity = identity_that_is(database, status)
    assert bool(database.line(identity)) == (status in {"pending", "publishing"})


def test_a_change_by_hand_takes_the_row_from_its_worker(database: Database) -> None:
    identity = identity_that_is(database, "publishing")
    database.run(WHOLE, {"status": "failed"})
    assert database.outcomes(identity) == ["revoked"]
    assert Worker(database).complete(1) == "lost"
    assert database.status(identity) == "failed"
