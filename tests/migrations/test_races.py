"""Two at once on one row: it ends as if one had come after the other, and nobody waits in a ring.

What passes over locked rows may instead find nothing there, and say so.
"""

import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.database import ERASING, Connection, Database, Worker, sign_in
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgres

INSERT = "insert into public.trained_identities (identity_name, image_paths) values ('Ada', %s)"
RETRY = "update public.trained_identities set status = 'pending' where status = 'failed'"
DELETE = "delete from public.trained_identities"
LEAVE = "delete from auth.users where id = %s"


@dataclass
class Row:
    """The row that is fought over."""

    user: UUID
    identity: UUID
    attempt: int
    """The one that was claimed first; whether it still holds the row is the question."""
    lines: tuple[int, ...] = ()
    """What is to be erased, as that one was told."""


class Side:
    """One of the two: whoever it is, on connections of its own."""

    def __init__(self, database: Database, name: str) -> None:
        self.worker = Worker(database, name, own_connection=True)
        self.user = database.connect("authenticated")
        self.auth = database.connect("supabase_auth_admin")
        for connection in (self.worker.connection, self.user, self.auth):
            # One waits for the other here for as long as a busy machine takes.
            connection.execute("set statement_timeout = 0")
            connection.execute("set lock_timeout = 0")

    def connection(self, verb: str) -> Connection:
        return {"retry": self.user, "delete": self.user, "leave": self.auth}.get(verb, self.worker.connection)

    def act(self, verb: str, row: Row) -> Any:
        """Do it, and say what the answer comes to."""
        worker = self.worker
        match verb:
            case "claim":
                return len(worker.claim({"publish": 4, "erase": 4}))
            case "renew":
                return {state: len(which) for state, which in worker.renew([row.attempt], [2], 90).items()}
            case "reserve":
                return worker.reserve(row.attempt) is not None
            case "replay":
                return worker.replay()["replayed"]
            case "retry":
                return self.user.execute(RETRY).rowcount
            case "delete":
                return self.user.execute(DELETE).rowcount
            case "erased":
                return worker.erased(row.attempt, row.lines)
            case "leave":
                return self.auth.execute(LEAVE, [row.user]).rowcount
            case _:
                return getattr(worker, verb)(row.attempt)


VERBS = (
    "claim",
    "renew",
    "reserve",
    "complete",
    "fail",
    "defer",
    "release",
    "wait",
    "erased",
    "replay",
    "retry",
    "delete",
    "leave",
)
# What each says of a row that it passes over.
PASSED_OVER = {"claim": 0, "renew": {"held": 0, "busy": 1}, "replay": 0}
# Of the last, the repo is being erased, and that is what the attempt holds.
STATES = ("held", "run out", "failed", "abandoned")

LEFT = """
select (select jsonb_agg(jsonb_build_array(t.status, t.model_id is null, t.images_published, t.error_code,
    t.next_attempt_at is null)) from public.trained_identities t) as rows,
  (select jsonb_agg(jsonb_build_array(w.kind, w.spent, w.crashes, w.last_reason, w.turn_at is null, w.next_at > now())
    order by w.kind) from watcher.work w) as lines,
  (select jsonb_agg(jsonb_build_array(a.instance, a.outcome, round(extract(epoch from a.lease_expires_at - now()), -1))
    order by a.number) from watcher.attempts a) as attempts,
  (select count(*) from watcher.names) as names, (select count(*) from watcher.used_names) as used_names,
  (select jsonb_agg(jsonb_build_array(l.what, l.gone_at is not null, l.due_at > now())
    order by l.what, l.gone_at is not null) from watcher.erase_lines l) as erase_lines
"""


