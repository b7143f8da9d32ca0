"""What the verbs write and answer; whom they refuse at which moment is walked in test_state_machine.py."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Row, Worker

pytestmark = pytest.mark.postgres

# Every verb that names an attempt, and what it says when that attempt holds the row no longer.
WRITE_BACKS: dict[str, tuple[Callable[[Worker, int], Any], object]] = {
    "renew": (lambda worker, attempt: worker.renew([attempt], [3]), {"held": [], "busy": []}),
    "reserve": (lambda worker, attempt: worker.reserve(attempt), None),
    "complete": (lambda worker, attempt: worker.complete(attempt), "lost"),
    "fail": (lambda worker, attempt: worker.fail(attempt), "lost"),
    "defer": (lambda worker, attempt: worker.defer(attempt), "lost"),
    "release": (lambda worker, attempt: worker.release(attempt), "lost"),
    "wait": (lambda worker, attempt: worker.wait(attempt), "lost"),
}
each_write_back = pytest.mark.parametrize("verb", WRITE_BACKS)


def refused(worker: Worker, verb: str, attempt: int) -> None:
    """Call a verb and see that it is refused and leaves no trace."""
    database = worker.database
    state = "select (select jsonb_agg(t order by id) from public.trained_identities t) as rows, \
        (select jsonb_agg(w order by identity_id) from watcher.work w) as queue, \
        (select jsonb_agg(a order by number) from watcher.attempts a) as attempts, \
        (select jsonb_agg(n order by model_id) from watcher.names n) as names, \
        (select jsonb_agg(l order by id) from watcher.erase_lines l) as erase_lines"
    before = database.run(state)
    call, answer = WRITE_BACKS[verb]
    assert call(worker, attempt) == answer
    assert database.run(state) == before


# The fence.


@each_write_back
def test_an_attempt_is_fenced_when_its_row_is_gone_and_came_again(database: Database, verb: str) -> None:
    user = database.user()
    paths = database.upload(user)
    identity = database.insert(user, paths)
    worker = Worker(database)
    attempt = worker.claim_one()
    database.run("delete from public.trained_identities where id = %s", [identity])
    database.run(
        "insert into public.trained_identities (id, user_id, identity_name, image_paths) values (%s, %s, 'Ada', %s)",
        [identity, user, paths],
    )
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
    # What the operator is shown names no file.
    assert (ended["code"], ended["reason"]) == ("image_unreadable", "Image 2 cannot be read.")


def test_failing_names_the_image_at_fault_until_the_row_is_tried_again(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    assert (
        worker.call("fail", attempt=attempt, code="image_missing", message="X.", details=Jsonb({"image": 3}))
        == "done"
    )
    assert database.row(identity)["error_image"] == 3
    worker.replay()
    assert database.row(identity)["error_image"] is None
    [again] = worker.claim()
    assert again["details"]["failed_by_image"] is True


@pytest.mark.parametrize("image", [0, 4])
def test_an_image_that_a_row_does_not_have_cannot_be_at_fault(database: Database, image: int) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    with pytest.raises(psycopg.errors.CheckViolation, match="only_failed_rows_blame_an_image"):
        worker.call("fail", attempt=attempt, code="x", message="X.", details=Jsonb({"image": image}))


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


@pytest.mark.parametrize("cause", ["shutdown", "unsure"])
def test_every_third_release_in_a_row_counts_and_the_row_ends(database: Database, cause: str) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for number in range(1, 25):
        assert worker.release(worker.claim_one(), "Once more.", cause=cause) == "done"
        assert database.line(identity)["spent"] == number // 3
    assert worker.claim() == []
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"] == "Gave up after 8 attempts. The last one: Once more."


def test_releases_of_different_causes_are_counted_apart(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for cause in ("shutdown", "unsure", "shutdown", "unsure", "outage"):
        worker.release(worker.claim_one(), cause=cause)
    line = database.line(identity)
    assert (line["spent"], line["shutdowns"], line["unsures"]) == (0, 2, 2)
    worker.release(worker.claim_one(), cause="shutdown")
    line = database.line(identity)
    assert (line["spent"], line["shutdowns"], line["unsures"]) == (1, 0, 2)


def test_what_counts_clears_what_did_not(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.claim_one()  # whose answer is lost
    for cause in ("shutdown", "unsure"):
        worker.release(worker.claim_one(), cause=cause)
    counted = ("shutdowns", "unsures", "lost_answers")
    assert [database.line(identity)[counter] for counter in counted] == [1, 1, 1]
    worker.defer(worker.claim_one())
    assert [database.line(identity)[counter] for counter in counted] == [0, 0, 0]


@pytest.mark.parametrize("cause", ["", "Outage", None])
def test_a_release_has_one_of_three_causes(database: Database, cause: str | None) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        worker.release(attempt, cause=cause)
    assert worker.renew([attempt])["held"] == [attempt]


def test_a_last_look_that_is_released_again_and_again_ends_the_row(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(8):
        attempt = worker.claim_one()
        worker.reserve(attempt)
        worker.defer(attempt, "The disk was full.")
        database.pass_time(3600)
    for _ in range(3):
        [claim] = worker.claim()
        assert claim["look_only"]
        worker.release(claim["attempt"], "Stopping.", cause="shutdown")
    assert (
        database.row(identity)["error_message"]
        == "Gave up after 8 attempts. The last one: The disk was full."
    )


# Waiting.


def waited(worker: Worker, identity: UUID, **more: Any) -> Row:
    """Claim the row, wait, and return its place in the queue."""
    assert worker.wait(worker.claim_one(), **more) == "waited"
    return worker.database.line(identity)


def test_a_wait_gives_the_slot_back_for_a_while_and_spends_nothing(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    assert waited(worker, identity)["spent"] == 0
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("pending", None)
    assert (row["next_attempt_at"] - row["updated_at"]).total_seconds() == 2
    assert worker.claim() == []
    database.pass_time(2)
    assert worker.complete(worker.claim_one()) == "done"
    assert database.outcomes(identity) == ["waited", "published"]


def test_a_wait_that_changes_nothing_leaves_no_line_in_the_history(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for reason in ("Image 2 is not there yet.", "Image 2 is not there yet.", "Image 3 is not there yet."):
        waited(worker, identity, reason=reason)
        database.pass_time(2)
    waited(worker, identity, reason="Image 3 is not there yet.", answered=False)
    reasons = [attempt["reason"] for attempt in database.attempts(identity)]
    assert reasons == ["Image 2 is not there yet.", *["Image 3 is not there yet."] * 2]
    assert not database.attempts(identity)[-1]["answered"], "What may land late is remembered."


def test_a_wait_whose_answer_was_lost_can_be_repeated_also_where_it_left_no_line(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    waited(worker, identity)
    database.pass_time(2)
    attempt = worker.claim_one()
    assert worker.wait(attempt) == worker.wait(attempt) == "waited"
    database.pass_time(2)
    other = worker.claim_one()
    assert worker.wait(attempt) == "waited"
    assert worker.complete(other) == "done"


@pytest.mark.parametrize("between", ["nothing", "deferred", "released", "lost"])
def test_a_wait_ends_at_its_deadline_whatever_comes_between(database: Database, between: str) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(7):
        line = waited(worker, identity)
        assert line["spent"] == 0, "What was spent since the last wait is given back."
        database.pass_time(2)
        if between == "deferred":
            worker.defer(worker.claim_one())
            database.overwrite("update watcher.work set turn_at = now(), next_at = null")
        if between == "released":
            worker.release(worker.claim_one(), cause="outage")
        if between == "lost":
            worker.claim_one()
            database.overwrite("update watcher.work set lost_answers = 0")
    database.pass_time(2)
    attempt = worker.claim_one()
    assert worker.wait(attempt) == worker.wait(attempt) == "failed"
    row = database.row(identity)
    assert (row["status"], row["error_code"], row["error_message"]) == (
        "failed", "image_missing", "Image 2 is gone."
    )  # fmt: skip
    assert database.line(identity) == {}


def test_a_wait_without_a_code_is_deferred_at_its_deadline_and_counts(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    waited(worker, identity, code=None)
    database.pass_time(15)
    attempt = worker.claim_one()
    assert worker.wait(attempt, code=None) == worker.wait(attempt, code=None) == "deferred"
    line = database.line(identity)
    assert (line["spent"], line["wait_until"]) == (1, None)


@pytest.mark.parametrize(
    ("seconds", "within", "given"),
    [(0, 15, 0.1), (-1, 15, 0.1), (99, 15, 15), (1e9, 1e9, 3600), (float("nan"), 9999, 3600)],
)
def test_a_wait_is_bounded(database: Database, seconds: float, within: float, given: float) -> None:
    identity = database.insert(database.user())
    waited(Worker(database), identity, seconds=seconds, within_seconds=within)
    row = database.row(identity)
    assert (row["next_attempt_at"] - row["updated_at"]).total_seconds() == given


def test_a_retry_begins_a_wait_anew(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database)
    waited(worker, identity)
    database.pass_time(15)
    worker.wait(worker.claim_one())
    database.run("update public.trained_identities set status = 'pending'", role="authenticated", user=user)
    assert waited(worker, identity)["spent"] == 0
    assert database.status(identity) == "pending"


# Renewal.


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


def test_replay_chooses_by_code_user_id_and_time(database: Database) -> None:
    rows = failed_rows(database, ["image_missing", "image_missing", "hub_refused", "hub_refused"])
    worker = Worker(database)
    database.pass_time(3600)
    [fresh] = failed_rows(database, ["hub_refused"])
    owner = database.row(rows[1])["user_id"]
    since = database.value("select now() - interval '10 minutes'")
    nothing = {"pending": 0, "publishing": 0, "published": 0, "training": 0, "ready": 0, "last": None}
    would = worker.replay(code="image_missing", dry_run=True)
    ids = sorted(str(row) for row in rows[:2])
    assert would == {"replayed": 2, "codes": {"image_missing": 2}, "ids": ids, **nothing}
    assert worker.replay(ids=[uuid4()]) == {"replayed": 0, "codes": {}, **nothing}
    assert worker.replay(user=owner, dry_run=True)["replayed"] == 1
    assert worker.replay(failed_since=since, dry_run=True)["replayed"] == 1
    assert worker.replay(failed_within_seconds=600, dry_run=True)["replayed"] == 1
    assert worker.replay(ids=rows[:1], code="hub_refused", dry_run=True)["replayed"] == 0
    assert {database.status(row) for row in [*rows, fresh]} == {"failed"}
    assert worker.replay(failed_since=since, code="hub_refused")["replayed"] == 1
    assert database.status(fresh) == "pending"
    assert worker.replay(ids=[rows[0]])["replayed"] == 1
    assert [database.status(row) for row in rows] == ["pending", "failed", "failed", "failed"]


def test_many_rows_are_replayed_in_batches_that_add_up(database: Database) -> None:
    [one] = failed_rows(database, ["hub_refused"])
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths, status, error_code, error_message) "
        "select %s, 'Ada', image_paths, 'failed', case when n %% 3 = 0 then 'hub_refused' else 'image_missing' end, 'X.' "
        "from public.trained_identities, generate_series(1, 2499) n",
        [database.row(one)["user_id"]],
    )
    worker = Worker(database)
    planned = worker.replay(dry_run=True)
    assert (planned["replayed"], planned["last"]) == (2500, None)
    answers = [worker.replay(ids=None)]
    while answers[-1]["last"] is not None:
        answers.append(worker.replay(after=UUID(answers[-1]["last"])))
    assert [answer["replayed"] for answer in answers] == [1000, 1000, 500]
    codes: Counter[str] = sum((Counter(answer["codes"]) for answer in answers), Counter())
    assert codes == planned["codes"]
    assert database.value("select count(*) from watcher.work") == 2500


@pytest.mark.parametrize(("limit", "taken"), [(0, 1), (-1, 1), (None, 9), (5, 5), (1_000_000, 9)])
def test_a_batch_is_bounded(database: Database, limit: int | None, taken: int) -> None:
    failed_rows(database, ["hub_refused"] * 9)
    assert Worker(database).replay(limit=limit)["replayed"] == taken


def test_a_row_that_fails_again_meanwhile_is_not_replayed_twice(database: Database) -> None:
    failed_rows(database, ["hub_refused"] * 3)
    worker = Worker(database)
    first = worker.replay(limit=2)
    for claim in worker.claim(2):
        worker.fail(claim["attempt"], "hub_refused")
    assert worker.replay(limit=2, after=UUID(first["last"]))["replayed"] == 1


def test_replay_passes_over_a_row_that_somebody_has_locked(database: Database) -> None:
    rows = failed_rows(database, ["hub_refused", "hub_refused"])
    worker = Worker(database, own_connection=True)
    worker.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities where id = %s for update", [rows[0]])
        assert worker.replay()["replayed"] == 1
    assert [database.status(row) for row in rows] == ["failed", "pending"]


# What may be asked.


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
        "published_since": None,
        "since": None,
        "instances": {},
        "erasing": {
            "open": 0,
            "overdue_seconds": 0,
            "held_users": None,
            "held_names": None,
            "held_uploads": None,
            "failed": 0,
            "failed_because": None,
            "swept_seconds_ago": None,
        },
        "training": {
            "enabled": False,
            "usd_a_day": 0,
            "spent_usd": 0,
            "reserved_usd": 0,
            "running": 0,
            "waiting": 0,
            "waits_for_budget": False,
            "overdue": 0,
            "doubled": 0,
            "failed_24h": 0,
            "ready_24h": 0,
            "due_seconds": 0,
        },
        "paused": [],
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
    assert status["instances"].keys() == {"attic"}
    assert status["instances"]["attic"]["machine"] == "here"
    assert 0 <= status["instances"]["attic"]["heard_seconds_ago"] < 60
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


def test_a_row_whose_first_repo_is_being_erased_is_shown_once(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    worker.fail(attempt)
    worker.replay()
    assert len(worker.claim({"publish": 1, "erase": 1})) == 2
    [publishing] = worker.call("status")["publishing"]
    assert publishing["id"] == str(identity)
    story = worker.call("story", id=identity)
    assert sorted((told["kind"], told["outcome"] or "runs") for told in story["attempts"]) == [
        ("erase", "runs"),
        ("publish", "failed"),
        ("publish", "runs"),
    ]


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
    assert told == sorted(reserved)
    assert all(row["row_exists"] for row in names(database))
    # They stay recorded when the row and its user are gone.
    database.delete_account(user)
    left = names(database)
    assert {row["model_id"] for row in left} == reserved
    assert not any(row["row_exists"] for row in left)


def test_each_beat_has_the_next_number(database: Database) -> None:
    worker = Worker(database)
    first = worker.call("beat")
    assert worker.call("beat") == first + 1
    [pulse] = database.run("select * from public.watcher_pulse", role="service_role")
    assert pulse["beats"] == first + 1
