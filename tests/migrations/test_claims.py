"""What a claim answers, in which words a budget ends, whose turn it is, and what it does about locks.

Who may have which row and when is walked in test_state_machine.py.
"""

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


def crash(worker: Worker, identity: UUID, times: int) -> None:
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


def test_a_claim_names_what_is_stored_under_each_path_in_their_order(database: Database) -> None:
    user = database.user()
    paths = database.upload(user, 4)
    one = {"size": 9, "eTag": '"e"', "mimetype": "image/png"}
    for path, metadata in zip(paths, (one, {}, {"size": "odd"}), strict=False):
        database.run(
            "update storage.objects set metadata = %s, version = 'v' where name = %s",
            [Jsonb(metadata), path],
            role="supabase_admin",
        )
    database.insert(user, paths[::-1])
    database.overwrite("delete from storage.objects where name = %s", [paths[3]])
    [claim] = Worker(database).claim()
    assert claim["details"]["objects"] == [
        [None, None, None],
        ["odd", None, "v"],
        [None, None, "v"],
        [9, '"e"', "v"],
    ]


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
            "objects": [[None, None, None]] * 4,
            "failed_by_image": None,
        },
        "look_only": False,
        "exhausted": None,
        "never_tried": True,
    }
    assert row["status"] == "publishing"


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


# Deferral.


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