class Fight:
    """One row in one state, and two who want it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sides = Side(database, "one"), Side(database, "two")

    def begin(self, state: str) -> Row:
        database = self.database
        database.run("delete from auth.users")
        database.overwrite("delete from storage.objects")
        for table in ("work", "attempts", "names", "used_names", *ERASING):
            database.overwrite(f"delete from watcher.{table}")
        user = database.user()
        row = Row(user, database.insert(user), Worker(database, "first").claim_one())
        for side in self.sides:
            sign_in(side.user, "authenticated", user)
        if state == "run out":
            database.pass_time(31)
        if state == "abandoned":
            Worker(database, "first").reserve(row.attempt)
        if state in {"failed", "abandoned"}:
            Worker(database, "first").fail(row.attempt)
        if state == "abandoned":
            [claim] = Worker(database, "first").claim({"erase": 1})
            row.attempt = claim["attempt"]
            row.lines = tuple(line["id"] for line in claim["details"]["lines"])
        return row

    def left(self) -> Any:
        [left] = self.database.run(LEFT)
        return left

    def one_after_the_other(self, state: str, *steps: tuple[int, str]) -> tuple[list[Any], Any]:
        """Each by its side, in a transaction of its own; the answers in the order of the sides."""
        row = self.begin(state)
        said = {side: self.sides[side].act(verb, row) for side, verb in steps}
        return [said[side] for side in sorted(said)], self.left()

    def at_once(self, state: str, first: str, second: str, *, commit: bool) -> tuple[list[Any], Any]:
        """The second begins when the first has done it and not yet committed it, or will roll it back."""
        row = self.begin(state)
        one, two = self.sides
        with ThreadPoolExecutor(1) as thread:
            with one.connection(first).transaction(force_rollback=not commit):
                said = one.act(first, row)
                answer = thread.submit(two.act, second, row)
                self.wait_until_done_or_blocked(answer, two.connection(second))
            return [said, answer.result(PATIENCE)], self.left()

    def wait_until_done_or_blocked(self, answer: "Future[Any]", connection: Connection) -> None:
        wait_until(lambda: answer.done() or self.database.is_blocked(connection), pause=0.001)


@pytest.mark.parametrize("first", VERBS)
def test_two_verbs_on_one_row_end_as_one_after_the_other(database: Database, first: str) -> None:
    fight = Fight(database)
    for state, second in product(STATES, VERBS):
        of_users_or_operators = {first, second} & {"replay", "retry", "delete", "leave"}
        if state == "failed" and not of_users_or_operators:
            continue  # all of them have lost
        answers, left = fight.at_once(state, first, second, commit=True)
        allowed = [
            fight.one_after_the_other(state, (0, first), (1, second)),
            fight.one_after_the_other(state, (1, second), (0, first)),
        ]
        if second in PASSED_OVER:
            [said], alone = fight.one_after_the_other(state, (0, first))
            allowed.append(([said, PASSED_OVER[second]], alone))
        assert (answers, left) in allowed, f"{first}, then {second} on a row that is {state}"


@pytest.mark.parametrize("first", VERBS)
def test_a_verb_that_is_rolled_back_was_never_there(database: Database, first: str) -> None:
    fight = Fight(database)
    for state, second in product(STATES[:2], VERBS):
        (_, answer), left = fight.at_once(state, first, second, commit=False)
        [said], alone = fight.one_after_the_other(state, (1, second))
        allowed = [(said, alone)]
        if second in PASSED_OVER:
            allowed.append((PASSED_OVER[second], fight.one_after_the_other(state)[1]))
        assert (answer, left) in allowed, f"{first} rolled back, then {second} on a row that is {state}"


@pytest.mark.parametrize("first", VERBS)
def test_two_verbs_that_wait_in_the_middle_both_come_to_an_end(database: Database, first: str) -> None:
    fight = Fight(database)
    somebody = database.connect("supabase_admin")
    for second in VERBS:
        row = fight.begin("run out")
        with ThreadPoolExecutor(2) as threads:
            answers = []
            with somebody.transaction():
                somebody.execute("select from watcher.attempts for update")
                for side, verb in zip(fight.sides, (first, second), strict=True):
                    answers.append(threads.submit(side.act, verb, row))
                    fight.wait_until_done_or_blocked(answers[-1], side.connection(verb))
            try:
                for answer in answers:
                    answer.result(PATIENCE)
            except psycopg.errors.DeadlockDetected as error:
                error.add_note(f"{first} and {second}")
                raise
        [holding] = database.run("select count(*) as n from watcher.attempts where ended_at is null")
        assert holding["n"] <= 1


# Many rows in one statement, in whatever order the planner likes.


@pytest.mark.parametrize("who", ["the user", "the account"])
@pytest.mark.parametrize("change", [RETRY, DELETE])
def test_a_user_who_changes_all_rows_does_not_stop_the_deletion_of_the_account(
    database: Database, change: str, who: str
) -> None:
    user = database.user()
    paths = database.upload(user)
    rows = [database.insert(user, paths) for _ in range(5)]
    for number, identity in enumerate(reversed(rows)):
        # By one index they come in the order in which they were made, by the other in the order in which they failed.
        database.overwrite(
            "update public.trained_identities set status = 'failed', error_code = 'x', error_message = 'X.', "
            "updated_at = now() + make_interval(secs => %s) where id = %s",
            [number, identity],
        )
    frontend, auth, somebody = (
        database.connect("authenticated", user),
        database.connect("supabase_auth_admin"),
        database.connect(),
    )
    for connection in (frontend, auth):
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_bitmapscan = off")
    statements = [(frontend, change, None), (auth, LEAVE, [user])]
    with ThreadPoolExecutor() as threads:
        with somebody.transaction():
            somebody.execute("select from public.trained_identities where id = %s for update", [rows[2]])
            answers = []
            for connection, statement, parameters in statements if who == "the user" else statements[::-1]:
                answers.append(threads.submit(connection.execute, statement.encode(), parameters))
                database.wait_until_blocked(connection)
        for answer in answers:
            answer.result(PATIENCE)
    assert database.value("select count(*) from public.trained_identities") == 0


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
            with pytest.raises(psycopg.errors.CheckViolation, match="Your account was deleted"):
                late.result(PATIENCE)
        else:
            late.result(PATIENCE)
    assert database.value("select count(*) from public.trained_identities") == 0
    assert database.value("select count(*) from watcher.work where kind = 'publish'") == 0


def test_a_user_who_inserts_does_not_stop_an_app_that_lets_them_delete_their_account(
    database: Database,
) -> None:
    user = database.user()
    paths = database.upload(user)
    for _ in range(2):
        database.insert(user, paths)
    leaving, owner = database.connect("postgres"), database.connect("authenticated", user)
    # As a function of the app's own does it: as its owner, with the caller's token.
    sign_in(leaving, "authenticated", user)
    with ThreadPoolExecutor() as threads:
        with leaving.transaction():
            leaving.execute("select from auth.users where id = %s for update", [user])
            insert = threads.submit(owner.execute, INSERT, [paths])
            database.wait_until_blocked(owner)
            leaving.execute(LEAVE, [user])
        with pytest.raises(psycopg.errors.CheckViolation, match="Your account was deleted"):
            insert.result(PATIENCE)
    assert database.value("select count(*) from public.trained_identities") == 0


def test_sixty_accounts_are_deleted_while_their_users_and_two_daemons_are_busy(database: Database) -> None:
    users = [database.user() for _ in range(60)]
    paths = {user: database.upload(user) for user in users}
    for user in users:
        for _ in range(3):
            database.insert(user, paths[user])
    gone = threading.Event()

    def publish(number: int) -> None:
        worker = Worker(database, f"host {number}", own_connection=True)
        while not gone.is_set():
            attempts = [claim["attempt"] for claim in worker.claim(4)]
            worker.renew(attempts, [1] * len(attempts))
            for attempt, end in zip(attempts, ("fail", "defer", "complete", "release"), strict=False):
                getattr(worker, end)(attempt)
            worker.replay()

    def play(number: int) -> None:
        chance = random.Random(number)
        frontend = database.connect("authenticated")
        while not gone.is_set():
            user = chance.choice(users)
            sign_in(frontend, "authenticated", user)
            match chance.randrange(3):
                case 0:
                    frontend.execute(RETRY)
                case 1:
                    frontend.execute(DELETE)
                case 2:
                    with suppress(psycopg.errors.CheckViolation, psycopg.errors.ForeignKeyViolation):
                        frontend.execute(INSERT, [paths[user]])

    def leave() -> None:
        auth = database.connect("supabase_auth_admin")
        for user in users:
            auth.execute(LEAVE, [user])

    with ThreadPoolExecutor(5) as threads:
        busy = [threads.submit(publish, number) for number in range(2)]
        busy += [threads.submit(play, number) for number in range(2)]
        try:
            threads.submit(leave).result(PATIENCE)
        finally:
            gone.set()
        for done in busy:
            done.result(PATIENCE)
    running = "watcher.attempts where ended_at is null"
    queued = "watcher.work where kind = 'publish'"
    for table in ("auth.users", "public.trained_identities", queued, running):
        assert database.value(f"select count(*) from {table}") == 0
