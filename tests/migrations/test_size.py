"""What calls cost beside many rows: how many entries of tables and indexes they read, not how long they take."""

from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.support import many
from tests.support.database import Connection, Database, Worker

pytestmark = pytest.mark.postgres

_MANY = 3_000
_READ = """
    select sum(pg_stat_get_xact_tuples_returned(oid))::bigint as entries from pg_class
    where relkind in ('r', 'i') and relnamespace in ('public'::regnamespace, 'watcher'::regnamespace)
"""


def entries_read(connection: Connection, query: str, *parameters: object) -> int:
    """Count what a statement reads of tables and indexes, and roll it back."""
    with connection.transaction(force_rollback=True):
        [before] = connection.execute(_READ).fetchall()
        connection.execute(query.encode(), parameters)
        [after] = connection.execute(_READ).fetchall()
    return int(after["entries"] - before["entries"])


@pytest.fixture
def admin(database: Database) -> Connection:
    return database.connect("supabase_admin")


def test_an_idle_claim_does_not_look_through_the_deferred_rows(database: Database, admin: Connection) -> None:
    many.defer(admin, _MANY)
    slots = Jsonb({"publish": 8, "erase": 2})
    claim = "select public.watcher_claim('host', %s, %s, 20)"
    assert entries_read(admin, claim, uuid4(), slots) < 1_200
    assert Worker(database).ask(8)["next_due_seconds"] > 3_000


def test_an_idle_claim_does_not_look_through_the_open_erasures(database: Database, admin: Connection) -> None:
    del database
    admin.execute(
        "insert into watcher.erasures (identity_id, cause) select gen_random_uuid(), 'row' from generate_series(1, %s)",
        [_MANY],
    )
    admin.execute(
        "insert into watcher.work (kind, identity_id, next_at) "
        "select 'erase', identity_id, now() + interval '1 hour' from watcher.erasures"
    )
    admin.execute("vacuum (analyze) watcher.erasures, watcher.work")
    claim = "select public.watcher_claim('host', %s, '{\"erase\": 2}', 20)"
    assert entries_read(admin, claim, uuid4()) < 1_200


def test_a_row_that_came_while_triggers_were_off_is_found_among_many(
    database: Database, admin: Connection
) -> None:
    many.defer(admin, 600)
    user = database.user()
    # The newest: a search begins with the oldest.
    database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths) values (%s, 'Ada', %s)",
        [user, database.upload(user)],
    )
    worker = Worker(database)
    assert [len(worker.claim()) for _ in range(3)] == [0, 0, 1]


def test_the_search_begins_again_behind_the_last_row(database: Database, admin: Connection) -> None:
    many.defer(admin, 600)
    worker = Worker(database)
    for _ in range(4):
        assert worker.claim() == []
    identity: UUID = database.value("select id from public.trained_identities order by created_at limit 1")
    database.overwrite("delete from watcher.work where identity_id = %s", [identity])
    database.overwrite(
        "update public.trained_identities set next_attempt_at = null where id = %s", [identity]
    )
    claims = [claim["identity_id"] for _ in range(3) for claim in worker.claim()]
    assert claims == [str(identity)]


def test_the_status_reads_no_row_to_count_it(database: Database, admin: Connection) -> None:
    many.defer(admin, _MANY)
    many.fail(admin, _MANY)
    many.settle(admin)
    # Once before, since the first call in a session reads the catalogue.
    for _ in range(2):
        [row] = admin.execute(
            "explain (analyze, buffers, timing off, format json) select public.watcher_status()"
        ).fetchall()
    [plan] = row["QUERY PLAN"]
    pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    of_rows = database.value("select pg_relation_size('public.trained_identities') / 8192")
    assert pages < of_rows / 4
    # Each pending row by its entry in the queue, each failed one by the index.
    assert entries_read(admin, "select public.watcher_status()") < 2 * _MANY + 200


def test_a_name_behind_many_is_found_with_few_looks(database: Database, admin: Connection) -> None:
    first = 1_767_225_600
    many.reserve(admin, 20_000, first)
    search = "select watcher.free_second('acme', 'ada', %s)"
    for start in (first, first + 1, first + 12_345, first + 19_999):
        assert entries_read(admin, search, start) < 100
        [row] = admin.execute(search, [start]).fetchall()
        assert list(row.values()) == [first + 20_000]
    database.insert(database.user())
    database.overwrite("update public.trained_identities set created_at = to_timestamp(%s)", [first])
    worker = Worker(database)
    assert worker.reserve(worker.claim_one()) == f"acme/identity-ada-{first + 20_000}"


@pytest.mark.parametrize("gap", [0, 1, 2, 7, 15])
def test_a_gap_among_the_next_names_is_used(database: Database, admin: Connection, gap: int) -> None:
    many.reserve(admin, 40, 1_000)
    admin.execute("delete from watcher.names where seconds = %s", [1_000 + gap])
    assert database.value("select watcher.free_second('acme', 'ada', 1000)") == 1_000 + gap


def test_a_name_that_was_given_up_is_passed_over_among_many(database: Database, admin: Connection) -> None:
    many.reserve(admin, 100, 1_000)
    admin.execute(
        "insert into watcher.used_names (digest) "
        "select watcher.name_digest('acme/identity-ada-' || second) from generate_series(1090, 1110) second"
    )
    admin.execute("delete from watcher.names where seconds >= 1090")
    assert database.value("select watcher.free_second('acme', 'ada', 1000)") == 1_111


def test_progress_is_written_within_the_page(database: Database, admin: Connection) -> None:
    """A HOT update adds nothing to any index. While `updated_at` was in one, none was."""
    users = [database.user() for _ in range(4)]
    for user in users * 4:
        database.insert(user, database.upload(user, 20))
    worker = Worker(database, own_connection=True)
    attempts = [claim["attempt"] for claim in worker.claim(16)]
    before, hot_before = many.updates(worker.connection)
    for images in range(1, 21):
        worker.renew(attempts, [images] * len(attempts))
    after, hot_after = many.updates(worker.connection)
    assert after - before == 20 * len(attempts) == 320
    assert hot_after - hot_before >= 0.9 * 320
