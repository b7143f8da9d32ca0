"""The sweep: what no deletion of a row has listed is found, and much that looks gone at once waits to be confirmed."""

from uuid import UUID, uuid4

import pytest

from tests.migrations.test_forgetting import delete, erase, lines, published, receipt
from tests.support.database import Database, Worker, run

pytestmark = pytest.mark.postgres

NOTHING_HELD = {"result": "done", "held_users": None, "held_names": None, "held_uploads": None, "failed": 0}


def photos_listed(database: Database) -> set[str]:
    return {row["name"] for row in database.run("select name from watcher.erase_lines where what = 'photo'")}


def soft_delete(database: Database, user: UUID) -> None:
    database.run("update auth.users set deleted_at = now() where id = %s", [user], role="supabase_auth_admin")


def vanish(database: Database, *users: UUID) -> None:
    """Take accounts away as a restore might: no trigger sees it."""
    database.overwrite("delete from auth.users where id = any (%s)", [list(users)])


def uploaders(database: Database, count: int) -> list[UUID]:
    """Sign up so many users, each with one photo."""
    users = [database.user() for _ in range(count)]
    for user in users:
        database.upload(user, 1)
    return users


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
    assert worker.call("confirm_sweep") == {"users": gone, "names": 0, "uploads": 0}
    assert worker.sweep() == NOTHING_HELD
    assert len(photos_listed(database)) == len(rows) * 3 + gone - len(rows)
    assert database.run("select id from public.trained_identities") == []
    assert worker.call("erasures")["summary"]["held_users"] is None


def test_what_is_confirmed_is_not_more_than_was_shown(database: Database) -> None:
    users = uploaders(database, 6)
    vanish(database, *users[:3])
    worker = Worker(database)
    assert worker.sweep()["held_users"] == 3
    worker.call("confirm_sweep")
    vanish(database, *users[3:])
    assert worker.sweep()["held_users"] == 6
    assert photos_listed(database) == set()


def test_accounts_that_come_back_are_held_no_more(database: Database) -> None:
    users = uploaders(database, 5)
    vanish(database, *users)
    worker = Worker(database)
    assert worker.sweep()["held_users"] == 5
    database.run("insert into auth.users (id) select unnest(%s::uuid[])", [users])
    assert worker.sweep() == NOTHING_HELD
    assert photos_listed(database) == set()


def test_folders_that_are_nobodys_are_left_alone(database: Database) -> None:
    database.user()
    database.store(["readme.txt", "shared/a.jpg", "not-a-uuid/b.jpg"])
    worker = Worker(database)
    for _ in range(2):
        assert worker.sweep() == NOTHING_HELD
        database.pass_time(8 * 86400)
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


def test_a_row_that_cannot_be_deleted_holds_up_nobody_else(database: Database) -> None:
    """The app's own table refers to it, without a cascade."""
    stuck, free = database.user(), database.user()
    kept = database.insert(stuck)
    database.insert(free)
    database.run("create table public.orders (identity_id uuid references public.trained_identities)")
    try:
        database.run("insert into public.orders values (%s)", [kept])
        restored, _ = published(database, stuck)
        database.run("insert into public.orders values (%s)", [restored])
        database.overwrite(
            "insert into watcher.erasures (identity_id, cause, finished_at) values (%s, 'row', now())",
            [restored],
        )
        soft_delete(database, stuck)
        soft_delete(database, free)
        worker = Worker(database)
        assert worker.sweep() == NOTHING_HELD | {"failed": 2}
        assert {row["user_id"] for row in database.run("select user_id from public.trained_identities")} == {
            stuck
        }
        assert 'constraint "orders_identity_id_fkey"' in worker.call("erasures")["summary"]["failed_because"]
    finally:
        database.run("drop table public.orders")
    assert worker.sweep() == NOTHING_HELD
    assert database.run("select id from public.trained_identities") == []
    assert worker.call("erasures")["summary"]["failed_because"] is None


def test_no_daemon_becomes_free_of_other_work_for_a_sweep(database: Database) -> None:
    worker = Worker(database)
    database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    for _ in range(4):
        assert worker.claim({"sweep": 1})
        database.pass_time(30)
    database.pass_time(90)
    holding = database.insert(database.user())
    held = worker.claim_one()
    assert database.row(holding)["status"] == "publishing"
    [claim] = worker.claim({"sweep": 1}, holding=[held])
    assert claim["kind"] == "sweep"


def rows_read(database: Database, call: str, table: str) -> int:
    """Return how many rows of a table a call reads, as Postgres counts them."""
    query = "select seq_tup_read + coalesce(idx_tup_fetch, 0) as rows from pg_stat_xact_all_tables "
    query += "where relid = %s::regclass"
    connection = database.connect("supabase_admin")
    with connection.transaction():
        before = run(connection, query, [table])
        run(connection, call)
        [after] = run(connection, query, [table])
    return int(after["rows"]) - (before[0]["rows"] if before else 0)