def test_eight_crashes_and_no_repo_end_the_row(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    crash(worker, identity, 8)
    assert worker.claim() == []
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert (
        row["error_message"]
        == "Gave up after 8 attempts. The last one: The lease expired: the worker crashed or lost contact."
    )
    assert database.outcomes(identity) == ["crashed"] * 8


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


def test_a_look_that_cannot_ask_the_hub_ends_the_row_with_the_reason_before(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    wear_out(worker, identity, "The disk was full.")
    assert worker.defer(worker.claim_one(), "The Hub could not be asked.") == "done"
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"] == "Gave up after 8 attempts. The last one: The disk was full."


# Rows that are in no queue.


def test_a_publishing_row_without_an_attempt_is_due(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    worker.claim_one()
    database.overwrite("delete from watcher.attempts")
    [claim] = worker.claim()
    assert claim["identity_id"] == str(identity)


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


# A claim whose answer was lost.


def test_the_third_lost_answer_in_a_row_counts_and_is_deferred(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    lost = [worker.claim_one() for _ in range(3)]
    assert worker.claim() == []
    assert database.outcomes(identity) == ["released", "released", "deferred"]
    row, line = database.row(identity), database.line(identity)
    assert (row["status"], line["spent"], line["lost_answers"]) == ("pending", 1, 0)
    assert line["last_reason"] == "The answers to three claims in a row were lost."
    assert 3 < (row["next_attempt_at"] - row["updated_at"]).total_seconds() < 7
    assert worker.complete(lost[-1]) == "lost"


def test_lost_answers_alone_end_a_row_within_its_budget(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(8):
        for _ in range(3):
            worker.claim_one()
        assert worker.claim() == []
        database.pass_time(1200)
    row = database.row(identity)
    assert (row["status"], row["error_code"]) == ("failed", "attempts_exhausted")
    assert row["error_message"].endswith("The answers to three claims in a row were lost.")
    assert len(database.attempts(identity)) == 24


def test_lost_answers_and_releases_in_turn_spend_something(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    for _ in range(3):
        worker.claim_one()
        for claim in worker.claim():
            worker.release(claim["attempt"], cause="outage")
    assert database.outcomes(identity) == ["released"] * 4 + ["deferred"]
    assert database.line(identity)["spent"] == 1


# A row that kills its workers.


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


def make_way_for(killer: UUID, *runs: Worker) -> list[int]:
    """Let each run hold something, and the killer have waited for more than a minute; the attempts that are held."""
    database = runs[0].database
    held = []
    for run in runs:
        first = database.insert(database.user())
        database.overwrite(
            "update watcher.work set turn_at = now() - interval '1 hour' where identity_id = %s", [first]
        )
        held.append(run.claim_one())
    database.pass_time(62)
    for run, attempt in zip(runs, held, strict=True):
        run.renew([attempt], lease=60)
    return held


def test_only_the_first_run_that_meets_it_makes_way(database: Database) -> None:
    killer = database.insert(database.user())
    crash(Worker(database), killer, 2)
    first, second = Worker(database, "first"), Worker(database, "second")
    one, two = make_way_for(killer, first, second)
    assert first.claim(4, [one]) == []
    assert database.line(killer)["isolated_for"] == first.run
    other = database.insert(database.user())
    assert first.claim({"erase": 2}, [one]) == first.claim(4, [one]) == []
    assert ids(second.claim(4, [two])) == [other]
    assert first.complete(one) == "done"
    assert ids(first.claim(4)) == [killer]
    assert database.line(killer)["isolated_for"] is None


def test_a_run_that_makes_way_takes_nothing_of_any_kind(database: Database) -> None:
    failed = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    worker.fail(attempt)
    assert database.work(failed, "erase")
    killer = database.insert(database.user())
    crash(worker, killer, 2)
    busy = Worker(database, "busy")
    [held] = make_way_for(killer, busy)
    assert busy.claim(1, [held]) == []
    assert busy.claim({"erase": 2}, [held]) == [], (
        "Though it has no slot for the killer's kind at the moment."
    )
    assert len(Worker(database, "other").claim({"erase": 2})) == 1


def test_another_makes_way_when_the_first_has_not_been_heard_for_half_a_minute(database: Database) -> None:
    killer = database.insert(database.user())
    crash(Worker(database), killer, 2)
    first, second = Worker(database, "first"), Worker(database, "second")
    one, two = make_way_for(killer, first, second)
    assert first.claim(4, [one]) == []
    for heard, named in ((29, first), (31, second)):
        database.pass_time(29 if heard == 29 else 2)
        second.renew([two], lease=60)
        assert second.claim(4, [two]) == []
        assert database.line(killer)["isolated_for"] == named.run, f"The first was heard {heard} s ago."


def test_a_run_that_is_idle_takes_it_whoever_makes_way(database: Database) -> None:
    killer = database.insert(database.user())
    crash(Worker(database), killer, 2)
    busy = Worker(database, "busy")
    [held] = make_way_for(killer, busy)
    assert busy.claim(4, [held]) == []
    assert ids(Worker(database, "idle").claim(4)) == [killer]
    other = database.insert(database.user())
    assert ids(busy.claim(4, [held])) == [other]


def test_a_row_that_was_waited_for_and_need_not_be_alone_any_more_is_handed_out_once(
    database: Database,
) -> None:
    killer = database.insert(database.user())
    worker, busy = Worker(database), Worker(database, "busy")
    crash(worker, killer, 1)
    late = worker.claim_one()
    [held] = make_way_for(killer, busy)
    database.pass_time(50)
    assert busy.claim(4, [held]) == []
    assert database.line(killer)["isolated_for"] == busy.run
    assert worker.release(late, cause="outage") == "done", "It was only slow."
    busy.complete(held)
    assert ids(busy.claim(4)) == [killer]


# One name, two machines.


def test_a_name_is_one_machines_until_that_was_silent_for_half_a_minute(database: Database) -> None:
    identity = database.insert(database.user())
    here, there = Worker(database), Worker(database, machine="there")
    attempt = here.claim_one()
    answer = there.ask(predecessor_is_dead=True)
    assert 29 < answer["name_taken"].pop("seconds") <= 30
    assert answer == {
        "claims": [], "next_due_seconds": None, "name_taken": {"machine": "here"}
    }  # fmt: skip
    database.pass_time(20)
    here.renew([attempt], lease=60)
    database.pass_time(29)
    assert "name_taken" in there.ask(predecessor_is_dead=True)
    database.pass_time(2)
    answer = there.ask(predecessor_is_dead=True)
    assert "name_taken" not in answer
    assert answer["claims"] == [], "A lock proves nothing about another machine: the lease runs on."
    assert "name_taken" in here.ask(holding=[attempt])
    assert here.complete(attempt) == "done"
    assert database.status(identity) == "published"


def test_a_machine_that_waits_for_a_name_is_not_heard_itself(database: Database) -> None:
    here, there = Worker(database), Worker(database, machine="there")
    here.claim()
    for _ in range(3):
        database.pass_time(9)
        assert "name_taken" in there.ask()
    database.pass_time(4)
    assert "name_taken" not in there.ask()


def test_a_restart_on_one_machine_and_another_name_on_another_wait_for_nobody(database: Database) -> None:
    Worker(database).claim()
    assert "name_taken" not in Worker(database).ask()
    assert "name_taken" not in Worker(database, "other host", machine="there").ask()


def test_a_name_that_somebody_has_locked_does_not_hold_up_a_claim(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database, own_connection=True)
    worker.claim(0)
    worker.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from watcher.instances for update")
        [claim] = worker.claim()
        assert claim["identity_id"] == str(identity)
        assert worker.renew([claim["attempt"]])["held"] == [claim["attempt"]]


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
