"""The sweep: what no deletion of a row has listed is found, and much that looks gone at once waits to be confirmed."""

from uuid import UUID

import pytest

from tests.migrations.test_forgetting import delete, erase, lines, published, receipt
from tests.support.database import Database, Worker

pytestmark = pytest.mark.postgres

NOTHING_HELD = {"result": "done", "held_users": None, "held_names": None}


def photos_listed(database: Database) -> set[str]:
    return {row["name"] for row in database.run("select name from watcher.erase_lines where what = 'photo'")}


def soft_delete(database: Database, user: UUID) -> None:
    database.run("update auth.users set deleted_at = now() where id = %s", [user], role="supabase_auth_admin")


def vanish(database: Database, *users: UUID) -> None:
    """Take accounts away as a restore might: no trigger sees it."""
    database.overwrite("delete from auth.users where id = any (%s)", [list(users)])


def test_a_soft_deleted_user_is_gone_with_the_next_sweep(database: Database) -> None:
    user, other = database.user(), database.user()
    identity, name = published(database, user)
    stray = database.upload(user, 1)
    kept, _ = published(database, other)
    soft_delete(database, user)
    paths = database.row(identity)["image_paths"]
    assert Worker(database).sweep() == NOTHING_HELD
    assert set(lines(database, identity)) == {name, *paths}
    assert photos_listed(database) == {*paths, *stray}
    assert database.run("select id from public.trained_identities") == [{"id": kept}]


def test_a_hundred_people_may_leave_at_once(database: Database) -> None:
    users = [database.user() for _ in range(30)]
    for number, user in enumerate(users):
        database.insert(user)
        if number % 2:
            soft_delete(database, user)
        else:
            database.delete_account(user)
            database.upload(user, 1)  # their token is still valid
    assert Worker(database).sweep() == NOTHING_HELD
    assert len(photos_listed(database)) == 30 * 3 + 15


def test_what_a_user_uploads_after_the_account_is_gone_goes_too(database: Database) -> None:
    user = database.user()
    identity = database.insert(user)
    database.user()
    database.delete_account(user)
    worker = Worker(database)
    erase(database, worker)
    assert receipt(database, identity)["finished_at"]
    for _ in range(2):
        late = database.upload(user, 1)
        worker.sweep()
        assert photos_listed(database) == set(late)
        erase(database, worker)


def test_one_user_whose_account_nobody_saw_go_is_gone(database: Database) -> None:
    gone, _ = database.user(), database.user()
    paths = database.upload(gone)
    vanish(database, gone)
    assert Worker(database).sweep() == NOTHING_HELD
    assert photos_listed(database) == set(paths)


@pytest.mark.parametrize(("there", "gone"), [(0, 1), (0, 30), (4, 4), (30, 2), (500, 21)])
def test_much_that_looks_gone_at_once_is_left_alone_until_it_is_confirmed(
    database: Database, there: int, gone: int
) -> None:
    database.run("insert into auth.users (id) select gen_random_uuid() from generate_series(1, %s)", [there])
    users = [database.user() for _ in range(gone)]
    rows = [database.insert(user) for user in users[:2]]
    for user in users[2:]:
        database.upload(user, 1)
    vanish(database, *users)
    worker = Worker(database)
    for _ in range(2):
        assert worker.sweep() == NOTHING_HELD | {"held_users": gone}
        assert photos_listed(database) == set()
        assert database.status(rows[0]) == "pending"
    assert worker.call("erasures")["summary"]["held_users"] == gone
    assert worker.call("confirm_sweep") == {"users": gone, "names": 0}
    assert worker.sweep() == NOTHING_HELD
    assert len(photos_listed(database)) == len(rows) * 3 + gone - len(rows)
    assert database.run("select id from public.trained_identities") == []
    assert worker.call("erasures")["summary"]["held_users"] is None


def test_what_is_confirmed_is_not_more_than_was_shown(database: Database) -> None:
    users = [database.user() for _ in range(6)]
    for user in users:
        database.upload(user, 1)
    vanish(database, *users[:3])
    worker = Worker(database)
    assert worker.sweep()["held_users"] == 3
    worker.call("confirm_sweep")
    vanish(database, *users[3:])
    assert worker.sweep()["held_users"] == 6
    assert photos_listed(database) == set()


def test_accounts_that_come_back_are_held_no_more(database: Database) -> None:
    users = [database.user() for _ in range(5)]
    for user in users:
        database.upload(user, 1)
    vanish(database, *users)
    worker = Worker(database)
    assert worker.sweep()["held_users"] == 5
    database.run("insert into auth.users (id) select unnest(%s::uuid[])", [users])
    assert worker.sweep() == NOTHING_HELD
    assert photos_listed(database) == set()


