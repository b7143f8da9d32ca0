"""What a deleted row has left: all of it is listed, erased when nothing can write any more, and a receipt stays."""

from collections.abc import Sequence
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.migrations.test_transitions import every_status, identity_that_is
from tests.support.database import Database, Row, Worker

pytestmark = pytest.mark.postgres

DELETE = "delete from public.trained_identities where id = %s"


def delete(database: Database, identity: UUID) -> None:
    """Delete a row as its user."""
    user = database.row(identity)["user_id"]
    database.run(DELETE, [identity], role="authenticated", user=user)


def lines(database: Database, identity: UUID, what: str = "%") -> dict[str, Row]:
    query = "select *, extract(epoch from due_at - now()) as due_in, extract(epoch from look_again_at - now()) as again_in "
    query += "from watcher.erase_lines where identity_id = %s and what like %s"
    return {row["name"]: row for row in database.run(query, [identity, what])}


def receipt(database: Database, identity: UUID) -> Row:
    rows = database.run("select * from watcher.erasures where identity_id = %s", [identity])
    return rows[0] if rows else {}


def erase(database: Database, worker: Worker, *, keep: Sequence[str] = ()) -> None:
    """Do what a daemon does with the one erasure that is due: everything it lists goes, but for some photos."""
    [claim] = worker.claim({"erase": 1})
    things = claim["details"]["lines"]
    photos = [thing["name"] for thing in things if thing["what"] == "photo"]
    database.unstore([photo for photo in photos if photo not in keep])
    assert worker.erased(claim["attempt"], [thing["id"] for thing in things], answered=True) == "done"


def published(
    database: Database, user: UUID | None = None, paths: Sequence[str] | None = None
) -> tuple[UUID, str]:
    identity = database.insert(user or database.user(), paths)
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    assert worker.complete(attempt, answered=True) == "done"
    return identity, name


def test_all_that_a_row_has_left_is_listed_and_a_receipt_stays(database: Database) -> None:
    identity, name = published(database)
    row = database.row(identity)
    delete(database, identity)
    assert set(lines(database, identity)) == {name, *row["image_paths"]}
    assert lines(database, identity)[name]["look_again_at"] is None, "Each of its requests was answered."
    erase(database, Worker(database))
    found = receipt(database, identity)
    assert (found["repos"], found["photos"], found["attempts"], found["cause"]) == (1, 3, 1, "row")
    assert found["finished_at"] is not None
    assert found["owner_id"] is None
    assert lines(database, identity) == database.work(identity, "erase") == {}
    assert database.value("select count(*) from watcher.names") == 0
    assert database.attempts(identity) == []


@every_status
def test_an_account_goes_with_all_that_is_in_its_folder(database: Database, status: str) -> None:
    user = database.user()
    identity = identity_that_is(database, status, user)
    stray = f"{user}/stray.jpg"
    database.store([stray])
    paths = database.row(identity)["image_paths"]
    database.delete_account(user)
    assert set(lines(database, identity, "photo")) == {stray, *paths}
    database.pass_time(21)  # an attempt that ran can write no more
    erase(database, Worker(database))
    database.pass_time(150)
    for _ in database.run("select 1 from watcher.work where kind = 'erase'"):
        erase(database, Worker(database))
    assert receipt(database, identity)["account_gone"] is True
    assert receipt(database, identity)["finished_at"] is not None
    assert database.value("select count(*) from storage.objects") == 0


def test_nothing_of_a_person_stays_in_the_database(database: Database) -> None:
    identity, name = published(database)
    row = database.row(identity)
    user = row["user_id"]
    database.delete_account(user)
    erase(database, Worker(database))
    assert receipt(database, identity)["finished_at"] is not None
    for table in database.run(
        "select schemaname || '.' || tablename as name from pg_tables "
        "where schemaname in ('watcher', 'public', 'storage', 'auth')"
    ):
        text = str(database.run(f"select * from {table['name']} t", role="supabase_admin"))
        for word in (str(user), name, name.partition("/")[2], "Ada", row["image_paths"][0]):
            assert word not in text, table["name"]


