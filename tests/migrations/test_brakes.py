"""What users can make the watcher do is bounded, and said in sentences: rows, retries, photos; and who may change that."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.database import Database, Worker, insertion
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.postgres

RETRY = "update public.trained_identities set status = 'pending' where id = any (%s)"


def limit(database: Database, name: str, value: int | None, user: UUID | None = None) -> Any:
    return Worker(database).call("set_limit", name=name, value=value, user=user)


def end_all(database: Database, *, failed: bool = True) -> None:
    """End every open row."""
    worker = Worker(database)
    database.run("update public.trained_identities set next_attempt_at = null where status = 'pending'")
    while claims := worker.claim(30):
        for claim in claims:
            worker.fail(claim["attempt"]) if failed else worker.complete(claim["attempt"])


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(psycopg.errors.CheckViolation) as error:
        act()
    return str(error.value.diag.message_primary)


def retry(database: Database, user: UUID, *rows: UUID) -> list[float]:
    """Set failed rows back as their user; for how many seconds each waits then."""
    database.run(RETRY, [list(rows)], role="authenticated", user=user)
    query = """
        select coalesce(extract(epoch from next_attempt_at - updated_at), 0)::float as seconds
        from public.trained_identities where id = any (%s) order by created_at, id
    """
    return [row["seconds"] for row in database.run(query, [list(rows)])]


# Rows.


def test_a_user_sends_so_many_rows_a_day_whatever_becomes_of_them(database: Database) -> None:
    user, paths = database.user(), []
    limit(database, "rows_per_day", 4)
    paths = database.upload(user)
    rows = [database.insert(user, paths) for _ in range(4)]
    end_all(database)
    database.run(
        "delete from public.trained_identities where id = %s", [rows[0]], role="authenticated", user=user
    )
    said = refusal(lambda: database.insert(user, paths))
    assert said == "You have sent 4 identities within a day, the most allowed; please try again in 25 hours."
    database.insert(database.user())
    database.pass_time(23.5 * 3600)
    assert refusal(lambda: database.insert(user, paths)).endswith(("in 2 hours.", "in an hour."))
    database.pass_time(1.6 * 3600)
    database.insert(user, paths)


def test_the_days_limit_holds_within_one_statement_and_for_many_at_once(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    limit(database, "rows_per_day", 7)
    many = (
        "insert into public.trained_identities (identity_name, image_paths) "
        "select 'Ada', %s from generate_series(1, %s)"
    )
    refusal(lambda: database.run(many, [paths, 8], role="authenticated", user=user))
    assert database.run("select * from watcher.usage") == []

    def insert(_: int) -> bool:
        try:
            database.connect("authenticated", user).execute(many.encode(), [paths, 2])
        except psycopg.errors.CheckViolation:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(insert, range(8))) == 3


def test_the_same_row_sent_again_is_neither_counted_nor_refused(database: Database) -> None:
    user, again = database.user(), uuid4()
    limit(database, "rows_per_day", 1)
    limit(database, "open_rows", 1)
    values = {"id": again, "identity_name": "Ada", "image_paths": database.upload(user)}
    insert, parameters = insertion(values)
    quiet = insert.replace(" returning *", " on conflict do nothing")
    for _ in range(5):
        database.run(quiet, parameters, role="authenticated", user=user)
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.run(insert, parameters, role="authenticated", user=user)
    assert database.value("select sum(rows) from watcher.usage") == 1


def test_nothing_is_accepted_where_the_limit_is_nothing(database: Database) -> None:
    user = database.user()
    limit(database, "rows_per_day", 0, user)
    assert refusal(lambda: database.insert(user)) == "No identities are accepted from you at present."
    database.insert(database.user())


def test_an_insert_during_the_deletion_of_its_account_is_refused_in_a_sentence(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    mine, auth = database.connect("authenticated", user), database.connect("supabase_auth_admin")
    query, parameters = insertion({"identity_name": "Ada", "image_paths": paths})
    with ThreadPoolExecutor() as threads:
        with auth.transaction():
            auth.execute("delete from auth.users where id = %s", [user])
            late = threads.submit(mine.execute, query.encode(), parameters)
            database.wait_until_blocked(mine)
        assert refusal(lambda: late.result(PATIENCE)) == "Your account was deleted."


def test_what_a_user_did_goes_with_the_account(database: Database) -> None:
    user = database.user()
    row = database.insert(user)
    end_all(database)
    retry(database, user, row)
    limit(database, "rows_per_day", 4, user)
    database.delete_account(user)
    for table in ("usage", "limits", "retries"):
        assert database.run(f"select * from watcher.{table}") == []


# Retries.


def test_three_retries_within_an_hour_are_immediate_then_each_waits_longer(database: Database) -> None:
    user = database.user()
    row = database.insert(user)
    waits = []
    for _ in range(11):
        end_all(database)
        waits += retry(database, user, row)
    assert waits == [0, 0, 0, 30, 60, 120, 240, 480, 960, 1920, 3600]
    line = database.line(row)
    assert line["next_at"] == database.row(row)["next_attempt_at"]
    assert line["last_reason"] == "It was tried again several times within an hour, so it waits."
    assert Worker(database).claim() == []
    end_all(database)
    database.pass_time(3601)
    assert retry(database, user, row) == [0], "An hour later they are immediate again."


def test_a_users_rows_that_wait_come_one_after_the_other(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    rows = [database.insert(user, paths) for _ in range(5)]
    for _ in range(3):
        end_all(database)
        assert retry(database, user, *rows) == [0] * 5
    end_all(database)
    assert sorted(retry(database, user, *rows)) == [30, 40, 50, 60, 70]


def test_a_user_has_so_many_immediate_retries_in_all(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    limit(database, "retries_per_hour", 4)
    rows = [database.insert(user, paths) for _ in range(6)]
    end_all(database)
    assert sorted(retry(database, user, *rows)) == [0, 0, 0, 0, 30, 40]
    other = database.user()
    of_another = database.insert(other)
    end_all(database)
    assert retry(database, other, of_another) == [0]


def test_retries_of_the_hour_before_are_dropped_with_the_next_one_of_any_row(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    first, second = database.insert(user, paths), database.insert(user, paths)
    end_all(database)
    retry(database, user, first)
    database.pass_time(3601)
    end_all(database)
    retry(database, user, second)
    assert [row["identity_id"] for row in database.run("select identity_id from watcher.retries")] == [second]


def test_the_operators_replay_neither_waits_nor_counts(database: Database) -> None:
    user = database.user()
    row = database.insert(user)
    for _ in range(5):
        end_all(database)
        assert Worker(database).replay(ids=[row])["replayed"] == 1
        assert database.row(row)["next_attempt_at"] is None
    end_all(database)
    assert retry(database, user, row) == [0]


def test_the_same_deletion_forgets_a_rows_retries_but_not_its_users(database: Database) -> None:
    user = database.user()
    row = database.insert(user)
    end_all(database)
    retry(database, user, row)
    database.run(
        "delete from public.trained_identities where id = %s", [row], role="authenticated", user=user
    )
    assert database.run("select * from watcher.retries") == []
    assert database.value("select sum(retries) from watcher.usage") == 1


# Photos.


def upload(database: Database, user: UUID, name: str) -> None:
    query = "insert into storage.objects (bucket_id, name) values ('identity-images', %s)"
    database.run(query, [name], role="authenticated", user=user)


def test_a_user_has_room_for_so_many_photos(database: Database) -> None:
    user, other = database.user(), database.user()
    limit(database, "objects", 3)
    database.store([f"{other}/a.jpg", f"{user}0/b.jpg"])
    for number in range(3):
        upload(database, user, f"{user}/set/{number}.jpg")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upload(database, user, f"{user}/set/4.jpg")
    upload(database, other, f"{other}/set/1.jpg")
    limit(database, "objects", 4, user)
    upload(database, user, f"{user}/set/4.jpg")


# Who may change and see them.


def test_a_users_own_limit_goes_before_everybodys_and_that_before_the_default(database: Database) -> None:
    user, other = database.user(), database.user()

    def value(of: UUID | None) -> tuple[int, str | None]:
        [found] = [one for one in Worker(database).call("limits", user=of) if one["name"] == "open_rows"]
        return found["value"], found["set_for"]

    assert value(user) == (20, None)
    limit(database, "open_rows", 5)
    assert value(user) == value(None) == (5, "everybody")
    limit(database, "open_rows", 2, user)
    assert (value(user), value(other)) == ((2, "user"), (5, "everybody"))
    for _ in range(2):
        database.insert(user)
    assert refusal(lambda: database.insert(user)).startswith("You have 2 identities waiting")
    limit(database, "open_rows", None)
    limit(database, "open_rows", None, user)
    assert value(user) == value(other) == (20, None)
    assert database.run("select * from watcher.limits") == []


def test_what_a_user_has_used_is_shown(database: Database) -> None:
    user = database.user()
    rows = [database.insert(user) for _ in range(2)]
    end_all(database)
    retry(database, user, rows[0])
    used = {one["name"]: one["used"] for one in Worker(database).call("limits", user=user)}
    assert used == {
        "open_rows": 1, "rows_per_day": 2, "retries_per_row_per_hour": None, "retries_per_hour": 1, "objects": 6,
        "erase_repos": None, "erase_photos": None, "erase_after_hours": None, "trainings_per_day": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "user", "says"),
    [
        ("speed", 1, None, "There is no limit 'speed'."),
        ("open_rows", -1, None, "open_rows must be from 0 to 10000."),
        ("open_rows", 10001, None, "open_rows must be from 0 to 10000."),
        ("open_rows", 1, UUID(int=7), "There is no user 00000000-0000-0000-0000-000000000007."),
    ],
)
def test_a_limit_that_cannot_be_is_refused_in_a_sentence(
    database: Database, name: str, value: int, user: UUID | None, says: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
        limit(database, name, value, user)
    assert error.value.diag.message_primary == says


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize("call", ["limits()", "set_limit('open_rows', 1)"])
def test_limits_are_not_for_users(database: Database, role: str, call: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(f"select public.watcher_{call}", role=role, user=database.user())


def test_a_user_cannot_write_when_a_row_is_due(database: Database) -> None:
    user = database.user()
    row = database.insert(user)
    end_all(database)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.run(
            "update public.trained_identities set status = 'pending', next_attempt_at = now() where id = %s",
            [row], role="authenticated", user=user,
        )  # fmt: skip


# What the Hub does not accept, and what is given back.


def test_a_rejected_row_fails_once_another_was_published_since(database: Database) -> None:
    one, other = database.insert(database.user()), database.insert(database.user())
    worker = Worker(database)
    first, second = (claim["attempt"] for claim in worker.claim(2))
    assert worker.reject(first) == worker.reject(first) == "deferred"
    assert (database.status(one), database.line(one)["spent"]) == ("pending", 1)
    worker.complete(second)
    database.pass_time(3600)
    again = worker.claim_one()
    refused = {"message": "No, acme/identity-ada-1761480000!", "reason": "No, [repo]!"}
    assert worker.reject(again, **refused) == worker.reject(again) == "failed"
    assert database.attempts(one)[-1]["reason"] == "No, [repo]!"
    row = database.row(one)
    assert (row["status"], row["error_code"], row["error_message"]) == (
        "failed",
        "hub_refused",
        refused["message"],
    )
    assert database.status(other) == "published"
    assert database.run("select * from watcher.rejections") == []


def test_three_rejected_rows_without_one_published_are_nobodys_fault(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(4)]
    worker = Worker(database)
    attempts = [claim["attempt"] for claim in worker.claim(3)]
    assert [worker.reject(attempt) for attempt in attempts] == ["deferred", "deferred", "outage"]
    assert worker.reject(attempts[2]) == "outage"
    assert [database.line(row)["spent"] for row in rows[:3]] == [0, 0, 0]
    fresh = worker.claim(1)[0]
    assert fresh["identity_id"] == str(rows[3]), "Whoever has not met it is tried first."
    worker.complete(fresh["attempt"])
    database.pass_time(60)
    assert worker.reject(worker.claim_one()) == "failed", "Now somebody else was accepted."


def test_a_rejected_erasure_is_no_rejected_row(database: Database) -> None:
    row = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    worker.fail(attempt)
    assert worker.reject(worker.claim_one(kind="erase")) == "failed"
    assert database.work(row, "erase")["last_reason"] == "No."
    assert database.run("select * from watcher.rejections") == []


def test_rejections_at_the_same_moment_see_each_other(database: Database) -> None:
    rows = [database.insert(database.user()) for _ in range(6)]
    claims = Worker(database).claim(6)
    workers = [Worker(database, own_connection=True) for _ in claims]
    with ThreadPoolExecutor(6) as threads:
        ends = list(threads.map(lambda worker, claim: worker.reject(claim["attempt"]), workers, claims))
    assert sorted(ends) == ["deferred"] * 2 + ["outage"] * 4
    database.pass_time(3600)
    for claim in Worker(database).claim(6):
        assert Worker(database).reject(claim["attempt"]) == "outage"
    assert sum(database.line(row)["spent"] for row in rows) == 0


def test_what_was_spent_in_an_outage_is_given_back_once(database: Database) -> None:
    row = database.insert(database.user())
    worker = Worker(database)
    for _ in range(2):
        attempt = worker.claim_one()
        worker.defer(attempt)
        database.pass_time(3600)
    running = worker.claim_one()
    assert [worker.call("give_back", attempts=[attempt, running, 10**6]) for _ in range(3)] == [1, 0, 0]
    assert database.line(row)["spent"] == 2
    worker.complete(running)
    assert worker.call("give_back", attempts=[attempt]) == 0


def published(database: Database, user: UUID, namespace: str = "acme") -> UUID:
    row = database.insert(user)
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt, namespace=namespace)
    worker.call(
        "complete",
        attempt=attempt,
        url="https://hub",
        commit_sha="c",
        training_config=psycopg.types.json.Jsonb({}),
    )
    return row


def test_the_newest_repos_are_those_of_other_rows_in_the_namespace(database: Database) -> None:
    worker = Worker(database)
    rows = [
        published(database, database.user(), namespace) for namespace in ("acme", "other", "acme", "acme")
    ]
    names = [database.row(row)["model_id"] for row in rows]

    def newest(but: UUID) -> Any:
        return worker.call("newest_repos", namespace="acme", other_than=but)

    assert newest(rows[1]) == [names[3], names[2]]
    assert newest(rows[3]) == [names[2], names[0]]
    assert worker.call("newest_repos", namespace="nobody", other_than=rows[0]) == []


def test_the_newest_repos_are_of_two_other_users_if_there_are(database: Database) -> None:
    ada, bob, eve = (database.user() for _ in range(3))
    worker = Worker(database)
    names: dict[int, str] = {}

    def newest(but: UUID) -> Any:
        found = worker.call("newest_repos", namespace="acme", other_than=but)
        return [number for name in found for number, one in names.items() if one == name]

    row = published(database, bob)
    for number, user in enumerate([ada, ada, eve, eve, bob]):
        names[number] = database.row(published(database, user))["model_id"]
        if number == 1:
            assert newest(row) == [1, 0], "There is nobody else."
        if number == 3:
            assert newest(row) == [3, 1]
    assert newest(row) == [3, 1], "That of the row's own user would come last."
    assert newest(uuid4()) == [4, 3], "Of a row that is gone, nobody knows the user."


def test_a_row_released_in_an_outage_is_claimed_after_those_that_are_due(database: Database) -> None:
    first = database.insert(database.user())
    worker = Worker(database)
    worker.release(worker.claim_one(), cause="outage")
    database.pass_time(1)
    second = database.insert(database.user())
    claims = worker.claim(2)
    assert [claim["identity_id"] for claim in claims] == [str(second), str(first)]


# Fair between users.


def test_users_who_have_none_running_go_first_one_row_each(database: Database) -> None:
    eve, ada, bob = (database.user() for _ in range(3))
    large = [database.insert(eve) for _ in range(6)]
    database.overwrite("update watcher.work set turn_at = now() - interval '1 hour'")
    small, last = database.insert(ada), database.insert(bob)
    worker = Worker(database)
    claims = worker.claim(3)
    assert [UUID(claim["identity_id"]) for claim in claims][1:] == [small, last]
    holding = [claim["attempt"] for claim in claims]
    assert {UUID(claim["identity_id"]) for claim in worker.claim(9, holding)} | {
        UUID(claims[0]["identity_id"])
    } == set(large)


@pytest.mark.parametrize("slots", [0, 1])
def test_one_more_than_the_slots_is_taken_for_a_user_who_has_none_running(
    database: Database, slots: int
) -> None:
    eve = database.user()
    for _ in range(4):
        database.insert(eve)
    worker = Worker(database)
    holding = [worker.claim_one()]
    assert len(worker.claim({"publish": slots}, holding, extra=["publish"])) == slots
    holding = [row["number"] for row in database.run("select number from watcher.attempts")]
    ada = database.user()
    rows = [database.insert(ada), database.insert(database.user())]
    assert worker.claim({"publish": 0}, holding) == []
    taken = worker.claim({"publish": 0}, holding, extra=["publish"])
    assert [claim["identity_id"] for claim in taken] == [str(rows[0])]
    database.insert(ada)
    holding.append(taken[0]["attempt"])
    taken = worker.claim({"publish": 0}, holding, extra=["publish"])
    assert [claim["identity_id"] for claim in taken] == [str(rows[1])]
    assert worker.claim({"publish": 0}, [*holding, taken[0]["attempt"]], extra=["publish"]) == []


def test_a_replay_of_many_rows_hides_nobody(database: Database) -> None:
    eve, ada = database.user(), database.user()
    paths = database.upload(eve)
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths) "
        "select %s, 'Ada', %s from generate_series(1, 600)",
        [eve, paths],
    )
    database.overwrite(
        "insert into watcher.work (kind, identity_id, owner, turn_at) "
        "select 'publish', id, user_id, now() - interval '1 hour' from public.trained_identities"
    )
    worker = Worker(database)
    first = worker.claim(2)
    small = database.insert(ada)
    [extra] = worker.claim({"publish": 0}, [claim["attempt"] for claim in first], extra=["publish"])
    assert extra["identity_id"] == str(small)