def test_folders_that_are_nobodys_are_left_alone(database: Database) -> None:
    database.user()
    database.store(["readme.txt", "shared/a.jpg", "not-a-uuid/b.jpg"])
    assert Worker(database).sweep() == NOTHING_HELD
    assert photos_listed(database) == set()


def test_an_upload_that_no_row_names_goes_after_a_week(database: Database) -> None:
    user = database.user()
    stray, named, late = database.upload(user), database.upload(user), database.upload(user)
    database.insert(user, named)
    worker = Worker(database)
    worker.sweep()
    database.pass_time(6 * 86400)
    database.insert(user, late)
    worker.sweep()
    assert photos_listed(database) == set()
    database.pass_time(86401)
    worker.sweep()
    assert photos_listed(database) == set(stray)
    erase(database, worker)
    assert database.value("select count(*) from storage.objects") == 6


def test_uploads_are_looked_through_part_by_part(database: Database) -> None:
    user = database.user()
    database.store([f"{user}/{number:05}.jpg" for number in range(2100)])
    worker = Worker(database)
    for expected in (1000, 2000, 2100):
        worker.sweep()
        assert database.value("select count(*) from watcher.unnamed_objects") == expected
    assert database.value("select after_object from watcher.sweep") == ""


def test_reserved_names_without_a_row_are_erased_but_not_many_at_once(database: Database) -> None:
    rows = [published(database) for _ in range(8)]
    identity, name = rows[0]
    database.overwrite("delete from public.trained_identities where id = %s", [identity])
    worker = Worker(database)
    assert worker.sweep() == NOTHING_HELD
    assert set(lines(database, identity)) == {name}
    database.overwrite(
        "delete from public.trained_identities where id = any (%s)", [[row for row, _ in rows[:4]]]
    )
    assert worker.sweep() == NOTHING_HELD | {"held_names": 3}
    worker.call("confirm_sweep")
    assert worker.sweep() == NOTHING_HELD
    assert set(lines(database, rows[1][0])) == {rows[1][1]}


def test_a_row_that_was_restored_under_an_erased_id_is_erased_again_once(database: Database) -> None:
    identity, _ = published(database)
    row = database.row(identity)
    delete(database, identity)
    worker = Worker(database)
    erase(database, worker)
    database.store(row["image_paths"])
    database.overwrite(
        "insert into public.trained_identities (id, user_id, identity_name, image_paths, created_at) "
        "values (%s, %s, 'Ada', %s, %s)",
        [identity, row["user_id"], row["image_paths"], row["created_at"]],
    )
    worker.sweep()
    assert database.run("select id from public.trained_identities") == []
    assert receipt(database, identity)["finished_at"] is None
    erase(database, worker)
    assert receipt(database, identity)["photos"] == 6
    # One that is newer than its receipt was not restored: the operator has inserted it.
    paths = database.upload(row["user_id"])
    database.run(
        "insert into public.trained_identities (id, user_id, identity_name, image_paths) values (%s, %s, 'Ada', %s)",
        [identity, row["user_id"], paths],
    )
    worker.sweep()
    assert database.status(identity) == "pending"


def test_history_is_dropped_when_it_is_old(database: Database) -> None:
    identity, _ = published(database)
    gone, _ = published(database)
    delete(database, gone)
    worker = Worker(database)
    erase(database, worker)
    used = "select count(*) from watcher.used_names"
    database.pass_time(91 * 86400)
    worker.sweep()
    assert database.attempts(identity) == []
    assert receipt(database, gone)
    assert database.value(used) == 1
    database.pass_time(310 * 86400)
    worker.sweep()
    assert receipt(database, gone) == {}
    assert database.value(used) == 0


def test_many_daemons_make_one_sweep(database: Database) -> None:
    workers = [Worker(database, f"host {number}") for number in range(3)]
    database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    claims = [worker.claim({"sweep": 1}) for worker in workers]
    assert [len(claim) for claim in claims] == [1, 0, 0]
    attempt = claims[0][0]["attempt"]
    assert workers[0].call("sweep", attempt=attempt) == NOTHING_HELD
    assert workers[0].call("sweep", attempt=attempt) == NOTHING_HELD, "Its answer was lost."
    assert workers[1].call("sweep", attempt=attempt + 99)["result"] == "lost"
    assert workers[1].claim({"sweep": 1}) == []
    assert database.value("select count(*) from watcher.attempts") == 0
    database.pass_time(30)
    assert workers[1].claim({"sweep": 1})