def test_only_the_photos_of_the_claim_are_counted_as_left(database: Database) -> None:
    """Those beyond its thousand things, and those that fell due since, are for the next claim."""
    identity, _ = published(database)
    delete(database, identity)
    worker = Worker(database)
    [claim] = worker.claim({"erase": 1})
    photos = [thing for thing in claim["details"]["lines"] if thing["what"] == "photo"]
    database.unstore([photo["name"] for photo in photos[1:]])
    for some, left in ((photos, 1), (photos[1:], 0)):
        lines = [photo["id"] for photo in some]
        assert worker.call("erase_left", attempt=claim["attempt"], lines=lines) == left


def test_a_photo_that_two_rows_name_stays_until_the_second_goes(database: Database) -> None:
    user = database.user()
    paths = database.upload(user, 4)
    first, second = database.insert(user, paths[:3]), database.insert(user, paths[1:])
    delete(database, first)
    [claim] = Worker(database).claim({"erase": 1})
    assert [thing["name"] for thing in claim["details"]["lines"]] == [paths[0]]
    database.unstore([paths[0]])
    Worker(database).erased(claim["attempt"], answered=True)
    assert receipt(database, first)["finished_at"] is not None
    delete(database, second)
    erase(database, Worker(database))
    assert database.value("select count(*) from storage.objects") == 0


