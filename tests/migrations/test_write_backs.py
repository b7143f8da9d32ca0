"""What a worker may write about its row: only while it holds it, once, and without stopping anybody else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Worker
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.postgres

# Every verb that names an attempt, and what it says when that attempt holds the row no longer.
WRITE_BACKS: dict[str, tuple[Callable[[Worker, int], Any], object]] = {
    "renew": (lambda worker, attempt: worker.renew([attempt], [3]), {"held": [], "busy": []}),
    "reserve": (lambda worker, attempt: worker.reserve(attempt), None),
    "complete": (lambda worker, attempt: worker.complete(attempt), "lost"),
    "fail": (lambda worker, attempt: worker.fail(attempt), "lost"),
    "defer": (lambda worker, attempt: worker.defer(attempt), "lost"),
    "release": (lambda worker, attempt: worker.release(attempt), "lost"),
}
ENDS = {
    "complete": ("published", "published"),
    "fail": ("failed", "failed"),
    "defer": ("pending", "deferred"),
    "release": ("pending", "released"),
}
each_write_back = pytest.mark.parametrize("verb", WRITE_BACKS)


def refused(worker: Worker, verb: str, attempt: int) -> None:
    """Call a verb and see that it is refused and leaves no trace."""
    database = worker.database
    state = "select (select jsonb_agg(t order by id) from public.trained_identities t) as rows, \
        (select jsonb_agg(w order by identity_id) from watcher.work w) as queue, \
        (select jsonb_agg(a order by number) from watcher.attempts a) as attempts, \
        (select jsonb_agg(n order by model_id) from watcher.names n) as names"
    before = database.run(state)
    call, answer = WRITE_BACKS[verb]
    assert call(worker, attempt) == answer
    assert database.run(state) == before


# The fence.


@each_write_back
def test_an_attempt_that_was_overtaken_writes_nothing(database: Database, verb: str) -> None:
    database.insert(database.user())
    late = Worker(database, "late")
    attempt = late.claim_one()
    database.pass_time(21)
    Worker(database, "rescuer").claim_one()
    refused(late, verb, attempt)


@each_write_back
@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_writes_nothing_once_another_has_ended_the_row(
    database: Database, verb: str, end: str
) -> None:
    database.insert(database.user())
    late, rescuer = Worker(database, "late"), Worker(database, "rescuer")
    attempt = late.claim_one()
    database.pass_time(21)
    call, _ = WRITE_BACKS[end]
    assert call(rescuer, rescuer.claim_one()) == "done"
    refused(late, verb, attempt)


@each_write_back
@pytest.mark.parametrize("end", ENDS)
def test_an_attempt_that_ended_cannot_end_otherwise(database: Database, verb: str, end: str) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    assert WRITE_BACKS[end][0](worker, attempt) == "done"
    assert (database.status(identity), database.outcomes(identity)) == (ENDS[end][0], [ENDS[end][1]])
    if verb != end:
        refused(worker, verb, attempt)


@pytest.mark.parametrize("verb", ENDS)
def test_a_write_back_whose_answer_was_lost_can_be_repeated(database: Database, verb: str) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    call, _ = WRITE_BACKS[verb]
    assert call(worker, attempt) == "done"
    before = database.row(identity), database.line(identity), database.attempts(identity)
    assert call(worker, attempt) == "done"
    assert (database.row(identity), database.line(identity), database.attempts(identity)) == before


@pytest.mark.parametrize("verb", ["defer", "release"])
def test_a_repeat_that_comes_late_takes_the_row_from_nobody(database: Database, verb: str) -> None:
    identity = database.insert(database.user())
    worker, other = Worker(database), Worker(database, "other host")
    attempt = worker.claim_one()
    call, _ = WRITE_BACKS[verb]
    call(worker, attempt)
    database.pass_time(10)
    taken = other.claim_one()
    assert call(worker, attempt) == "done"
    assert database.status(identity) == "publishing"
    assert other.complete(taken) == "done"


@each_write_back
def test_a_lease_that_ran_out_and_that_nobody_took_still_holds(database: Database, verb: str) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    database.pass_time(3600)
    call, lost = WRITE_BACKS[verb]
    assert call(worker, attempt) != lost


@each_write_back
def test_an_attempt_is_fenced_when_its_row_is_gone(database: Database, verb: str) -> None:
    user = database.user()
    database.insert(user)
    worker = Worker(database)
    attempt = worker.claim_one()
    database.delete_account(user)
    refused(worker, verb, attempt)


@each_write_back
def test_an_attempt_is_fenced_when_its_row_is_gone_and_came_again(database: Database, verb: str) -> None:
    user = database.user()
    paths = database.upload(user)
    identity = database.insert(user, paths)
    worker = Worker(database)
    attempt = worker.claim_one()
    database.run("delete from public.trained_identities where id = %s", [identity])
    assert database.insert(user, paths, id=identity) == identity
    refused(worker, verb, attempt)
    assert worker.claim_one() > attempt
    refused(worker, verb, attempt)


@each_write_back
@pytest.mark.parametrize("attempt", [0, -1, 2**62, None])
def test_an_attempt_that_never_was_writes_nothing(database: Database, verb: str, attempt: int) -> None:
    database.insert(database.user())
    worker = Worker(database)
    worker.claim_one()
    refused(worker, verb, attempt)


def test_a_thousand_late_calls_are_all_refused(database: Database) -> None:
    for _ in range(4):
        database.insert(database.user())
    late = Worker(database, "late")
    attempts = [claim["attempt"] for claim in late.claim(4)]
    database.pass_time(21)
    rescuer = Worker(database, "rescuer")
    taken = [claim["attempt"] for claim in rescuer.claim(4)]
    rescuer.complete(taken[0])
    rescuer.fail(taken[1])
    accepted = 0
    for _ in range(42):
        for attempt in attempts:
            for call, lost in WRITE_BACKS.values():
                accepted += call(late, attempt) != lost
    assert accepted == 0


# Complete and fail.


def test_completing_fills_all_that_a_published_row_says(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    config = Jsonb({"trigger_word": "Ada"})
    answer = worker.call(
        "complete", attempt=attempt, url=f"https://hub/{name}", commit_sha="abc", training_config=config
    )
    assert answer == "done"
    row = database.row(identity)
    assert row["status"] == "published"
    assert (row["model_id"], row["huggingface_repo_url"], row["commit_sha"]) == (
        name,
        f"https://hub/{name}",
        "abc",
    )
    assert row["training_config"] == {"trigger_word": "Ada"}
    assert row["images_published"] == row["num_training_images"] == 3
    assert row["published_at"] == row["updated_at"]
    assert database.line(identity) == {}


@pytest.mark.parametrize("missing", ["url", "commit_sha", "training_config"])
def test_a_publication_that_is_not_whole_is_refused_and_the_row_still_held(
    database: Database, missing: str
) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    whole = {"url": "https://hub/x", "commit_sha": "abc", "training_config": Jsonb({})}
    with pytest.raises(psycopg.errors.CheckViolation):
        worker.call("complete", attempt=attempt, **{**whole, missing: None})
    assert database.status(identity) == "publishing"
    assert worker.renew([attempt])["held"] == [attempt]


def test_a_row_cannot_be_published_without_a_name(database: Database) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    with pytest.raises(psycopg.errors.CheckViolation, match="published_rows_are_whole"):
        worker.call("complete", attempt=attempt, url="u", commit_sha="c", training_config=Jsonb({}))


def test_failing_says_why(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    assert worker.fail(attempt, "image_unreadable", "Image 2 (b.jpg) cannot be read.") == "done"
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "image_unreadable")
    assert row["error_message"] == "Image 2 (b.jpg) cannot be read."
    [ended] = database.attempts(identity)
    assert (ended["code"], ended["reason"]) == ("image_unreadable", "Image 2 (b.jpg) cannot be read.")


@pytest.mark.parametrize(
    ("code", "message"), [(None, "Why."), ("x", None), ("Two words", "Why."), ("", "Why.")]
)
def test_a_failure_without_a_code_or_a_reason_is_refused(
    database: Database, code: str | None, message: str | None
) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    with pytest.raises(psycopg.errors.CheckViolation):
        worker.call("fail", attempt=attempt, code=code, message=message)
    assert database.status(identity) == "publishing"


# Release.


def test_a_released_row_is_due_at_once_and_nothing_was_spent(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(12):
        assert worker.release(worker.claim_one()) == "done"
    assert database.line(identity)["spent"] == 0
    assert database.row(identity)["next_attempt_at"] is None
    assert worker.complete(worker.claim_one()) == "done"


# Renewal.


def test_renewing_extends_every_lease_and_shows_progress(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(3)]
    worker = Worker(database)
    attempts = [claim["attempt"] for claim in worker.claim()]
    database.pass_time(15)
    answer = worker.renew(attempts, [1, 0, 3])
    assert sorted(answer["held"]) == attempts
    assert [database.row(row)["images_published"] for row in rows] == [1, 0, 3]
    database.pass_time(15)
    assert Worker(database, "other host").claim() == []


def test_progress_never_goes_back_nor_beyond_the_end(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    for told, shown in [(2, 2), (1, 2), (-5, 2), (None, 2), (99, 3)]:
        worker.renew([attempt], [told])
        assert database.row(identity)["images_published"] == shown


def test_a_renewal_without_new_progress_does_not_touch_the_row(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.renew([attempt], [2])
    version = "select xmin::text from public.trained_identities where id = %s"
    before = database.value(version, [identity])
    worker.renew([attempt], [2])
    assert database.value(version, [identity]) == before


def test_one_locked_row_costs_nobody_a_lease(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(4)]
    worker = Worker(database, own_connection=True)
    worker.connection.execute("set lock_timeout = '1s'")
    attempts = [claim["attempt"] for claim in worker.claim()]
    database.pass_time(19)
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities where id = %s for update", [rows[0]])
        assert sorted(worker.renew(attempts, [2] * 4)["held"]) == attempts
        assert [database.row(row)["images_published"] for row in rows] == [0, 2, 2, 2]
    database.pass_time(15)
    assert Worker(database, "other host").claim() == []
    worker.renew(attempts, [2] * 4)
    assert database.row(rows[0])["images_published"] == 2


def test_an_attempt_that_is_being_written_to_is_busy_and_the_others_are_renewed(database: Database) -> None:
    for _ in range(2):
        database.insert(database.user())
    worker, ending = (Worker(database, own_connection=True) for _ in range(2))
    worker.connection.execute("set lock_timeout = '1s'")
    first, second = (claim["attempt"] for claim in worker.claim())
    with ending.connection.transaction():
        ending.defer(first)
        assert worker.renew([first, second]) == {"held": [second], "busy": [first]}
    assert worker.renew([first, second]) == {"held": [second], "busy": []}


def test_renewing_nothing_answers_nothing(database: Database) -> None:
    worker = Worker(database)
    assert worker.renew([]) == {"held": [], "busy": []}
    assert worker.call("renew", progress=None, lease_seconds=None) == {"held": [], "busy": []}


# Names.


def test_a_name_is_made_of_the_slug_and_the_second_of_creation(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    name = worker.reserve(worker.claim_one(), "acme", "li-lei")
    second = int(database.row(identity)["created_at"].timestamp())
    assert name == f"acme/identity-li-lei-{second}"
    assert database.row(identity)["model_id"] == name


def test_reserving_again_answers_the_same_name(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    assert worker.reserve(attempt) == name
    assert worker.reserve(attempt, slug="another-slug") == name
    worker.release(attempt)
    assert worker.reserve(worker.claim_one()) == name
    assert database.value("select count(*) from watcher.names where identity_id = %s", [identity]) == 1


def test_a_refused_name_is_followed_by_the_next_also_when_the_answer_was_lost(database: Database) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    first = worker.reserve(attempt)
    second = worker.reserve(attempt, refused=first)
    assert second != first
    assert worker.reserve(attempt, refused=first) == second
    third = worker.reserve(attempt, refused=second)
    assert len({first, second, third}) == 3
    seconds = [int(name.rsplit("-", 1)[1]) for name in (first, second, third)]
    assert seconds == [seconds[0], seconds[0] + 1, seconds[0] + 2]


def test_a_reservation_under_another_namespace_is_replaced(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    old = worker.reserve(attempt, "acme")
    new = worker.reserve(attempt, "acme-inc")
    assert new.startswith("acme-inc/")
    assert database.row(identity)["model_id"] == new
    names = database.run("select model_id from watcher.names where identity_id = %s", [identity])
    assert {row["model_id"] for row in names} == {old, new}


def test_rows_of_one_name_and_second_get_names_of_their_own(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    for _ in range(5):
        database.insert(user, paths)
    database.overwrite("update public.trained_identities set created_at = '2026-01-01 00:00:00.5Z'")
    worker = Worker(database)
    names = [worker.reserve(claim["attempt"]) for claim in worker.claim(5)]
    assert len(set(names)) == 5
    assert min(names) == "acme/identity-ada-1767225600"
    assert max(names) == "acme/identity-ada-1767225604"


def test_two_that_want_one_name_at_once_get_two(database: Database) -> None:
    for _ in range(2):
        database.insert(database.user())
    database.overwrite("update public.trained_identities set created_at = '2026-01-01'")
    first, second = (Worker(database, name, own_connection=True) for name in ("one", "two"))
    one, two = first.claim_one(), second.claim_one()
    with ThreadPoolExecutor() as threads:
        with first.connection.transaction():
            name = first.reserve(one)
            other = threads.submit(second.reserve, two)
            database.wait_until_blocked(second.connection)
        assert other.result() != name


def test_a_name_stays_recorded_when_its_row_and_its_user_are_gone(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database)
    name = worker.reserve(worker.claim_one())
    database.delete_account(user)
    [recorded] = database.run("select * from public.watcher_names()", role="service_role")
    assert (recorded["model_id"], recorded["identity_id"], recorded["row_exists"]) == (name, identity, False)


@pytest.mark.parametrize(
    ("namespace", "slug"),
    [(None, "ada"), ("acme", None), ("", "ada"), ("a/b", "ada"), ("acme", ""), ("acme", "Ada"), ("acme", "-a"),
     ("acme", "a--b"), ("acme", "a/b"), ("acme", "é"), ("acme", "a" * 76), ("a" * 97, "ada"), ("acme\n", "ada"),
     ("acme", "ada\n")],
)  # fmt: skip
def test_what_cannot_be_part_of_a_name_is_refused(
    database: Database, namespace: str | None, slug: str | None
) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        worker.reserve(attempt, namespace, slug)


# Replay.


def failed_rows(database: Database, codes: list[str]) -> list[UUID]:
    rows = []
    worker = Worker(database)
    for code in codes:
        rows.append(database.insert(database.user()))
        worker.fail(worker.claim_one(), code)
    return rows


NOTHING = {"replayed": 0, "codes": {}, "pending": 0, "publishing": 0, "published": 0}


def test_replay_makes_failed_rows_due_and_whole_again(database: Database) -> None:
    rows = failed_rows(database, ["image_missing", "hub_refused"])
    worker = Worker(database)
    assert worker.replay() == {**NOTHING, "replayed": 2, "codes": {"image_missing": 1, "hub_refused": 1}}
    for identity in rows:
        row = database.row(identity)
        assert (row["status"], row["error_code"], row["error_message"]) == ("pending", None, None)
        assert (row["images_published"], row["next_attempt_at"]) == (0, None)
        assert database.line(identity)["spent"] == 0
    assert len(worker.claim(4)) == 2
    assert worker.replay() == NOTHING


def test_replay_chooses_by_code_user_id_and_time(database: Database) -> None:
    rows = failed_rows(database, ["image_missing", "image_missing", "hub_refused", "hub_refused"])
    worker = Worker(database)
    database.pass_time(3600)
    [fresh] = failed_rows(database, ["hub_refused"])
    owner = database.row(rows[1])["user_id"]
    since = database.value("select now() - interval '10 minutes'")
    assert worker.replay(code="image_missing", dry_run=True)["replayed"] == 2
    assert worker.replay(user=owner, dry_run=True)["replayed"] == 1
    assert worker.replay(failed_since=since, dry_run=True)["replayed"] == 1
    assert worker.replay(failed_within_seconds=600, dry_run=True)["replayed"] == 1
    assert worker.replay(ids=rows[:1], code="hub_refused", dry_run=True)["replayed"] == 0
    assert {database.status(row) for row in [*rows, fresh]} == {"failed"}
    assert worker.replay(failed_since=since, code="hub_refused")["replayed"] == 1
    assert database.status(fresh) == "pending"
    assert worker.replay(ids=[rows[0]])["replayed"] == 1
    assert [database.status(row) for row in rows] == ["pending", "failed", "failed", "failed"]


def test_replay_leaves_all_others_alone_and_counts_them(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(3)]
    worker = Worker(database)
    published, publishing = (claim["attempt"] for claim in worker.claim(2))
    worker.complete(published)
    failed = database.insert(database.user())
    database.overwrite(
        "update public.trained_identities set status = 'failed', error_code = 'x', error_message = 'X.' where id = %s",
        [failed],
    )
    answer = worker.replay(ids=[*rows, failed, uuid4()])
    assert answer == {"replayed": 1, "codes": {"x": 1}, "pending": 1, "publishing": 1, "published": 1}
    assert worker.renew([publishing])["held"] == [publishing]
    assert [database.status(row) for row in rows] == ["published", "publishing", "pending"]


def test_replay_passes_over_a_row_that_somebody_has_locked(database: Database) -> None:
    rows = failed_rows(database, ["hub_refused", "hub_refused"])
    worker = Worker(database, own_connection=True)
    worker.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities where id = %s for update", [rows[0]])
        assert worker.replay()["replayed"] == 1
    assert [database.status(row) for row in rows] == ["failed", "pending"]


# Nobody waits in a ring.


def test_two_hundred_accounts_are_deleted_while_their_rows_are_published(database: Database) -> None:
    users = [database.user() for _ in range(200)]
    for user in users:
        paths = database.upload(user)
        for _ in range(2):
            database.insert(user, paths)
    gone = threading.Event()

    def work(number: int) -> None:
        worker = Worker(database, f"host {number}", own_connection=True)
        while not gone.is_set():
            attempts = [claim["attempt"] for claim in worker.claim(4)]
            worker.renew(attempts, [1] * len(attempts))
            for attempt in attempts:
                worker.reserve(attempt, slug=f"host-{number}")
            worker.renew(attempts, [2] * len(attempts))
            for attempt, end in zip(attempts, ("defer", "release", "fail", "complete"), strict=False):
                WRITE_BACKS[end][0](worker, attempt)
            worker.replay()

    def delete(some: list[UUID]) -> None:
        connection = database.connect("supabase_auth_admin")
        for user in some:
            connection.execute("delete from auth.users where id = %s", [user])

    with ThreadPoolExecutor(6) as threads:
        workers = [threads.submit(work, number) for number in range(4)]
        deletions = [threads.submit(delete, users[half::2]) for half in range(2)]
        try:
            for deletion in deletions:
                deletion.result(PATIENCE)
        finally:
            gone.set()
        for done in workers:
            done.result(PATIENCE)
    assert database.value("select count(*) from auth.users") == 0
    assert database.value("select count(*) from public.trained_identities") == 0
    assert database.value("select count(*) from watcher.work") == 0
    assert database.value("select count(*) from watcher.attempts where ended_at is null") == 0


@each_write_back
def test_an_account_is_deleted_while_a_write_back_is_under_way(database: Database, verb: str) -> None:
    user = database.user()
    for _ in range(2):
        database.insert(user)
    worker = Worker(database, own_connection=True)
    auth = database.connect("supabase_auth_admin")
    first, second = (claim["attempt"] for claim in worker.claim())
    call, _ = WRITE_BACKS[verb]
    with ThreadPoolExecutor() as threads:
        with worker.connection.transaction():
            call(worker, second)
            deletion = threads.submit(auth.execute, "delete from auth.users where id = %s", [user])
            database.wait_until_blocked(auth)
        deletion.result(PATIENCE)
    assert database.value("select count(*) from watcher.attempts where ended_at is null") == 0
    refused(worker, verb, first)


@each_write_back
def test_a_write_back_waits_for_the_deletion_and_then_has_lost(database: Database, verb: str) -> None:
    user = database.user()
    database.insert(user)
    worker = Worker(database, own_connection=True)
    auth = database.connect("supabase_auth_admin")
    attempt = worker.claim_one()
    call, lost = WRITE_BACKS[verb]
    with ThreadPoolExecutor() as threads:
        with auth.transaction():
            auth.execute("delete from auth.users where id = %s", [user])
            answer = threads.submit(call, worker, attempt)
            if verb == "renew":  # which never waits
                assert answer.result(PATIENCE) == {"held": [], "busy": [attempt]}
            else:
                database.wait_until_blocked(worker.connection)
        if verb != "renew":
            assert answer.result(PATIENCE) == lost
    refused(worker, verb, attempt)


def test_users_who_retry_at_once_do_not_deadlock(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    one, two = (database.insert(user, paths) for _ in range(2))
    worker = Worker(database)
    for claim in worker.claim():
        worker.fail(claim["attempt"])
    retry = "update public.trained_identities set status = 'pending' where id = %s"
    first, second = (database.connect("authenticated", user) for _ in range(2))
    with ThreadPoolExecutor() as threads:
        with first.transaction():
            first.execute(retry, [one])
            waiting = threads.submit(second.execute, retry, [two])
            database.wait_until_blocked(second)
            first.execute(retry, [two])
        waiting.result(PATIENCE)
    assert {database.status(row) for row in (one, two)} == {"pending"}


@pytest.mark.parametrize("first", ["the insert", "the deletion"])
def test_a_row_that_comes_while_its_account_is_deleted_is_not_left_behind(
    database: Database, first: str
) -> None:
    user = database.user()
    paths = database.upload(user)
    frontend, auth = database.connect("authenticated", user), database.connect("supabase_auth_admin")
    steps = [
        (
            frontend,
            "insert into public.trained_identities (identity_name, image_paths) values ('Ada', %s)",
            paths,
        ),
        (auth, "delete from auth.users where id = %s", user),
    ]
    if first == "the deletion":
        steps.reverse()
    (one, does, what), (two, then, with_what) = steps
    with ThreadPoolExecutor() as threads:
        with one.transaction():
            one.execute(does.encode(), [what])
            late = threads.submit(two.execute, then.encode(), [with_what])
            database.wait_until_blocked(two)
        if first == "the deletion":
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                late.result(PATIENCE)
        else:
            late.result(PATIENCE)
    assert database.value("select count(*) from public.trained_identities") == 0
    assert database.value("select count(*) from watcher.work") == 0


def test_a_row_that_is_claimed_while_its_user_deletes_it_stays(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database, own_connection=True)
    frontend = database.connect("authenticated", user)
    with ThreadPoolExecutor() as threads:
        with worker.connection.transaction():
            attempt = worker.claim_one()
            deletion = threads.submit(frontend.execute, "delete from public.trained_identities")
            database.wait_until_blocked(frontend)
        assert deletion.result(PATIENCE).rowcount == 0
    assert worker.complete(attempt) == "done"
    assert database.status(identity) == "published"


def test_a_row_that_is_being_deleted_is_not_claimed(database: Database) -> None:
    user = database.user()
    database.insert(user)
    frontend = database.connect("authenticated", user)
    with frontend.transaction():
        frontend.execute("delete from public.trained_identities")
        assert Worker(database).claim() == []
    assert Worker(database).claim() == []


def test_a_retry_and_a_replay_at_once_are_one(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database, own_connection=True)
    worker.fail(worker.claim_one())
    frontend = database.connect("authenticated", user)
    with ThreadPoolExecutor() as threads:
        with worker.connection.transaction():
            assert worker.replay()["replayed"] == 1
            retry = threads.submit(
                frontend.execute, "update public.trained_identities set status = 'pending' returning id"
            )
            database.wait_until_blocked(frontend)
        assert retry.result(PATIENCE).fetchall() == []
    assert database.status(identity) == "pending"
    assert len(worker.claim(4)) == 1
