"""Training: what a user asks for, what it may cost, and that each training has one job, which ends with its row."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Database, Row, Worker
from tests.support.trainings import (
    PRICE,
    WORST,
    Trainer,
    ask,
    asked,
    costs,
    due,
    published,
    ready,
    running,
    store_samples,
    switch_on,
    training,
)

pytestmark = pytest.mark.postgres

DAY = "date_trunc('day', now(), 'UTC')"


@pytest.fixture(autouse=True)
def _switched_on(database: Database) -> None:
    switch_on(database)


@pytest.fixture
def trainer(database: Database) -> Trainer:
    return Trainer(database)


def lines(database: Database, identity: UUID | None = None) -> dict[str, list[str]]:
    """What is to be erased, of one row or of all."""
    query = "select what, name from watcher.erase_lines where identity_id = coalesce(%s, identity_id) order by name"
    found: dict[str, list[str]] = {}
    for row in database.run(query, [identity]):
        found.setdefault(row["what"], []).append(row["name"])
    return found


def limit(database: Database, value: int | None, user: UUID | None = None) -> None:
    Worker(database).call("set_limit", name="trainings_per_day", value=value, user=user)


def job_line(database: Database, identity: UUID) -> str:
    return f"acme/{training(database, identity)['label']}"


# Asking for it.


def test_a_row_that_asks_at_insert_is_trained_once_it_is_published(
    database: Database, trainer: Trainer
) -> None:
    identity = database.insert(database.user(), train=True, trigger_word="ohwx person")
    assert database.row(identity)["training_requested_at"] is not None
    assert database.work(identity, "train") == {}
    worker = Worker(database)
    worker.complete(worker.claim_one())
    [claim] = trainer.claim({"train": 1})
    row = database.row(identity)
    assert claim["details"] == {
        "user_id": str(row["user_id"]), "model_id": row["model_id"], "commit_sha": "c0ffee",
        "trigger_word": "ohwx person", "base": "black-forest-labs/FLUX.2-klein-base-4B", "flavor": "l40sx1",
        "minutes": 60, "learning_rate": None, "steps": None, "prompts": None, "training": None,
        "first_look_seconds": 10, "settled_after_seconds": 150,
    }  # fmt: skip


def test_a_row_that_does_not_ask_is_not_trained(database: Database) -> None:
    identity = published(database)
    assert database.row(identity)["training_requested_at"] is None
    assert database.work(identity, "train") == {}


@pytest.mark.parametrize("lead", [published, ready])
def test_a_published_and_a_ready_row_can_ask(database: Database, lead: Any) -> None:
    identity = lead(database)
    assert ask(database, identity)
    assert database.row(identity)["training_requested_at"] is not None
    work = database.work(identity, "train")
    assert ask(database, identity), "To ask twice changes nothing."
    assert database.work(identity, "train") == work != {}


def test_no_other_row_can_ask(database: Database) -> None:
    pending, failed = (database.insert(database.user()) for _ in range(2))
    worker = Worker(database)
    for claim in worker.claim():
        worker.fail(claim["attempt"]) if claim["identity_id"] == str(failed) else worker.release(
            claim["attempt"]
        )
    assert not ask(database, pending)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(database, failed)
    user = database.row(failed)["user_id"]
    again = "update public.trained_identities set status = 'pending', train = true"
    database.run(again, role="authenticated", user=user)
    assert database.row(failed)["training_requested_at"] is not None
    assert database.work(failed, "train") == {}
    worker.complete(next(c["attempt"] for c in worker.claim() if c["identity_id"] == str(failed)))
    assert database.work(failed, "train")


@pytest.mark.parametrize(
    ("lead", "status"),
    [
        *((published, status) for status in ("training", "ready", "pending", "failed")),
        *((ready, status) for status in ("training", "pending", "failed")),
    ],
)
def test_a_user_who_asks_changes_no_status(database: Database, lead: Any, status: str) -> None:
    identity = lead(database)
    row = database.row(identity)
    query = "update public.trained_identities set train = true, status = %s"
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.CheckViolation)):
        database.run(query, [status], role="authenticated", user=row["user_id"])
    assert database.row(identity) == row


@pytest.mark.parametrize("claimed", [False, True])
def test_a_training_that_waits_can_be_withdrawn(database: Database, trainer: Trainer, claimed: bool) -> None:
    identity = asked(database)
    attempt = trainer.take() if claimed else None
    assert ask(database, identity, train=False)
    assert database.work(identity, "train") == {}
    assert database.row(identity)["training_requested_at"] is None
    if attempt is not None:
        assert trainer.start(attempt) == {"result": "lost"}
        assert database.outcomes(identity, "train") == ["revoked"]
    assert training(database, identity) == {}
    assert ask(database, identity)
    assert trainer.start(trainer.take())["result"] == "started"


def test_a_training_that_has_started_is_not_withdrawn(database: Database) -> None:
    identity = running(database)
    before = database.row(identity)
    assert not ask(database, identity, train=False)
    assert database.row(identity) == before


def test_who_asks_and_withdraws_again_and_again_waits(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    for _ in range(5):
        for claim in trainer.claim({"train": 1}):
            assert trainer.postpone(claim["attempt"], "budget") == "done"
        assert ask(database, identity, train=False)
        assert ask(database, identity)
    row, work = database.row(identity), database.work(identity, "train")
    assert work["next_at"] == row["training_waits_until"] is not None
    assert trainer.claim({"train": 1}) == []
    assert len(database.attempts(identity, "train")) == 4
    database.pass_time(61)
    assert trainer.start(trainer.take())["result"] == "started"


@pytest.mark.parametrize("word", ["", " ohwx", "a-b c d e f", "Ohwx!", "x" * 41, "ohwx\nperson"])
def test_a_trigger_word_is_plain(database: Database, word: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="The trigger word must be one to four words"):
        database.insert(database.user(), trigger_word=word)


# What cannot be written.


@pytest.mark.parametrize(
    ("lead", "change", "constraint"),
    [
        (published, "status = 'training'", "training_rows_are_asked_for"),
        (published, "status = 'training', train = true, training_waits_until = now()", "only_waiting_trainings_wait"),
        (published, "training_waits_until = now(), train = true, status = 'training'", "only_waiting_trainings_wait"),
        (published, "training_commit_sha = 'beef', training_seconds = 1", "ready_rows_have_weights"),
        (published, "sample_paths = '{a}'", "weights_are_described"),
        (published, "training_seconds = 1", "weights_are_described"),
        (published, "training_error_code = 'x'", "failed_trainings_say_why"),
        (published, "training_error_message = 'X.'", "failed_trainings_say_why"),
        (running, "train = false", "training_rows_are_asked_for"),
        (running, "training_error_code = 'x', training_error_message = 'X.'", "failed_trainings_say_why"),
        (running, "status = 'ready'", "ready_rows_have_weights"),
        (running, "model_id = null", "published_rows_are_whole"),
        (running, "commit_sha = null", "published_rows_say_where"),
        (ready, "training_commit_sha = null, training_seconds = null, sample_paths = null", "ready_rows_have_weights"),
        (ready, "training_seconds = null", "weights_are_described"),
        (ready, "images_published = 0", "published_rows_are_whole"),
        (ready, "training_error_code = 'No', training_error_message = 'X.'", "training_error_code_is_a_word"),
    ],
)  # fmt: skip
def test_a_row_that_contradicts_itself_cannot_be_written(
    database: Database, lead: Any, change: str, constraint: str
) -> None:
    lead(database)
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        database.run(f"update public.trained_identities set {change}")
    assert error.value.diag.constraint_name == constraint


def test_an_identity_has_one_open_training(database: Database) -> None:
    identity = running(database)
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.run(
            "insert into watcher.trainings (label, identity_id, started_by, namespace, base, flavor, minutes, "
            "usd_per_minute, reserved_usd) values ('x', %s, 1, 'acme', 'a/b', 'x', 1, 1, 1)",
            [identity],
        )


# Whether it may start.


def test_a_training_that_starts_reserves_what_it_may_cost(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    answer = trainer.start(trainer.take())
    row, started = database.row(identity), training(database, identity)
    assert answer == {"result": "started", "label": started["label"]}
    assert (row["status"], row["train"], row["training_waits_until"]) == ("training", True, None)
    assert float(started["reserved_usd"]) == pytest.approx(WORST)
    assert costs(database) == pytest.approx((0, WORST))


@pytest.mark.parametrize("price", [-0.01, 101, None])
def test_a_price_that_cannot_be_is_refused(database: Database, trainer: Trainer, price: float) -> None:
    asked(database)
    attempt = trainer.take()
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        trainer.start(attempt, price)


def test_what_stands_against_a_training_is_said(database: Database, trainer: Trainer) -> None:
    user = database.user()
    first, second = (asked(database, user) for _ in range(2))
    attempts = trainer.take(first), 0
    limit(database, 0, user)
    assert trainer.start(attempts[0]) == {"result": "never"}
    limit(database, None, user)
    assert trainer.start(attempts[0])["result"] == "started"
    [again] = [c["attempt"] for c in trainer.claim({"train": 4}, [attempts[0]])]
    assert trainer.start(again) == {"result": "user"}
    limit(database, 2, user)
    assert trainer.start(again, 0.05) == {"result": "budget"}
    Worker(database).call("set_training", settings=Jsonb({"enabled": False}))
    assert trainer.start(again) == {"result": "off"}
    switch_on(database)
    assert trainer.start(again)["result"] == "started"
    assert database.status(second) == "training"


def test_what_is_deleted_gives_no_training_back(database: Database, trainer: Trainer) -> None:
    user = database.user()
    running(database, user)
    database.run("delete from public.trained_identities", role="authenticated", user=user)
    asked(database, user)
    assert trainer.start(trainer.take()) == {"result": "user"}


@pytest.mark.parametrize("because", ["user", "budget"])
def test_over_a_limit_a_training_waits_until_tomorrow(
    database: Database, trainer: Trainer, because: str
) -> None:
    identity = asked(database)
    attempt = trainer.take()
    assert trainer.postpone(attempt, because) == trainer.postpone(attempt, because) == "done"
    row, work = database.row(identity), database.work(identity, "train")
    tomorrow = database.value(f"select {DAY} + interval '1 day'")
    assert row["training_waits_until"] == tomorrow
    assert 0 <= (work["next_at"] - tomorrow).total_seconds() <= 60
    assert (row["status"], work["spent"]) == ("published", 0)
    assert trainer.claim({"train": 1}) == []
    database.pass_time(86460)
    assert trainer.start(trainer.take())["result"] == "started"
    assert database.row(identity)["training_waits_until"] is None


def test_no_row_waits_for_something_else(database: Database, trainer: Trainer) -> None:
    asked(database)
    attempt = trainer.take()
    for because in ("never", "", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            trainer.postpone(attempt, because or "")
    assert trainer.start(attempt)["result"] == "started"
    assert trainer.postpone(attempt, "budget") == "lost", "It has started."


def test_trainings_that_are_switched_off_wait_until_they_are_switched_on(
    database: Database, trainer: Trainer
) -> None:
    before, late = asked(database), asked(database)
    attempt = trainer.take(late)
    assert Worker(database).call("set_training", settings=Jsonb({"enabled": False}))["enabled"] is False
    assert trainer.postpone(attempt, "off") == trainer.postpone(attempt, "off") == "done"
    after = asked(database)
    rows = before, late, after
    assert [database.work(row, "train") for row in rows] == [{}, {}, {}]
    assert trainer.claim({"train": 4, "follow": 1}) == []
    assert all(database.row(row)["train"] for row in rows)
    switch_on(database)
    assert {claim["identity_id"] for claim in trainer.claim({"train": 4})} == {str(row) for row in rows}


def test_what_has_started_goes_on_when_trainings_are_switched_off(
    database: Database, trainer: Trainer
) -> None:
    identity = running(database)
    Worker(database).call("set_training", settings=Jsonb({"enabled": False}))
    due(database, identity)
    attempt = trainer.take()
    trainer.ended(attempt)
    assert trainer.trained(attempt) == "done"
    assert database.status(identity) == "ready"


# Money.


def test_trainings_that_start_at_once_never_cost_more_than_the_day_has(database: Database) -> None:
    """Six of them, and money for two."""
    rows = [asked(database) for _ in range(6)]
    trainers = [Trainer(database, f"host {number}", own_connection=True) for number in range(6)]
    attempts = [one.take() for one in trainers]
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda pair: pair[0].start(pair[1])["result"], zip(trainers, attempts, strict=True))
        )
    assert sorted(answers) == ["budget"] * 4 + ["started"] * 2
    assert costs(database) == pytest.approx((0, 2 * WORST))
    assert sum(database.status(row) == "training" for row in rows) == 2


def test_a_start_waits_for_one_that_is_not_committed(database: Database) -> None:
    switch_on(database, usd_a_day=3)
    for _ in range(2):
        asked(database)
    first, second = (Trainer(database, name, own_connection=True) for name in ("one", "two"))
    attempts = first.take(), second.take()
    with ThreadPoolExecutor(1) as pool:
        with first.connection.transaction():
            assert first.start(attempts[0])["result"] == "started"
            later = pool.submit(second.start, attempts[1])
            database.wait_until_blocked(second.connection)
        assert later.result() == {"result": "budget"}


@pytest.mark.parametrize(
    ("billed", "spent"), [(600, 10 * PRICE), (601, 11 * PRICE), (0, 0), (-1, 0), (9000, 150 * PRICE)]
)
def test_a_training_costs_what_its_job_took(
    database: Database, trainer: Trainer, billed: float, spent: float
) -> None:
    identity = running(database)
    due(database, identity)
    attempt = trainer.take()
    assert trainer.ended(attempt, billed=billed) == trainer.ended(attempt, billed=60) == "done"
    assert costs(database) == pytest.approx((spent, 0))


def test_where_the_hub_does_not_say_it_costs_all_that_can_have_passed(
    database: Database, trainer: Trainer
) -> None:
    identity = running(database)
    database.overwrite("update watcher.trainings set intent_at = now() - interval '610 seconds'")
    due(database, identity)
    trainer.ended(trainer.take(), billed=None)
    assert costs(database) == pytest.approx((11 * PRICE, 0))


def test_a_day_begins_at_midnight_in_utc(database: Database, trainer: Trainer) -> None:
    user = database.user()
    identity = running(database, user)
    database.overwrite(f"update watcher.trainings set started_at = {DAY}")
    assert costs(database) == pytest.approx((0, WORST))
    database.overwrite(f"update watcher.trainings set started_at = {DAY} - interval '1 microsecond'")
    database.overwrite(f"update watcher.usage set hour = {DAY} - interval '1 hour' where trainings > 0")
    assert database.run("select * from watcher.training_costs()") == [{"spent": 0, "reserved": 0}]
    for _ in range(2):
        asked(database, user)
    attempts = [claim["attempt"] for claim in trainer.claim({"train": 4})]
    assert [trainer.start(attempt)["result"] for attempt in attempts] == ["started", "user"]
    assert database.status(identity) == "training"


def test_a_training_that_the_hub_did_not_take_costs_and_counts_nothing(
    database: Database, trainer: Trainer
) -> None:
    user = database.user()
    identity = asked(database, user)
    attempt = trainer.take()
    for _ in range(2):
        assert trainer.start(attempt)["result"] == "started"
        assert trainer.call("training_undo", attempt=attempt) == "done"
        assert trainer.call("training_undo", attempt=attempt) == "done"
    assert (database.status(identity), database.row(identity)["train"]) == ("published", True)
    assert costs(database) == (0, 0)
    assert database.value("select sum(trainings) from watcher.usage") == 0
    assert trainer.release(attempt, cause="outage") == "done"
    assert trainer.start(trainer.take())["result"] == "started"


def test_a_training_that_is_undone_was_ready_before(database: Database, trainer: Trainer) -> None:
    user = database.user()
    identity = ready(database, user)
    limit(database, 2, user)
    ask(database, identity)
    attempt = trainer.take()
    trainer.start(attempt)
    trainer.call("training_undo", attempt=attempt)
    assert database.status(identity) == "ready"


def test_the_deadline_of_a_training_that_was_undone_is_none_of_the_next(
    database: Database, trainer: Trainer
) -> None:
    identity = asked(database)
    attempt = trainer.take()
    trainer.start(attempt)
    assert trainer.look_later(attempt, 60) == "waited"  # its request was not answered
    database.pass_time(3600)
    attempt = trainer.take()
    trainer.call("training_undo", attempt=attempt)
    trainer.release(attempt, cause="outage")
    database.pass_time(9 * 3600)  # no credit
    attempt = trainer.take()
    assert trainer.start(attempt)["result"] == "started"
    assert trainer.job(attempt) == "done"
    assert trainer.look_later(attempt) == "waited"
    assert database.status(identity) == "training"


def test_money_that_is_free_again_starts_who_has_waited_longest(database: Database, trainer: Trainer) -> None:
    switch_on(database, usd_a_day=2.5)
    first = running(database)
    limited, *others = database.user(), *(asked(database) for _ in range(2))
    never = asked(database, limited)
    for row in (never, *others):
        because = "user" if row == never else "budget"
        trainer.postpone(trainer.take(row), because)
    database.overwrite(
        "update watcher.work set created_at = created_at - interval '1 hour' where owner = %s", [limited]
    )
    due(database, first)
    attempt = trainer.take(first)
    assert trainer.claim({"train": 4}, [attempt]) == []
    trainer.ended(attempt, billed=60)
    [claim] = trainer.claim({"train": 4}, [attempt])
    assert claim["identity_id"] == str(others[0]), "Not who has used up a day of their own."
    assert trainer.start(claim["attempt"])["result"] == "started"
    [claim] = trainer.claim({"train": 4}, [attempt, claim["attempt"]])
    assert claim["identity_id"] == str(others[1]), "There may be money for one more."


def test_who_was_put_off_just_as_money_became_free_again_is_found(
    database: Database, trainer: Trainer
) -> None:
    switch_on(database, usd_a_day=2.5)
    first, late = running(database), asked(database)
    attempt = trainer.take(late)
    assert trainer.start(attempt) == {"result": "budget"}
    due(database, first)
    other = Trainer(database, "other")
    assert other.ended(other.take(first), billed=60) == "done"
    assert trainer.postpone(attempt, "budget") == "done"
    assert trainer.claim({"train": 4}) == []
    Worker(database).sweep()
    [claim] = trainer.claim({"train": 4})
    assert claim["identity_id"] == str(late)
    assert trainer.start(claim["attempt"])["result"] == "started"


def test_more_money_wakes_who_waits_for_it_and_who_backs_off_goes_on_backing_off(
    database: Database, trainer: Trainer
) -> None:
    backs_off, waits = asked(database), asked(database)
    trainer.defer(trainer.take(backs_off))
    trainer.postpone(trainer.take(waits), "budget")
    switch_on(database, usd_a_day=50)
    assert [claim["identity_id"] for claim in trainer.claim({"train": 4})] == [str(waits)]


@pytest.mark.parametrize("because", ["user", "never"])
def test_who_cannot_take_the_money_leaves_it_to_the_next(
    database: Database, trainer: Trainer, because: str
) -> None:
    woken, waits = asked(database), asked(database)
    for row in (woken, waits):
        trainer.postpone(trainer.take(row), "budget")
    switch_on(database, usd_a_day=6)
    attempt = trainer.take()
    assert trainer.claim({"train": 4}, [attempt]) == []
    if because == "user":
        trainer.postpone(attempt, because)
    else:
        trainer.fail(attempt, "training_refused", "No trainings are offered to you at present.")
    assert [claim["identity_id"] for claim in trainer.claim({"train": 4})] == [str(waits)]


@pytest.mark.parametrize("everybody", [False, True])
def test_another_limit_of_a_user_is_tried_at_once(
    database: Database, trainer: Trainer, everybody: bool
) -> None:
    user, other = database.user(), database.user()
    mine, theirs = asked(database, user), asked(database, other)
    for row in (mine, theirs):
        trainer.postpone(trainer.take(row), "user")
    limit(database, 5, None if everybody else user)
    woken = {claim["identity_id"] for claim in trainer.claim({"train": 4})}
    assert woken == ({str(mine), str(theirs)} if everybody else {str(mine)})


# One job a training.


def test_a_start_that_is_repeated_starts_one_training(database: Database, trainer: Trainer) -> None:
    asked(database)
    attempt = trainer.take()
    assert trainer.start(attempt) == trainer.start(attempt)
    assert database.value("select count(*) from watcher.trainings") == 1
    assert database.value("select sum(trainings) from watcher.usage") == 1


def test_the_next_attempt_is_told_how_far_the_training_is(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    attempt = trainer.take()
    began = database.value("select clock_timestamp()")
    label = trainer.start(attempt)["label"]
    database.pass_time(21)  # its worker is killed

    def since(moment: Any) -> float:
        return float(database.value("select extract(epoch from clock_timestamp() - %s)", [moment]))

    def told() -> Any:
        [claim] = trainer.claim({"train": 1})
        return claim["attempt"], claim["details"]["training"]

    attempt, facts = told()
    assert (facts["label"], facts["job"]) == (label, None)
    assert 21 <= facts["intent_age_seconds"] <= facts["age_seconds"] <= 21 + since(began)
    assert trainer.start(attempt)["result"] == "lost", "It has started already."
    again = database.value("select clock_timestamp()")
    assert trainer.call("training_intend", attempt=attempt) == "done"
    database.pass_time(21)
    attempt, facts = told()
    assert 21 <= facts["intent_age_seconds"] <= 21 + since(again)
    assert 42 <= facts["age_seconds"] <= 42 + since(began)
    assert trainer.job(attempt, "job1", "RUNNING") == trainer.job(attempt, "job1", "RUNNING") == "done"
    assert database.row(identity)["training_url"] == "https://hub/jobs/acme/job1"
    trainer.release(attempt)
    attempt, facts = told()
    assert facts["job"] == "job1"
    assert facts["job_ended_seconds_ago"] is None
    trainer.ended(attempt)
    trainer.release(attempt)
    assert told()[1]["job_ended_seconds_ago"] is not None
    assert database.value("select count(*) from watcher.trainings") == 1


def test_what_the_settings_say_later_changes_no_training_that_has_started(
    database: Database, trainer: Trainer
) -> None:
    identity = running(database)
    switch_on(database, flavor="h200", minutes=30, base="a/b")
    due(database, identity)
    [claim] = trainer.claim({"train": 1})
    told = claim["details"]
    assert (told["flavor"], told["minutes"], told["base"]) == (
        "l40sx1",
        60,
        "black-forest-labs/FLUX.2-klein-base-4B",
    )


def test_a_job_that_gave_way_to_an_older_one_is_not_the_trainings_end(
    database: Database, trainer: Trainer
) -> None:
    identity = running(database, job="young")
    due(database, identity)
    attempt = trainer.take()
    trainer.ended(attempt, "ERROR", billed=30)
    assert trainer.job(attempt, "old", "RUNNING", doubled=True) == "done"
    assert costs(database) == pytest.approx((0, WORST))
    assert training(database, identity)["job_ended_at"] is None
    assert database.work(training(database, identity)["identity_id"], "train")
    assert Worker(database).call("training")["doubled"] == 1
    database.run("delete from public.trained_identities")
    assert "job" in lines(database, identity)


VERBS = ("start", "intend", "undo", "job", "ended", "trained", "postpone", "fail", "defer", "wait")


def try_verb(trainer: Trainer, verb: str, attempt: int) -> Any:
    match verb:
        case "start":
            return trainer.start(attempt)["result"]
        case "intend" | "undo":
            return trainer.call(f"training_{verb}", attempt=attempt)
        case "postpone":
            return trainer.postpone(attempt, "budget")
        case _:
            return getattr(trainer, verb)(attempt)


def everything(database: Database) -> list[Any]:
    tables = (
        "public.trained_identities",
        "watcher.trainings",
        "watcher.work",
        "watcher.usage",
        "watcher.erase_lines",
    )
    return [database.run(f"select * from {table} order by 1") for table in tables]


@pytest.mark.parametrize("job", [None, "job1"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_attempt_that_was_rescued_writes_nothing(
    database: Database, trainer: Trainer, verb: str, job: str | None
) -> None:
    identity = running(database, job=job)
    due(database, identity)
    late = trainer.take()
    database.pass_time(21)
    trainer.take()
    before = everything(database)
    assert try_verb(trainer, verb, late) == "lost"
    assert everything(database) == before


@pytest.mark.parametrize("verb", VERBS[:7])
def test_a_verb_of_trainings_ends_nothing_of_another_kind(
    database: Database, trainer: Trainer, verb: str
) -> None:
    identity = database.insert(database.user(), train=True)
    attempt = trainer.claim_one()
    assert try_verb(trainer, verb, attempt) == "lost"
    assert database.status(identity) == "publishing"
    assert trainer.call("followed", attempt=attempt, running=Jsonb([]))["result"] == "lost"


@pytest.mark.parametrize("verb", ["job", "ended", "trained", "intend"])
def test_without_a_training_there_is_nothing_to_write(
    database: Database, trainer: Trainer, verb: str
) -> None:
    asked(database)
    attempt = trainer.take()
    before = everything(database)
    assert try_verb(trainer, verb, attempt) == "lost"
    assert everything(database) == before


# The ends.


def test_a_training_that_ends_well_makes_its_row_ready(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    due(database, identity)
    attempt = trainer.take()
    trainer.ended(attempt)
    samples = store_samples(database, identity, 4)
    assert trainer.trained(attempt, samples) == trainer.trained(attempt, samples) == "done"
    row = database.row(identity)
    assert (row["status"], row["train"], row["training_commit_sha"]) == ("ready", False, "beef")
    assert (row["training_seconds"], row["sample_paths"]) == (540, samples)
    assert row["training_requested_at"] is None
    assert training(database, identity)["outcome"] == "ready"
    assert database.work(identity, "train") == {} == lines(database)
    assert database.outcomes(identity, "train") == ["waited", "trained"]
    assert Worker(database).call("training")["last"][0]["outcome"] == "ready"


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_a_training_that_fails_leaves_the_row_as_it_was(
    database: Database, trainer: Trainer, weights: bool, started: bool
) -> None:
    user = database.user()
    limit(database, 2, user)
    identity = ready(database, user, samples=2) if weights else published(database, user)
    before = database.row(identity)
    ask(database, identity)
    attempt = trainer.take()
    if started:
        trainer.start(attempt)
        trainer.job(attempt, "job2")
    assert trainer.fail(attempt, "training_refused", "No.") == "done"
    row = database.row(identity)
    assert (row["training_error_code"], row["training_error_message"]) == ("training_refused", "No.")
    changed = {"training_error_code", "training_error_message", "training_url", "updated_at"}
    assert {key: row[key] for key in row.keys() - changed} == {
        key: before[key] for key in row.keys() - changed
    }
    assert row["status"] == ("ready" if weights else "published")
    assert lines(database, identity) == ({"job": [job_line(database, identity)]} if started else {})
    assert ask(database, identity)
    assert database.row(identity)["training_error_code"] is None


def test_a_training_whose_attempts_are_spent_is_looked_at_once_more_and_ends(
    database: Database, trainer: Trainer
) -> None:
    identity = asked(database)
    attempt = trainer.take()
    trainer.start(attempt)
    for _ in range(8):
        trainer.defer(attempt, "The Hub is away.")
        database.pass_time(1200)
        attempt = trainer.take()
    assert trainer.defer(attempt, "Still.") == "done"
    row = database.row(identity)
    assert (row["status"], row["train"], row["training_error_code"]) == (
        "published",
        False,
        "training_failed",
    )
    assert row["training_error_message"] == "Gave up after 8 attempts. The last one: The Hub is away."
    assert lines(database, identity)["job"]
    assert database.work(identity, "train") == {}


def test_a_training_that_never_started_is_not_looked_at_again(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    for _ in range(8):
        trainer.defer(trainer.take())
        database.pass_time(1200)
    assert trainer.claim({"train": 1}) == []
    assert database.row(identity)["training_error_code"] == "training_failed"
    assert database.value("select count(*) from watcher.erasures") == 0


def test_a_training_ends_by_its_deadline(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    for _ in range(8):
        database.pass_time(3600)
        attempt = trainer.take()
        answer = trainer.look_later(attempt)
    assert answer == "failed"
    assert database.row(identity)["training_error_code"] == "training_timed_out"
    assert lines(database, identity)["job"]


def test_the_job_of_a_training_that_failed_is_cancelled_and_then_it_is_known_what_it_cost(
    database: Database, trainer: Trainer
) -> None:
    identity = running(database)
    due(database, identity)
    trainer.fail(trainer.take(), "training_timed_out", "Too long.")
    assert costs(database) == pytest.approx((0, WORST))
    [shown] = trainer.call("erasures")["open"]
    assert (shown["repos_left"], shown["photos_left"], shown["jobs_left"]) == (0, 0, 1)
    database.pass_time(300)
    [claim] = trainer.claim({"erase": 1})
    assert [(line["what"], line["name"]) for line in claim["details"]["lines"]] == [
        ("job", job_line(database, identity))
    ]
    assert trainer.erased(claim["attempt"]) == "done"
    assert costs(database) == pytest.approx((6 * PRICE, 0))
    assert lines(database) == {} == database.work(identity, "erase")
    assert database.status(identity) == "published"


@pytest.mark.parametrize("known_for", [None, 0, 31])
def test_a_job_that_no_list_may_show_yet_is_looked_for_twice(
    database: Database, trainer: Trainer, known_for: float | None
) -> None:
    identity = running(database, job=None if known_for is None else "job1")
    database.pass_time(known_for or 0)
    due(database, identity)
    trainer.fail(trainer.take(), "training_failed", "X.")
    trainer.erased(trainer.claim_one(kind="erase"))
    twice = known_for != 31
    assert bool(lines(database)) == twice
    if twice:
        assert trainer.claim({"erase": 1}) == []
        assert costs(database)[1] == pytest.approx(WORST), "It may land."
        database.pass_time(151)
        trainer.erased(trainer.claim_one(kind="erase"))
    assert lines(database) == {}
    assert costs(database)[1] == 0


def test_an_erasure_that_is_closed_counts_all_that_was_reserved(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    database.run("delete from public.trained_identities")
    assert Worker(database).call("close_erasure", id=identity, because="The namespace is gone.")
    assert costs(database) == pytest.approx((WORST, 0))


# The row goes.


@pytest.mark.parametrize("by", ["user", "account", "forget"])
@pytest.mark.parametrize("state", ["waits", "claimed", "started", "runs", "ended", "ready", "again"])
def test_a_row_that_goes_takes_its_training_along(
    database: Database, trainer: Trainer, state: str, by: str
) -> None:
    user = database.user()
    limit(database, 2, user)
    attempt = None
    match state:
        case "waits" | "claimed":
            identity = asked(database, user)
        case "ready" | "again":
            identity = ready(database, user, samples=2)
        case _:
            identity = running(database, user, job=None if state == "started" else "job1")
    if state in {"claimed", "started", "runs", "ended"}:
        due(database, identity)
        attempt = trainer.take(identity)
    if state == "ended":
        trainer.ended(attempt or 0)
    if state == "again":
        ask(database, identity)
        attempt = trainer.take(identity)
        trainer.start(attempt)
        trainer.job(attempt, "job2")
    samples = database.row(identity)["sample_paths"] or []
    match by:
        case "user":
            database.run("delete from public.trained_identities", role="authenticated", user=user)
        case "account":
            database.delete_account(user)
        case _:
            Worker(database).call("forget", user=user)
    listed = lines(database, identity)
    cancelled = [job_line(database, identity)] if state in {"started", "runs", "again"} else []
    assert listed.get("job", []) == cancelled
    assert listed.get("sample", []) == samples
    assert database.work(identity, "train") == {}
    assert database.value("select count(*) from watcher.trainings where ended_at is null") == 0
    if attempt is not None:
        assert trainer.job(attempt) == trainer.trained(attempt) == trainer.start(attempt)["result"] == "lost"
    database.unstore(samples)
    for _ in range(2):
        for claim in trainer.claim({"erase": 4}):
            database.unstore([line["name"] for line in claim["details"]["lines"]])
            trainer.erased(claim["attempt"])
        database.pass_time(200)
    assert lines(database) == {}
    assert costs(database)[1] == 0


def test_a_job_is_cancelled_at_once_whenever_the_rest_is_to_go(database: Database, trainer: Trainer) -> None:
    Worker(database).call("set_limit", name="erase_after_hours", value=24)
    identity = running(database)
    database.run("delete from public.trained_identities")
    [claim] = trainer.claim({"erase": 1})
    assert [line["what"] for line in claim["details"]["lines"]] == ["job"]
    assert {"repo", "photo"} <= lines(database, identity).keys()


def test_who_asks_to_be_forgotten_waits_for_the_repo_alone(database: Database) -> None:
    Worker(database).call("set_limit", name="erase_after_hours", value=720)
    user = database.user()
    ready(database, user, samples=2)
    database.run("delete from public.trained_identities")
    Worker(database).call("forget", user=user)
    due_now = database.run(
        "select what, bool_and(due_at <= now()) as due from watcher.erase_lines group by what"
    )
    assert {line["what"]: line["due"] for line in due_now} == {"photo": True, "repo": False, "sample": True}


def test_a_row_that_was_trained_again_loses_its_first_pictures(database: Database, trainer: Trainer) -> None:
    user = database.user()
    limit(database, 2, user)
    identity = ready(database, user, samples=2)
    old = database.row(identity)["sample_paths"]
    ask(database, identity)
    attempt = trainer.take()
    trainer.start(attempt)
    assert database.row(identity)["sample_paths"] == old, "It keeps its weights until there are new ones."
    trainer.job(attempt, "job2")
    trainer.ended(attempt)
    new = store_samples(database, identity, 3)
    assert trainer.trained(attempt, new, "f00d") == "done"
    row = database.row(identity)
    assert (row["sample_paths"], row["training_commit_sha"], row["status"]) == (new, "f00d", "ready")
    assert lines(database, identity) == {"sample": old}
    database.unstore(old)
    assert trainer.erased(trainer.claim_one(kind="erase")) == "done"
    assert database.value("select count(*) from watcher.erasures") == 0
    assert database.value("select count(*) from storage.objects where bucket_id = 'identity-samples'") == 3


def test_a_picture_that_storage_still_has_is_not_gone(database: Database, trainer: Trainer) -> None:
    identity = ready(database, samples=1)
    database.run("delete from public.trained_identities")
    [claim] = trainer.claim({"erase": 1})
    ids = [line["id"] for line in claim["details"]["lines"] if line["what"] == "sample"]
    assert trainer.call("erase_left", attempt=claim["attempt"], lines=ids) == 1
    assert trainer.erased(claim["attempt"]) == "done"
    assert lines(database, identity)["sample"]
    assert Worker(database).call("erasures")["open"][0]["photos_left"] == 4


# What nobody has listed.


def late_samples(database: Database, count: int = 1) -> list[str]:
    """Put pictures of rows that are gone into the bucket, each of another user; their keys."""
    keys = [f"{uuid4()}/{uuid4()}/x/1.png" for _ in range(count)]
    database.run(
        "insert into storage.objects (bucket_id, name) select 'identity-samples', unnest(%s::text[])",
        [keys],
        role="supabase_admin",
    )
    return sorted(keys)


def grow_old(database: Database) -> None:
    database.overwrite("update storage.objects set created_at = created_at - interval '6 minutes'")


def test_pictures_whose_row_is_gone_are_swept(database: Database) -> None:
    identity = ready(database, samples=2)
    for _ in range(30):
        database.user()
    late = late_samples(database)
    database.run(
        "insert into storage.objects (bucket_id, name) values ('identity-samples', 'readme.txt')",
        role="supabase_admin",
    )
    worker = Worker(database)
    worker.sweep()
    assert lines(database) == {}, "Its row may come yet."
    grow_old(database)
    worker.sweep()
    worker.sweep()
    assert lines(database) == {"sample": late}
    assert database.work(identity, "erase") == {}


def test_pictures_of_many_users_at_once_are_swept_when_that_is_confirmed(database: Database) -> None:
    for _ in range(30):
        database.user()
    late = late_samples(database, 21)
    grow_old(database)
    worker = Worker(database)
    assert worker.sweep()["held_uploads"] == 21
    assert lines(database) == {}
    worker.call("confirm_sweep")
    assert worker.sweep()["held_uploads"] is None
    assert lines(database) == {"sample": late}


def test_a_training_whose_row_vanished_is_cancelled(database: Database, trainer: Trainer) -> None:
    identity, _ = running(database), published(database)
    database.overwrite("delete from public.trained_identities where id = %s", [identity])
    assert trainer.claim({"train": 4}) == []
    Worker(database).sweep()
    assert lines(database, identity)["job"] == [job_line(database, identity)]
    assert training(database, identity)["outcome"] == "cancelled"


def test_trainings_are_kept_for_a_quarter_of_a_year_and_as_long_as_their_cost_is_not_known(
    database: Database,
) -> None:
    ready(database)
    running(database)
    database.overwrite(
        "update watcher.trainings set ended_at = now(), outcome = 'failed' where ended_at is null"
    )
    database.pass_time(89 * 86400)
    Worker(database).sweep()
    assert database.value("select count(*) from watcher.trainings") == 2
    database.pass_time(2 * 86400)
    Worker(database).sweep()
    assert database.value("select count(*) from watcher.trainings") == 1


# What somebody changes by hand.


def test_a_row_that_is_called_training_by_hand_is_what_it_was(database: Database, trainer: Trainer) -> None:
    first, second = published(database), ready(database)
    call_it = "update public.trained_identities set status = 'training', train = true"
    Worker(database).call("set_training", settings=Jsonb({"enabled": False}))
    database.run(call_it)
    assert trainer.claim({"train": 4}) == []
    assert [database.status(row) for row in (first, second)] == ["published", "ready"]
    switch_on(database)
    attempt = trainer.take(first)
    database.run("update public.trained_identities set status = 'training' where id = %s", [first])
    assert trainer.postpone(attempt, "budget") == "done"
    assert database.status(first) == "published"


@pytest.mark.parametrize("train", [False, True])
def test_a_training_row_that_is_changed_by_hand_has_its_job_cancelled(
    database: Database, trainer: Trainer, train: bool
) -> None:
    identity = running(database)
    due(database, identity)
    attempt = trainer.take()
    database.run("update public.trained_identities set status = 'published', train = %s", [train])
    assert lines(database, identity)["job"] == [job_line(database, identity)]
    assert trainer.trained(attempt) == "lost"
    assert database.outcomes(identity, "train")[-1] == "revoked"
    assert bool(database.work(identity, "train")) == train


def test_a_training_whose_work_was_deleted_by_hand_is_found(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    waits = asked(database)
    database.run("delete from watcher.work")
    database.run("update watcher.attempts set ended_at = now(), outcome = 'revoked' where ended_at is null")
    assert {c["identity_id"] for c in trainer.claim({"train": 4})} == {str(identity), str(waits)}


def test_however_many_wait_a_search_looks_at_a_page_of_them(database: Database, trainer: Trainer) -> None:
    page = int(database.value("select watcher.search_page()"))
    asked(database)
    database.run(
        "insert into public.trained_identities "
        "select (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid()))).* "
        "from public.trained_identities t, generate_series(2, %s)",
        [page + 5],
    )
    database.run("delete from watcher.work")
    queued = []
    for _ in range(2):
        database.run("select watcher.find_unqueued('{train}')")
        queued.append(database.value("select count(*) from watcher.work where kind = 'train'"))
    assert queued == [page, page + 5]


@pytest.mark.parametrize(("seconds", "counted"), [(20, 0), (900, 1)])
def test_what_the_first_checks_refuse_does_not_use_up_the_day(
    database: Database, trainer: Trainer, seconds: int, counted: int
) -> None:
    user = database.user()
    identity, waits, others = running(database, user), asked(database, user), asked(database)
    for row in (waits, others):
        trainer.postpone(trainer.take(row), "user")
    due(database, identity)
    attempt = trainer.take(identity)
    trainer.ended(attempt, "ERROR", seconds, seconds)
    assert trainer.fail(attempt, "training_refused", "No.") == "done"
    assert database.value("select sum(trainings) from watcher.usage") == counted
    tried = [str(waits)] if counted == 0 else []
    assert [claim["identity_id"] for claim in trainer.claim({"train": 4})] == tried


def test_who_was_put_off_just_as_the_day_had_room_again_is_found(
    database: Database, trainer: Trainer
) -> None:
    user = database.user()
    asked(database, user), asked(database, user)
    first, second = (claim["attempt"] for claim in trainer.claim({"train": 4}))
    assert trainer.start(first)["result"] == "started"
    assert trainer.start(second) == {"result": "user"}
    assert trainer.call("training_undo", attempt=first) == "done"
    assert trainer.postpone(second, "user") == "done"
    assert trainer.claim({"train": 4}, [first]) == []
    Worker(database).sweep()
    [claim] = trainer.claim({"train": 4}, [first])
    assert trainer.start(claim["attempt"])["result"] == "started"


# Following.


def test_jobs_are_followed_while_one_runs(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    attempt = trainer.take()
    label = trainer.start(attempt)["label"]
    assert trainer.claim({"follow": 1}) == []
    trainer.job(attempt)
    trainer.look_later(attempt)
    assert trainer.claim({"follow": 1}) == [], "In fifteen seconds."
    assert 0 < trainer.ask({"follow": 1})["next_due_seconds"] <= 15
    for _ in range(20):
        assert trainer.follow((label, "job1", "RUNNING")) == {"result": "done", "cancel": []}
        assert trainer.claim({"follow": 1, "train": 1}) == []
    facts = training(database, identity)
    assert (facts["stage"], facts["running_since"] is not None) == ("RUNNING", True)
    assert database.value("select count(*) from watcher.attempts where kind = 'follow'") == 0
    assert database.outcomes(identity, "train") == ["waited"]
    due(database, identity)
    attempt = trainer.take()
    trainer.ended(attempt)
    trainer.trained(attempt)
    database.pass_time(16)
    assert trainer.claim({"follow": 1}) == []
    assert database.value("select count(*) from watcher.work where kind = 'follow'") == 0


def test_a_list_whose_answer_was_lost_is_done(database: Database, trainer: Trainer) -> None:
    running(database)
    database.pass_time(15)
    attempt = trainer.claim_one(kind="follow")
    other = ("x", "y", "RUNNING")
    assert trainer.followed(attempt, other) == {"result": "done", "cancel": ["y"]}
    assert trainer.followed(attempt, other)["result"] == "done"
    database.pass_time(15)
    trainer.claim_one(kind="follow")
    database.pass_time(21)
    late, other_host = attempt + 1, Trainer(database, "other")
    other_host.claim_one(kind="follow")
    assert trainer.followed(late)["result"] == "lost"


def test_a_training_whose_job_is_no_longer_listed_looks_at_it(database: Database, trainer: Trainer) -> None:
    identity, other = running(database), running(database, job="job2")
    for _ in range(3):
        answer = trainer.follow((training(database, other)["label"], "job2", "RUNNING"))
        assert answer["cancel"] == []
        assert database.work(other, "train")["next_at"] is not None
        assert trainer.look_later(trainer.take(identity)) == "waited"
    assert database.outcomes(identity, "train") == ["waited"], "The history does not grow."


def test_a_new_job_may_be_missing_from_a_list(database: Database, trainer: Trainer) -> None:
    identity = asked(database)
    attempt = trainer.take()
    trainer.start(attempt)
    trainer.job(attempt, "job1", "SCHEDULING")
    trainer.look_later(attempt)
    woken = []
    for _ in range(2):
        trainer.follow()
        woken.append(database.work(identity, "train")["turn_at"] is not None)
    assert woken == [False, True], "For half a minute."


def test_a_training_that_backs_off_is_not_woken(database: Database, trainer: Trainer) -> None:
    """Otherwise its budget is spent within minutes, while the Hub has a bad hour."""
    identity = running(database)
    database.pass_time(60)
    trainer.follow()
    trainer.defer(trainer.take(), "The Hub is away.")
    database.run("update watcher.work set next_at = now() + interval '10 minutes' where kind = 'train'")
    for _ in range(6):
        trainer.follow()
        assert database.work(identity, "train")["next_at"] is not None


def test_jobs_that_belong_to_no_open_training_are_to_be_cancelled(
    database: Database, trainer: Trainer
) -> None:
    first, intended = running(database), running(database, job=None)
    label, other = (training(database, row)["label"] for row in (first, intended))
    answer = trainer.follow(
        (label, "job1", "RUNNING"), (label, "twin", "RUNNING"), ("9-restored", "stray", "RUNNING"),
        (other, "just landed", "SCHEDULING"),
    )  # fmt: skip
    assert sorted(answer["cancel"]) == ["stray", "twin"]
    answer = trainer.follow((label, "older twin", "RUNNING"), (label, "job1", "RUNNING"))
    assert answer["cancel"] == [], "The younger one gives way by itself, and may have done so already."
    database.run("delete from public.trained_identities where id = %s", [intended])
    assert trainer.follow((label, "job1", "RUNNING"), (other, "just landed", "RUNNING"))["cancel"] == [
        "just landed"
    ]


@pytest.mark.parametrize("running", [None, {}, "x"])
def test_a_list_that_is_none_ends_nobodys_training(
    database: Database, trainer: Trainer, running: Any
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        trainer.call("followed", attempt=1, running=None if running is None else Jsonb(running))


def test_following_goes_on_whatever_becomes_of_its_attempts(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    database.pass_time(15)
    for number in range(20):
        for claim in trainer.claim({"follow": 1}):  # none where that gives up a budget, and begins anew
            trainer.defer(claim["attempt"], "The Hub is away.") if number % 2 else None
        database.pass_time(1200)
    assert trainer.follow((training(database, identity)["label"], "job1", "RUNNING"))["result"] == "done"
    database.run("delete from watcher.work where kind = 'follow'")
    assert trainer.claim({"follow": 1}) == []
    database.pass_time(15)
    assert trainer.claim_one(kind="follow")


# Two at once.


@pytest.mark.parametrize("what", ["account", "retry"])
def test_a_start_and_its_user_wait_for_each_other_in_no_ring(database: Database, what: str) -> None:
    """An account that goes, and a change of several rows, hold what a start needs, and wait for its row."""
    user = database.user()
    failed = database.insert(user)
    worker = Worker(database)
    worker.fail(worker.claim_one())
    identity = asked(database, user)
    trainer = Trainer(database, own_connection=True)
    attempt = trainer.take()
    other = database.connect(*(("supabase_auth_admin",) if what == "account" else ("authenticated", user)))
    database.overwrite("delete from watcher.usage")  # a new hour
    holder = database.connect()
    with ThreadPoolExecutor(2) as pool:
        with holder.transaction():
            # Both have to wait here, each with what it has taken before.
            holder.execute("select from public.trained_identities where id = %s for update", [identity])
            starts = pool.submit(trainer.start, attempt)
            database.wait_until_blocked(trainer.connection)
            query = (
                "delete from auth.users where id = %s"
                if what == "account"
                else "update public.trained_identities set status = 'pending' where id = %s or status = 'published'"
            )
            changes = pool.submit(other.execute, query.encode(), [user if what == "account" else failed])
            database.wait_until_blocked(other)
        assert starts.result()["result"] == "started"
        if what == "account":
            changes.result()
            assert lines(database, identity)["job"]
        else:
            assert changes.result().rowcount == 1
            assert database.status(failed) == "pending"


def test_a_list_passes_over_what_others_have_locked(database: Database) -> None:
    rows = running(database), running(database, job="job2")
    database.pass_time(60)
    trainer = Trainer(database, own_connection=True)
    attempt = trainer.claim_one(kind="follow")
    trainer.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    label = training(database, rows[1])["label"]
    with holder.transaction():
        holder.execute("select from watcher.trainings where identity_id = %s for update", [rows[0]])
        holder.execute("select from watcher.work where identity_id = %s for update", [rows[1]])
        assert trainer.followed(attempt, (label, "job2", "UPDATING"))["result"] == "done"
    assert training(database, rows[1])["stage"] == "UPDATING"
    assert database.work(rows[0], "train")["next_at"] is not None


# The operator.


def failed_trainings(database: Database, *codes: str) -> list[UUID]:
    trainer = Trainer(database)
    rows = []
    for code in codes:
        rows.append(asked(database))
        trainer.fail(trainer.take(rows[-1]), code, "X.")
    return rows


def test_failed_trainings_are_asked_for_again(database: Database, trainer: Trainer) -> None:
    rows = failed_trainings(database, "training_failed", "training_failed", "training_timed_out")
    would = trainer.call("replay_trainings", code="training_failed", dry_run=True)
    assert would == {"replayed": 2, "codes": {"training_failed": 2}, "last": None}
    assert trainer.claim({"train": 4}) == []
    assert trainer.call("replay_trainings", ids=[uuid4()])["replayed"] == 0
    assert trainer.call("replay_trainings", user=database.row(rows[0])["user_id"])["replayed"] == 1
    first = trainer.call("replay_trainings", limit=1)
    second = trainer.call("replay_trainings", limit=1, after=first["last"])
    assert (first["replayed"], second["replayed"]) == (1, 1)
    assert trainer.call("replay_trainings", after=second["last"])["last"] is None
    assert {claim["identity_id"] for claim in trainer.claim({"train": 4})} == {str(row) for row in rows}
    assert [database.row(row)["training_error_code"] for row in rows] == [None] * 3
    assert trainer.call("replay_trainings")["replayed"] == 0


def test_replay_passes_over_a_row_that_somebody_has_locked(database: Database) -> None:
    rows = failed_trainings(database, "training_failed", "training_failed")
    trainer = Trainer(database, own_connection=True)
    trainer.connection.execute("set lock_timeout = '1s'")
    holder = database.connect()
    with holder.transaction():
        holder.execute("select from public.trained_identities where id = %s for update", [rows[0]])
        assert trainer.call("replay_trainings")["replayed"] == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"flavor": "L40S"}, {"minutes": 4}, {"minutes": 1441}, {"base": "no-slash"}, {"usd_a_day": -1},
        {"learning_rate": 0}, {"steps": 0}, {"prompts": []}, {"prompts": ["x"] * 9}, {"enabled": None},
        {"speed": 1}, {"only_row": True},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(database: Database, settings: Row) -> None:
    before = Worker(database).call("training")
    with pytest.raises((psycopg.errors.IntegrityError, psycopg.errors.InvalidParameterValue)):
        Worker(database).call("set_training", settings=Jsonb(settings))
    assert Worker(database).call("training") == before


def test_settings_change_one_by_one_and_are_shown(database: Database) -> None:
    switch_on(database, steps=500, learning_rate=0.0001, prompts=["{trigger} in a park"])
    shown = switch_on(database, steps=None)
    assert (shown["steps"], shown["learning_rate"], shown["prompts"]) == (
        None,
        0.0001,
        ["{trigger} in a park"],
    )
    assert (shown["usd_a_day"], shown["minutes"], shown["trainings_per_day"]) == (5, 60, 1)


def test_the_summary_says_what_runs_and_what_waits(database: Database, trainer: Trainer) -> None:
    identity = running(database)
    failed_trainings(database, "training_failed")
    trainer.postpone(trainer.take(asked(database)), "budget")
    status = trainer.call("status")["training"]
    assert status["reserved_usd"] == pytest.approx(WORST)
    assert (status["running"], status["waiting"], status["waits_for_budget"]) == (1, 1, True)
    assert (status["overdue"], status["failed_24h"], status["doubled"]) == (0, 0, 0), (
        "What never started is no training."
    )
    [shown] = trainer.call("training")["now_running"]
    assert (shown["id"], shown["job"], shown["stage"]) == (str(identity), "job1", "RUNNING")
    database.pass_time(8 * 3600 + 1)
    assert trainer.call("status")["training"]["overdue"] == 1


def test_export_has_what_is_known_of_a_users_trainings(database: Database) -> None:
    user = database.user()
    identity = ready(database, user, samples=2)
    ready(database, samples=1)
    answer = Worker(database).call("export", user=user)
    assert [one["identity_id"] for one in answer["trainings"]] == [str(identity)]
    assert [one["name"] for one in answer["objects"] if one["bucket"] == "identity-samples"] == (
        database.row(identity)["sample_paths"]
    )
    assert sum(hour["trainings"] for hour in answer["usage"]) == 1
    database.run("delete from public.trained_identities where id = %s", [identity])
    listed = Worker(database).call("export", user=user)["open_erasures"][0]["lines"]
    assert [line["what"] for line in listed].count("sample") == 2


# The bucket.


def test_a_user_reads_their_own_pictures_and_writes_none(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    identity = ready(database, owner, samples=2)
    find = "select name from storage.objects where bucket_id = 'identity-samples' order by name"
    mine = [row["name"] for row in database.run(find, role="authenticated", user=owner)]
    assert mine == database.row(identity)["sample_paths"]
    assert database.run(find, role="authenticated", user=stranger) == []
    assert database.run(find, role="anon") == []
    store = "insert into storage.objects (bucket_id, name, owner_id) values ('identity-samples', %s, %s)"
    for user in (owner, stranger):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.run(store, [f"{user}/{identity}/x.png", user], role="authenticated", user=user)
    connection = database.connect("authenticated", owner)
    connection.execute("select set_config('storage.allow_delete_query', 'true', false)")
    assert (
        connection.execute("delete from storage.objects where bucket_id = 'identity-samples'").rowcount == 0
    )
    change = "update storage.objects set name = name where bucket_id = 'identity-samples' returning name"
    assert database.run(change, role="authenticated", user=owner) == []