def test_two_rows_with_the_same_photos_that_go_at_once_leave_none(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    database.insert(user, paths)
    database.insert(user, paths)
    database.run("delete from public.trained_identities", role="authenticated", user=user)
    listed = [
        thing["name"] for claim in Worker(database).claim({"erase": 2}) for thing in claim["details"]["lines"]
    ]
    assert set(listed) == set(paths)


def test_the_same_path_uploaded_anew_is_another_object_and_stays(database: Database) -> None:
    user = database.user()
    paths = database.upload(user)
    identity = database.insert(user, paths)
    delete(database, identity)
    database.unstore(paths[:1])
    database.store(paths[:1])
    [claim] = Worker(database).claim({"erase": 1})
    assert {thing["name"] for thing in claim["details"]["lines"]} == set(paths[1:])
    # It is uploaded anew while the erasure runs.
    database.unstore(paths)
    database.store(paths)
    listed = [thing["id"] for thing in claim["details"]["lines"]]
    Worker(database).erased(claim["attempt"], listed, answered=True)
    assert receipt(database, identity)["finished_at"] is not None
    assert database.value("select count(*) from storage.objects") == 3


def test_a_photo_that_is_still_there_is_not_taken_for_gone(database: Database) -> None:
    identity = database.insert(database.user())
    [path, *_] = database.row(identity)["image_paths"]
    delete(database, identity)
    worker = Worker(database)
    erase(database, worker, keep=[path])
    assert set(lines(database, identity)) == {path}
    assert database.outcomes(identity, "erase") == ["deferred"]
    assert "still has photos" in database.work(identity, "erase")["last_reason"]
    database.pass_time(10)
    erase(database, worker)
    assert receipt(database, identity)["photos"] == 3


def test_a_repo_is_left_alone_until_the_attempt_can_write_no_more_and_is_looked_at_again(
    database: Database,
) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    name = worker.reserve(worker.claim_one())
    delete(database, identity)
    found = lines(database, identity)[name]
    assert 18 < found["due_in"] <= 20
    assert 168 < found["again_in"] <= 170
    erase(database, worker)  # the photos
    assert worker.claim({"erase": 1}) == []
    database.pass_time(20)
    erase(database, worker)
    assert receipt(database, identity)["finished_at"] is None
    assert database.value("select count(*) from watcher.names") == 1
    database.pass_time(150)
    erase(database, worker)
    assert receipt(database, identity)["finished_at"] is not None


def test_the_repo_of_a_row_that_failed_before_is_erased_once(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    name = worker.reserve(attempt)
    worker.fail(attempt, answered=True)
    delete(database, identity)
    assert set(lines(database, identity, "repo")) == {name}
    erase(database, worker)
    assert (receipt(database, identity)["cause"], receipt(database, identity)["repos"]) == ("row", 1)


# Refusals.


def test_an_id_whose_row_was_deleted_is_refused_before_and_after_it_is_erased(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    delete(database, identity)
    for _ in range(2):
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            database.insert(user, id=identity)
        assert refused.value.diag.message_primary == "This identity was deleted; send it under a new id."
        if receipt(database, identity)["finished_at"] is None:
            erase(database, Worker(database))


def test_an_id_that_is_deleted_while_it_is_inserted_is_refused(database: Database) -> None:
    owner, stranger = database.user(), database.user()
    identity = database.insert(owner)
    paths = database.upload(stranger)
    from concurrent.futures import ThreadPoolExecutor

    deleting, inserting = (
        database.connect("authenticated", owner),
        database.connect("authenticated", stranger),
    )
    insert = "insert into public.trained_identities (id, identity_name, image_paths) values (%s, 'Eve', %s) returning id"
    with ThreadPoolExecutor() as pool:
        with deleting.transaction():
            deleting.execute(DELETE, [identity])
            waiting = pool.submit(inserting.execute, insert, [identity, paths])
            database.wait_until_blocked(inserting)
        with pytest.raises(psycopg.errors.CheckViolation, match="was deleted"):
            waiting.result()


def test_a_name_that_was_given_up_is_no_reason_to_refuse_an_id(database: Database) -> None:
    identity = database.insert(database.user())
    worker = Worker(database)
    attempt = worker.claim_one()
    worker.reserve(attempt)
    worker.fail(attempt, answered=True)
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.insert(database.row(identity)["user_id"], id=identity)


def test_photos_of_an_open_erasure_are_refused_unless_another_row_names_them(database: Database) -> None:
    user = database.user()
    paths = database.upload(user, 4)
    first = database.insert(user, paths[:3])
    second = database.insert(user, paths[1:])
    delete(database, first)
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        database.insert(user, paths)
    assert (
        refused.value.diag.message_primary
        == "Image 1 (photo 1.jpg) is being deleted; upload it under another name."
    )
    assert database.insert(user, paths[1:])
    assert database.row(second)


# Settings, and what an error leaves.


@pytest.mark.parametrize("kept", ["repos", "photos"])
def test_what_the_settings_keep_stays(database: Database, kept: str) -> None:
    identity, name = published(database)
    paths = database.row(identity)["image_paths"]
    Worker(database).call("set_limit", name=f"erase_{kept}", value=0)
    delete(database, identity)
    assert set(lines(database, identity)) == (set(paths) if kept == "repos" else {name})
    erase(database, Worker(database))
    assert receipt(database, identity)["finished_at"] is not None
    Worker(database).sweep()
    assert lines(database, identity) == {}


def test_what_goes_later_goes_later(database: Database) -> None:
    identity, _ = published(database)
    Worker(database).call("set_limit", name="erase_after_hours", value=1)
    delete(database, identity)
    worker = Worker(database)
    assert worker.claim({"erase": 1}) == []
    database.pass_time(3600)
    erase(database, worker)
    assert receipt(database, identity)["finished_at"] is not None


def break_the_lists(database: Database) -> None:
    database.run("alter table watcher.erase_lines rename to lost")


def mend_the_lists(database: Database) -> None:
    database.run("alter table watcher.lost rename to erase_lines")


def test_an_account_goes_though_nothing_can_be_listed_and_the_sweep_finds_it(database: Database) -> None:
    user = database.user()
    identity, name = published(database, user)
    published(database)
    break_the_lists(database)
    try:
        database.delete_account(user)
    finally:
        mend_the_lists(database)
    assert database.run("select 1 from public.trained_identities where id = %s", [identity]) == []
    worker = Worker(database)
    worker.sweep()
    assert set(lines(database, identity)) == {name}
    listed = database.value("select count(*) from watcher.erase_lines where what = 'photo'")
    assert listed == 3


@pytest.mark.parametrize("table", ["work", "attempts"])
def test_an_account_goes_though_the_queue_is_missing(database: Database, table: str) -> None:
    user = database.user()
    database.insert(user)
    database.run(f"alter table watcher.{table} rename to lost")
    try:
        database.delete_account(user)
    finally:
        database.run(f"alter table watcher.lost rename to {table}")
    assert database.value("select count(*) from public.trained_identities") == 0


def test_a_users_own_deletion_is_refused_where_nothing_can_be_listed(database: Database) -> None:
    identity = database.insert(database.user())
    break_the_lists(database)
    try:
        with pytest.raises(psycopg.Error, match="could not be deleted just now; please try again"):
            delete(database, identity)
    finally:
        mend_the_lists(database)
    assert database.status(identity) == "pending"


# The operator.


def test_forget_erases_everything_of_a_user_whatever_the_settings_keep(database: Database) -> None:
    user = database.user()
    identity, name = published(database, user)
    database.store([f"{user}/stray.jpg"])
    paths = database.row(identity)["image_paths"]
    worker = Worker(database)
    for setting, value in (("erase_repos", 0), ("erase_photos", 0), ("erase_after_hours", 1)):
        worker.call("set_limit", name=setting, value=value)
    worker.call("set_limit", name="open_rows", value=5, user=user)
    expected = {"rows": 1, "repos": 1, "photos": 4, "limits": 2, "open": 0, "account": True, "erasures": []}
    assert worker.call("forget", user=user, dry_run=True) == expected
    assert database.status(identity) == "published"
    answer = worker.call("forget", user=user)
    assert answer["rows"] == 1
    assert set(lines(database, identity)) == {name, *paths}
    for _ in answer["erasures"]:
        erase(database, worker)
    assert database.value("select count(*) from storage.objects") == 0
    # Once more, when the account is gone.
    database.delete_account(user)
    assert worker.call("forget", user=user) == expected | {
        "rows": 0,
        "repos": 0,
        "photos": 0,
        "limits": 0,
        "account": False,
    }


def test_forget_takes_along_what_a_soft_deletion_of_the_account_leaves(database: Database) -> None:
    user, other = database.user(), database.user()
    worker = Worker(database)
    for owner in (user, other):
        worker.call("set_limit", name="open_rows", value=5, user=owner)
        published(database, owner)
    failing = database.insert(user)
    worker.fail(worker.claim_one())
    retry = "update public.trained_identities set status = 'pending' where id = %s"
    database.run(retry, [failing], role="authenticated", user=user)
    database.overwrite("update auth.users set deleted_at = now() where id = %s", [user])
    assert worker.call("forget", user=user, dry_run=True)["limits"] == 3
    worker.call("forget", user=user)
    for table in ("limits", "usage", "retries"):
        left = database.run(f"select user_id from watcher.{table}")
        assert {row["user_id"] for row in left} == ({other} if table != "retries" else set()), table


def test_forget_brings_forward_what_is_to_go_later(database: Database) -> None:
    user = database.user()
    identity, name = published(database, user)
    worker = Worker(database)
    worker.call("set_limit", name="erase_after_hours", value=720)
    delete(database, identity)
    assert worker.call("forget", user=user, dry_run=True)["repos"] == 1
    assert lines(database, identity)[name]["due_in"] > 700 * 3600
    assert str(identity) in worker.call("forget", user=user)["erasures"]
    assert lines(database, identity)[name]["due_in"] <= 600
    database.pass_time(600)
    erase(database, worker)
    assert receipt(database, identity)["finished_at"] is not None


def test_an_erasure_is_late_from_when_something_of_it_is_due(database: Database) -> None:
    def overdue() -> float:
        return float(Worker(database).call("erasures")["summary"]["overdue_seconds"])

    identity, _ = published(database)
    worker = Worker(database)
    worker.call("set_limit", name="erase_after_hours", value=2)
    delete(database, identity)
    database.pass_time(3600)
    assert overdue() == 0
    database.pass_time(2 * 3600)
    assert 3600 <= overdue() < 3700
    worker.defer(worker.claim_one(kind="erase"), "The Hub is away.")
    assert overdue() >= 3600, "Putting it off does not make it due later."
    # Another, younger one is due at once, and does not hide it.
    worker.call("set_limit", name="erase_after_hours", value=None)
    delete(database, published(database)[0])
    answer = worker.call("erasures")
    assert answer["summary"]["overdue_seconds"] >= 3600
    assert answer["open"][0]["id"] == str(identity)


def test_export_has_all_that_is_known_of_a_user_and_nothing_of_others(database: Database) -> None:
    user = database.user()
    identity, name = published(database, user)
    other, _ = published(database)
    deleted = database.insert(user)
    delete(database, deleted)
    Worker(database).call("set_limit", name="open_rows", value=5, user=user)
    answer = Worker(database).call("export", user=user)
    assert [row["id"] for row in answer["rows"]] == [str(identity)]
    assert [repo["name"] for repo in answer["repos"]] == [name]
    assert len(answer["objects"]) == 6
    assert [erasure["id"] for erasure in answer["open_erasures"]] == [str(deleted)]
    assert len(answer["open_erasures"][0]["lines"]) == 3
    assert str(other) not in str(answer)
    assert len(answer["attempts"]) == 1
    assert answer["limits"] == {"open_rows": 5}
    assert [hour["rows"] for hour in answer["usage"]] == [2]


def test_an_erasure_can_be_closed_with_a_reason(database: Database) -> None:
    identity, _ = published(database)
    delete(database, identity)
    worker = Worker(database)
    attempt = worker.claim_one(kind="erase")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        worker.call("close_erasure", id=identity, because=" ")
    assert worker.call("close_erasure", id=identity, because="The namespace is gone.") is True
    assert worker.call("close_erasure", id=identity, because="Again.") is False
    assert worker.erased(attempt) == "lost"
    assert receipt(database, identity)["closed_because"] == "The namespace is gone."
    assert lines(database, identity) == database.work(identity, "erase") == {}
    with pytest.raises(psycopg.errors.CheckViolation):
        database.insert(database.user(), id=identity)


def test_open_erasures_say_why_they_wait(database: Database) -> None:
    identity, _ = published(database)
    delete(database, identity)
    worker = Worker(database)
    worker.defer(worker.claim_one(kind="erase"), "The Hub is away.")
    answer = worker.call("erasures")
    [shown] = answer["open"]
    assert (shown["id"], shown["repos_left"], shown["photos_left"]) == (str(identity), 1, 3)
    assert (shown["last_reason"], shown["spent"]) == ("The Hub is away.", 1)
    assert answer["summary"]["open"] == 1
    assert answer["namespaces"] == ["acme"]
    assert worker.call("status")["erasing"]["open"] == 1


def test_receipts_that_a_backup_has_lost_can_be_put_back(database: Database) -> None:
    worker, lost = Worker(database), uuid4()
    assert worker.call("restore_receipts", ids=[lost, lost]) == 1
    assert worker.call("restore_receipts", ids=[lost]) == 0
    with pytest.raises(psycopg.errors.CheckViolation):
        database.insert(database.user(), id=lost)


def test_a_repo_that_was_kept_is_found_when_its_user_is_forgotten(database: Database) -> None:
    database.run("insert into watcher.limits (name, value) values ('erase_repos', 0)")
    identity, name = published(database)
    user = database.row(identity)["user_id"]
    _, others = published(database)
    delete(database, identity)
    worker = Worker(database)
    erase(database, worker)
    assert str(user) not in str(receipt(database, identity))
    assert [repo["name"] for repo in worker.call("export", user=user)["repos"]] == [name]
    assert worker.call("forget", user=user, dry_run=True)["repos"] == 1
    assert worker.call("forget", user=user)["erasures"] == [str(identity)]
    erase(database, worker)
    assert receipt(database, identity)["repos"] == 1
    assert [row["model_id"] for row in database.run("select model_id from watcher.names")] == [others]


@pytest.mark.parametrize("soft", [False, True])
def test_a_deleted_account_goes_at_once_whatever_the_settings_say_of_rows(
    database: Database, soft: bool
) -> None:
    database.run("insert into watcher.limits (name, value) values ('erase_after_hours', 720)")
    user = database.user()
    before, name = published(database, user)
    identity, other = published(database, user)
    delete(database, before)
    assert lines(database, before)[name]["due_in"] > 700 * 3600
    if soft:
        database.run("update auth.users set deleted_at = now()", role="supabase_auth_admin")
        Worker(database).sweep()
    else:
        database.delete_account(user)
    assert lines(database, identity)[other]["due_in"] <= 0
    due = [line["due_in"] for of in (before, identity) for line in lines(database, of).values()]
    assert len(due) >= 8
    assert max(due) <= 600
