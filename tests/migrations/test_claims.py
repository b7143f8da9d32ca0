"""Who gets which row, and when: claims, rescues, the budget, and rows that kill their workers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Worker

pytestmark = pytest.mark.postgres

MANY = """
insert into public.trained_identities (identity_name, image_paths) select 'Ada', %s from generate_series(1, 20)
"""


def ids(claims: Sequence[dict[str, str]]) -> list[UUID]:
    return [UUID(claim["identity_id"]) for claim in claims]


def die(worker: Worker, identity: UUID, times: int) -> None:
    """Let `identity`, the only row that is due, kill its worker."""
    for _ in range(times):
        [claim] = worker.claim(1)
        assert claim["identity_id"] == str(identity)
        worker.database.pass_time(21)


def wear_out(worker: Worker, identity: UUID, reason: str = "The Hub is away.") -> None:
    """Spend the whole budget of `identity`, the only row that is due; it has a repo then."""
    for _ in range(8):
        attempt = worker.claim_one()
        worker.reserve(attempt)
        assert worker.defer(attempt, reason) == "done"
        worker.database.pass_time(3600)
    assert worker.database.status(identity) == "pending"


# What a claim answers.


def test_a_claim_answers_all_that_the_worker_needs(database: Database) -> None:
    user = database.user()
    paths = database.upload(user, 4)
    identity = database.insert(user, paths, name="Zoë")
    [claim] = Worker(database).claim()
    row = database.row(identity)
    assert claim.pop("age_seconds") >= 0
    assert claim == {
        "attempt": 1,
        "kind": "publish",
        "identity_id": str(identity),
        "details": {
            "user_id": str(user),
            "identity_name": "Zoë",
            "image_paths": paths,
            "created_at": row["created_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "model_id": None,
        },
        "look_only": False,
        "exhausted": None,
        "never_tried": True,
    }
    assert row["status"] == "publishing"


def test_a_claimed_row_is_nobody_elses(database: Database) -> None:
    identity = database.insert(database.user())
    first, second = Worker(database), Worker(database, "other host")
    attempt = first.claim_one()
    assert second.claim() == []
    assert first.claim(holding=[attempt]) == []
    assert database.outcomes(identity) == [None]


def test_rows_are_claimed_in_the_order_they_came(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(5)]
    worker = Worker(database)
    first = worker.claim(3)
    assert ids(first) == rows[:3]
    assert ids(worker.claim(3, [claim["attempt"] for claim in first])) == rows[3:]


@pytest.mark.parametrize(("limit", "taken"), [(0, 0), (-1, 0), (None, 0), (2, 2), (1_000_000, 64)])
def test_the_number_of_rows_is_bounded(database: Database, limit: int, taken: int) -> None:
    for _ in range(4):
        user = database.user()
        paths = database.upload(user)
        for _ in range(17):
            database.insert(user, paths)
    assert len(Worker(database).claim(limit)) == taken


@pytest.mark.parametrize(
    ("asked", "given"), [(0.0, 0.1), (-5.0, 0.1), (20.0, 20), (1e9, 600), (float("nan"), 600), (None, 20)]
)
def test_a_lease_is_bounded(database: Database, asked: float, given: float) -> None:
    identity = database.insert(database.user())
    Worker(database).claim(lease=asked)
    [attempt] = database.attempts(identity)
    assert (attempt["lease_expires_at"] - attempt["started_at"]).total_seconds() == given


def test_a_claim_without_a_name_is_refused(database: Database) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        Worker(database).call(
            "claim", instance=None, run=uuid4(), slots=Jsonb({"publish": 1}), lease_seconds=20.0
        )


# When the next row falls due.


def test_nothing_to_wait_for_says_so(database: Database) -> None:
    assert Worker(database).ask() == {"claims": [], "more_due": False, "next_due_seconds": None}


def test_a_full_claim_says_that_more_may_be_due_and_one_that_is_not_full_does_not(database: Database) -> None:
    for _ in range(3):
        database.insert(database.user())
    worker = Worker(database)
    first = worker.ask(limit=2)
    assert (len(first["claims"]), first["more_due"]) == (2, True)
    second = worker.ask(limit=2, holding=[claim["attempt"] for claim in first["claims"]])
    assert (len(second["claims"]), second["more_due"]) == (1, False)


def test_the_next_due_time_is_that_of_a_deferred_row(database: Database) -> None:
    database.insert(database.user())
    worker = Worker(database)
    worker.defer(worker.claim_one(), retry_after_seconds=100.0)
    assert 99 < worker.ask()["next_due_seconds"] <= 100


def test_the_next_due_time_is_that_of_somebodys_lease(database: Database) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    assert 19 < Worker(database).ask()["next_due_seconds"] <= 20
    assert worker.ask(holding=[attempt])["next_due_seconds"] is None


# Deferral.


def test_a_deferred_row_is_due_when_its_time_has_come(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.defer(worker.claim_one())
    assert worker.claim() == []
    database.pass_time(8)
    [claim] = worker.claim()
    assert claim["identity_id"] == str(identity)
    assert not claim["never_tried"]
    assert database.row(identity)["next_attempt_at"] is None


def test_each_deferral_waits_longer_up_to_a_quarter_of_an_hour(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for expected in (5, 15, 45, 135, 405, 900, 900):
        worker.defer(worker.claim_one())
        row = database.row(identity)
        waited = (row["next_attempt_at"] - row["updated_at"]).total_seconds()
        assert expected * 0.75 <= waited <= expected * 1.25
        database.pass_time(1200)


@pytest.mark.parametrize(
    ("asked", "given"), [(None, (3, 7)), (0.0, (3, 7)), (-9.0, (3, 7)), (60.0, (60, 60)), (1e9, (3600, 3600))]
)
def test_a_service_that_names_a_time_is_believed_up_to_an_hour(
    database: Database, asked: float | None, given: tuple[float, float]
) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.defer(worker.claim_one(), retry_after_seconds=asked)
    row = database.row(identity)
    assert given[0] <= (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= given[1]


# The budget.


def test_eight_deferrals_and_no_repo_end_the_row_with_the_last_reason(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for number in range(1, 9):
        assert worker.defer(worker.claim_one(), f"Reason {number}.") == "done"
        database.pass_time(3600)
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"] == "Gave up after 8 attempts. The last one: Reason 8."
    assert database.outcomes(identity) == ["deferred"] * 8
    assert database.line(identity) == {}
    assert worker.claim() == []


def test_eight_deaths_and_no_repo_end_the_row(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    die(worker, identity, 8)
    assert worker.claim() == []
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert (
        row["error_message"]
        == "Gave up after 8 attempts. The last one: The lease expired: the worker crashed or lost contact."
    )
    assert database.outcomes(identity) == ["crashed"] * 8


def test_a_spent_row_without_a_repo_ends_also_beside_others(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    die(worker, identity, 8)
    other = database.insert(database.user())
    database.overwrite("update watcher.work set turn_at = now() - interval '1 hour'")
    assert ids(worker.claim(4)) == [other]
    assert database.status(identity) == "failed"


def test_a_spent_row_with_a_repo_is_handed_out_once_more_only_to_look(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity, "The Hub is away.")
    [claim] = worker.claim()
    assert claim["look_only"]
    assert claim["exhausted"] == "Gave up after 8 attempts. The last one: The Hub is away."
    assert claim["details"]["model_id"] == database.row(identity)["model_id"]
    assert database.line(identity)["spent"] == 8
    assert worker.fail(claim["attempt"], "attempts_exhausted", claim["exhausted"]) == "done"
    assert database.status(identity) == "failed"


def test_a_look_may_find_the_work_done(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity)
    assert worker.complete(worker.claim_one()) == "done"
    assert database.status(identity) == "published"


def test_a_look_that_dies_ends_the_row_and_names_what_may_be_left(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity)
    name = database.row(identity)["model_id"]
    worker.claim_one()
    database.pass_time(21)
    assert worker.claim() == []
    row = database.row(identity)
    assert (row["status"], row["error_code"], row["model_id"]) == ("failed", "attempts_exhausted", name)


def test_a_look_that_cannot_ask_the_hub_ends_the_row_with_the_reason_before(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity, "The disk was full.")
    assert worker.defer(worker.claim_one(), "The Hub could not be asked.") == "done"
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"] == "Gave up after 8 attempts. The last one: The disk was full."


def test_a_look_that_was_released_or_whose_claim_was_lost_is_taken_again(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity)
    worker.release(worker.claim_one())
    worker.claim_one()
    [claim] = worker.claim()
    assert claim["look_only"]
    assert database.line(identity)["spent"] == 8
    assert database.status(identity) == "publishing"


def test_a_retry_begins_with_a_fresh_budget_and_keeps_name_and_history(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    worker.fail(attempt)
    before = database.row(identity)
    database.run(
        "update public.trained_identities set status = 'pending' where id = %s",
        [identity],
        role="authenticated",
        user=user,
    )
    after = database.row(identity)
    assert (after["model_id"], after["created_at"]) == (name, before["created_at"])
    assert (after["error_code"], after["error_message"], after["images_published"]) == (None, None, 0)
    [claim] = worker.claim()
    assert (claim["details"]["model_id"], claim["look_only"], claim["never_tried"]) == (name, False, False)
    assert database.line(identity)["spent"] == 1
    assert database.outcomes(identity) == ["failed", None]


# Rescue.


def test_a_row_whose_lease_ran_out_is_rescued_and_the_attempt_counted(database: Database) -> None:
    identity = database.insert(database.user())
    Worker(database).claim_one()
    database.pass_time(19)
    rescuer = Worker(database, "other host")
    assert rescuer.claim() == []
    database.pass_time(2)
    [claim] = rescuer.claim()
    assert claim["identity_id"] == str(identity)
    assert database.outcomes(identity) == ["crashed", None]
    assert database.line(identity)["spent"] == 2


def test_a_rescued_row_shows_no_progress_until_there_is_some_again(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.renew([worker.claim_one()], [2])
    assert database.row(identity)["images_published"] == 2
    database.pass_time(21)
    Worker(database).claim_one()
    assert database.row(identity)["images_published"] == 0


def test_a_worker_does_not_rescue_from_itself(database: Database) -> None:
    database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    database.pass_time(60)
    assert worker.claim(holding=[attempt]) == []
    assert worker.renew([attempt]) == {"held": [attempt], "busy": []}


def test_a_publishing_row_without_an_attempt_is_due(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.claim_one()
    database.overwrite("delete from watcher.attempts")
    [claim] = worker.claim()
    assert claim["identity_id"] == str(identity)


def test_a_row_set_publishing_by_hand_is_claimed_once(database: Database) -> None:
    identity = database.insert(database.user())
    database.run("update public.trained_identities set status = 'publishing'")
    assert ids(Worker(database).claim(4)) == [identity]
    assert database.outcomes(identity) == [None]
    assert database.line(identity)["spent"] == 1


@pytest.mark.parametrize("status", ["pending", "publishing"])
def test_a_row_that_came_while_triggers_were_off_is_found_and_claimed_once(
    database: Database, status: str
) -> None:
    user = database.user()
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths, status) values (%s, 'Ada', %s, %s)",
        [user, database.upload(user), status],
    )
    worker = Worker(database)
    [claim] = worker.claim(4)
    assert worker.claim(4, [claim["attempt"]]) == []
    assert database.outcomes(UUID(claim["identity_id"])) == [None]


def test_a_pending_row_taken_from_its_worker_by_hand_is_due_and_the_worker_has_lost(
    database: Database,
) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    database.run("update public.trained_identities set status = 'pending'")
    assert database.outcomes(identity) == ["revoked"]
    assert worker.complete(attempt) == "lost"
    assert ids(worker.claim()) == [identity]


# The same host, restarted.


def test_a_successor_takes_its_predecessors_rows_at_once(database: Database) -> None:
    identity = database.insert(database.user())
    Worker(database).claim_one()
    successor = Worker(database)
    assert successor.claim() == []
    [claim] = successor.claim(predecessor_is_dead=True)
    assert claim["identity_id"] == str(identity)
    assert database.outcomes(identity) == ["crashed", None]


def test_a_successor_leaves_other_instances_alone(database: Database) -> None:
    database.insert(database.user())
    Worker(database, "other host").claim_one()
    assert Worker(database).claim(predecessor_is_dead=True) == []


def test_a_predecessors_rows_come_before_all_that_waits(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(6)]
    Worker(database).claim(2)
    assert set(ids(Worker(database).claim(2, predecessor_is_dead=True))) == set(rows[:2])


# A claim whose answer was lost.


def test_what_a_lost_answer_held_is_handed_out_again_unspent(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    lost = worker.claim_one()
    again = worker.claim_one()
    assert again != lost
    assert database.outcomes(identity) == ["released", None]
    assert database.line(identity)["spent"] == 1
    assert database.line(identity)["crashes"] == 0
    assert worker.complete(lost) == "lost"
    assert worker.complete(again) == "done"


def test_what_a_lost_answer_held_comes_before_all_that_waits(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(8)]
    worker = Worker(database)
    worker.claim(2)
    assert set(ids(worker.claim(2))) == set(rows[:2])


def test_what_a_run_has_forgotten_past_its_lease_counts_as_a_silence(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.claim_one()
    database.pass_time(21)
    worker.claim_one()
    assert database.outcomes(identity) == ["crashed", None]
    assert database.line(identity)["spent"] == 2


def test_any_number_of_lost_answers_spends_nothing(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(20):
        worker.claim_one()
    assert database.line(identity)["spent"] == 1
    assert worker.complete(worker.claim_one()) == "done"


# A row that kills its workers.


def test_a_row_that_went_silent_twice_is_handed_out_alone(database: Database) -> None:
    killer = database.insert(database.user())
    worker = Worker(database)
    die(worker, killer, 2)
    others = [database.insert(database.user()) for _ in range(3)]
    [claim] = worker.claim(4)
    assert claim["identity_id"] == str(killer)
    assert worker.claim(4, [claim["attempt"]]) == []
    assert ids(Worker(database, "other host").claim(4)) == others


def test_a_silent_row_is_not_handed_to_a_run_that_holds_something(database: Database) -> None:
    killer = database.insert(database.user())
    worker = Worker(database)
    die(worker, killer, 2)
    busy = Worker(database)
    other = database.insert(database.user())
    database.overwrite(
        "update watcher.work set turn_at = now() - interval '1 hour' where identity_id = %s", [other]
    )
    [claim] = busy.claim(4)
    assert claim["identity_id"] == str(other)
    assert busy.claim(4, [claim["attempt"]]) == []
    assert busy.complete(claim["attempt"]) == "done"
    assert ids(busy.claim(4)) == [killer]


def test_a_silent_row_that_has_waited_a_minute_lets_a_run_come_to_be_empty(database: Database) -> None:
    killer = database.insert(database.user())
    worker = Worker(database)
    die(worker, killer, 2)
    busy = Worker(database)
    first = database.insert(database.user())
    database.overwrite(
        "update watcher.work set turn_at = now() - interval '1 hour' where identity_id = %s", [first]
    )
    attempt = busy.claim_one()
    second, third = (database.insert(database.user()) for _ in range(2))
    [claim] = busy.claim(1, [attempt])
    assert claim["identity_id"] == str(second)
    database.pass_time(62)
    busy.renew([attempt, claim["attempt"]])
    assert busy.claim(4, [attempt, claim["attempt"]]) == []
    busy.complete(attempt)
    busy.complete(claim["attempt"])
    [claim] = busy.claim(4)
    assert claim["identity_id"] == str(killer)
    assert busy.complete(claim["attempt"]) == "done"
    assert ids(busy.claim(4)) == [third]


def test_a_word_ends_the_silence(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    die(worker, identity, 2)
    worker.defer(worker.claim_one())
    database.pass_time(600)
    other = database.insert(database.user())
    assert ids(worker.claim(4)) == [identity, other]


def test_a_release_leaves_the_suspicion(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    die(worker, identity, 2)
    worker.release(worker.claim_one())
    database.insert(database.user())
    assert ids(worker.claim(4)) == [identity]


def test_one_row_of_six_that_kills_every_worker_ends_and_the_other_five_are_published(
    database: Database,
) -> None:
    killer, *others = (database.insert(database.user()) for _ in range(6))
    for _ in range(200):
        worker = Worker(database)
        claims = worker.claim(4, predecessor_is_dead=True)
        while str(killer) not in {claim["identity_id"] for claim in claims}:
            for claim in claims:
                assert worker.complete(claim["attempt"]) == "done"
            if not database.run("select * from watcher.work"):
                break
            database.pass_time(5)
            claims = worker.claim(4)
        else:
            continue  # killed, without a word about any row that it held
        break
    assert [database.status(identity) for identity in others] == ["published"] * 5
    row = database.row(killer)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert len(database.attempts(killer)) == 8


# Fairness.


@pytest.mark.parametrize("how", ["one by one", "in one statement"])
def test_twenty_rows_of_one_user_do_not_hold_up_anothers_one(database: Database, how: str) -> None:
    many, one = database.user(), database.user()
    paths = database.upload(many)
    if how == "one by one":
        for _ in range(20):
            database.insert(many, paths)
    else:
        database.run(
            MANY,
            [paths],
            role="authenticated",
            user=many,
        )
    database.pass_time(10)
    theirs = database.insert(one)
    claims = Worker(database).claim(3)
    assert [claim["details"]["user_id"] for claim in claims] == [str(many), str(one), str(many)]
    assert claims[1]["identity_id"] == str(theirs)


def test_rows_inserted_in_one_statement_queue_one_after_the_other(database: Database) -> None:
    user = database.user()
    database.run(
        MANY,
        [database.upload(user)],
        role="authenticated",
        user=user,
    )
    turns = [row["s"] for row in database.run(
        "select extract(epoch from turn_at - now()) as s from watcher.work order by turn_at"
    )]  # fmt: skip
    assert [round(float(turn - turns[0])) for turn in turns] == [30 * number for number in range(20)]
    assert turns[0] <= 0


def test_a_user_with_many_open_rows_is_not_put_off_for_ever(database: Database) -> None:
    many = database.user()
    paths = database.upload(many)
    first, second = (database.insert(many, paths) for _ in range(2))
    worker = Worker(database)
    worker.complete(worker.claim_one())
    assert database.status(first) == "published"
    for _ in range(5):
        database.pass_time(20)
        database.insert(database.user())
    assert second in ids(worker.claim(3))


# Locked rows and races.


def test_a_row_that_somebody_has_locked_is_passed_over(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(3)]
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities where id = %s for update", [rows[0]])
        worker = Worker(database)
        claims = worker.claim(4)
        assert ids(claims) == rows[1:]
    assert ids(worker.claim(4, [claim["attempt"] for claim in claims])) == rows[:1]


def test_a_claim_waits_for_no_locked_row_that_came_while_triggers_were_off(database: Database) -> None:
    user = database.user()
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths) values (%s, 'Ada', %s)",
        [user, database.upload(user)],
    )
    worker = Worker(database, own_connection=True)
    worker.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities for update")
        assert worker.claim() == []
    assert len(worker.claim()) == 1


def test_two_claims_at_once_never_hand_out_the_same_row(database: Database) -> None:
    rows = {database.insert(database.user()) for _ in range(6)}
    first, second = (Worker(database, name, own_connection=True) for name in ("one", "two"))
    with first.connection.transaction():
        mine = first.claim(3)
        theirs = second.claim(6)
    assert len(mine) == 3
    assert set(ids(theirs)) == rows - set(ids(mine))


def test_a_rescue_and_a_renewal_at_once_leave_one_holder(database: Database) -> None:
    database.insert(database.user())
    holder, rescuer = (Worker(database, name, own_connection=True) for name in ("one", "two"))
    attempt = holder.claim_one()
    database.pass_time(21)
    with ThreadPoolExecutor() as threads:
        with holder.connection.transaction():
            assert holder.renew([attempt])["held"] == [attempt]
            rescue = threads.submit(rescuer.claim)
            database.wait_until_blocked(rescuer.connection)
        assert rescue.result() == []
    assert holder.complete(attempt) == "done"


def test_a_completion_waits_for_the_rescue_and_then_has_lost(database: Database) -> None:
    identity = database.insert(database.user())
    holder, rescuer = (Worker(database, name, own_connection=True) for name in ("one", "two"))
    attempt = holder.claim_one()
    holder.reserve(attempt)
    database.pass_time(21)
    with ThreadPoolExecutor() as threads:
        with rescuer.connection.transaction():
            taken = rescuer.claim_one()
            late = threads.submit(holder.complete, attempt)
            database.wait_until_blocked(holder.connection)
        assert late.result() == "lost"
    assert rescuer.complete(taken) == "done"
    assert database.outcomes(identity) == ["crashed", "published"]


def test_many_workers_at_once_publish_every_row_exactly_once(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(60)]

    def work(number: int) -> int:
        worker = Worker(database, f"host {number}", own_connection=True)
        done = 0
        while claims := worker.claim(3):
            done += sum(worker.complete(claim["attempt"]) == "done" for claim in claims)
        return done

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(work, range(6))) == len(rows)
    assert [database.status(row) for row in rows] == ["published"] * 60
    assert database.value("select count(*) from watcher.attempts") == 60
    assert database.value("select count(distinct model_id) from public.trained_identities") == 60