def test_what_a_user_has_is_found_without_reading_it_over_and_over(database: Database) -> None:
    """A product of a user's rows and photos took minutes, within a claim: no daemon could claim anything."""
    user = database.user()
    paths = [f"{user}/{number:04}.jpg" for number in range(500)]
    database.store(paths)
    gone = database.insert(user, paths[460:])
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths) "
        "select %s, 'Ada', %s from generate_series(1, 100)",
        [user, paths[:3]],
    )
    delete(database, gone)
    table = "public.trained_identities"
    assert rows_read(database, "select watcher.note_unnamed('')", table) <= 300
    assert rows_read(database, f"select watcher.drop_needless_photos('{gone}')", table) <= 300


def test_what_soft_deleted_users_have_is_found_by_the_index(database: Database) -> None:
    for user in [database.user() for _ in range(20)]:
        soft_delete(database, user)
    database.store([f"{uuid4()}/{number}.jpg" for number in range(5000)])
    database.run("analyze storage.objects", role="supabase_admin")
    user = database.user()
    for call in (
        "select watcher.sweep_soft_deleted()",
        f"select watcher.erase_user('{user}', 'folder', false)",
        f"select public.watcher_forget('{user}', true)",
        f"select public.watcher_export('{user}')",
        f"delete from auth.users where id = '{user}'",
    ):
        assert rows_read(database, call, "storage.objects") <= 100, call


def test_all_that_was_confirmed_is_erased_in_batches_and_no_more(database: Database) -> None:
    users = uploaders(database, 60)
    vanish(database, *users)
    worker = Worker(database)
    assert worker.sweep()["held_users"] == 60
    worker.call("confirm_sweep")
    for listed in (50, 60):
        assert worker.sweep() == NOTHING_HELD
        assert len(photos_listed(database)) == listed
    again = uploaders(database, 2)
    vanish(database, *again)
    assert worker.sweep()["held_users"] == 2, "What was confirmed is used up."


def test_where_photos_are_kept_users_with_rows_are_found_beside_many_with_photos(database: Database) -> None:
    database.run("insert into watcher.limits (name, value) values ('erase_photos', 0)")
    users = [uuid4() for _ in range(400)]
    departed, soft = users[:200], users[200:]
    database.run(
        "insert into auth.users (id, deleted_at) select unnest(%s::uuid[]), now()",
        [soft],
        role="supabase_admin",
    )
    database.run(
        "insert into watcher.departures (digest) select watcher.user_digest(u) from unnest(%s::uuid[]) u",
        [departed],
    )
    database.store([f"{user}/1.jpg" for user in users])
    for user in (departed[-1], soft[-1]):
        database.overwrite(
            "insert into public.trained_identities (user_id, identity_name, image_paths) values (%s, 'Ada', %s)",
            [user, [f"{user}/{number}.jpg" for number in range(3)]],
        )
    assert Worker(database).sweep() == NOTHING_HELD
    assert database.run("select id from public.trained_identities") == []


def test_uploads_of_many_that_no_row_names_wait_to_be_confirmed(database: Database) -> None:
    """The rows may be missing, as after a restore; or the bucket is older than this schema."""
    users = [database.user() for _ in range(4)]
    for user in users[:2]:
        database.upload(user, 1)
    worker = Worker(database)
    worker.sweep()
    database.pass_time(7 * 86400 + 1)
    for _ in range(2):
        assert worker.sweep() == NOTHING_HELD | {"held_uploads": 2}
    assert photos_listed(database) == set()
    assert worker.call("confirm_sweep") == {"users": 0, "names": 0, "uploads": 2}
    assert worker.sweep() == NOTHING_HELD
    assert len(photos_listed(database)) == 2


def test_history_that_is_not_old_enough_is_not_read(database: Database) -> None:
    database.overwrite(
        "insert into watcher.attempts (work_id, kind, identity_id, instance, run_id, alone, look_only, lease_expires_at, "
        "ended_at, outcome) select n, 'publish', gen_random_uuid(), 'host', gen_random_uuid(), false, false, now(), now(), "
        "'published' from generate_series(1, 3000) n"
    )
    database.overwrite(
        "insert into watcher.used_names (digest) select sha256(n::text::bytea) from generate_series(1, 3000) n"
    )
    database.run("analyze watcher.attempts, watcher.used_names")
    for table in ("watcher.attempts", "watcher.used_names"):
        assert rows_read(database, "select watcher.sweep_history()", table) <= 100, table
