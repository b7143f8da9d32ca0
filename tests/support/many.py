"""Fills a database with many rows at once, as real use would have left them. With triggers off, as a restore does."""

from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from tests.support.waiting import wait_until

# Twenty rows a user, ten photos a row.
_USERS = """
insert into auth.users (id) select md5('user ' || n)::uuid
from generate_series(%(first)s::integer / 20, %(last)s::integer / 20) n
on conflict do nothing
"""
_ROW = """
  gen_random_uuid() as id, md5('user ' || n / 20)::uuid as user_id, now() - n * interval '1 second' as came,
  array(select format('%%s/set-%%s/photo-%%s.jpg', md5('user ' || n / 20)::uuid, n, image)
    from generate_series(1, 10) image) as paths
  from generate_series(%(first)s::integer, %(last)s::integer) n
"""
_DEFERRED = f"""
with made as (select n, {_ROW}), inserted as (
  insert into public.trained_identities
    (id, user_id, identity_name, image_paths, num_training_images, next_attempt_at, created_at, updated_at)
  select id, user_id, 'Ada', paths, 10, now() + interval '1 hour' + n * interval '1 second', came, came from made
)
insert into watcher.work (kind, identity_id, owner, next_at, spent, last_reason)
select 'publish', id, user_id, now() + interval '1 hour' + n * interval '1 second', 1, 'The Hub is away.' from made
"""
_FAILED = f"""
with made as (select n, {_ROW})
insert into public.trained_identities (id, user_id, identity_name, image_paths, num_training_images, status,
  error_code, error_message, failed_at, created_at, updated_at)
select id, user_id, 'Ada', paths, 10, 'failed', case when n %% 3 = 0 then 'image_missing' else 'hub_refused' end,
  'The Hub refused it.', came, came, came from made
"""
_NAMES = """
insert into watcher.names (model_id, namespace, slug, seconds, identity_id)
select format('acme/identity-ada-%%s', second), 'acme', 'ada', second, gen_random_uuid()
from generate_series(%(first)s::bigint, %(last)s::bigint) second
"""

_VACUUM: LiteralString = "vacuum (analyze) public.trained_identities, watcher.work, watcher.names"
_UPDATES: LiteralString = """
select n_tup_upd, n_tup_hot_upd from pg_stat_all_tables where relid = 'public.trained_identities'::regclass
"""
_UNMARKED = """
select from pg_class where relallvisible < relpages
  and oid in ('public.trained_identities'::regclass, 'watcher.work'::regclass)
"""


def defer(admin: psycopg.Connection[Any], count: int) -> None:
    """Add pending rows that wait for an hour and more."""
    _fill(admin, (_USERS, _DEFERRED), first=1, last=count)


def fail(admin: psycopg.Connection[Any], count: int) -> None:
    """Add failed rows, of two codes."""
    _fill(admin, (_USERS, _FAILED), first=10_000_000, last=10_000_000 + count - 1)


def reserve(admin: psycopg.Connection[Any], count: int, first: int) -> None:
    """Reserve the names acme/identity-ada-SECOND of so many seconds in a row, from `first` on."""
    _fill(admin, (_NAMES,), first=first, last=first + count - 1)


def settle(admin: psycopg.Connection[Any]) -> None:
    """Return when all pages of rows and work are marked as visible to everybody, so that an index is enough to count.

    Whoever has a snapshot from before, such as autovacuum at another table, keeps vacuum from marking them.
    """

    def settled() -> bool:
        admin.execute(_VACUUM)
        return admin.execute(_UNMARKED).fetchone() is None

    wait_until(settled)


def updates(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Count the updates of rows up to this connection's last, and those of them that were HOT: in no index."""
    connection.execute("select pg_stat_force_next_flush()")
    [counted] = connection.cursor(row_factory=tuple_row).execute(_UPDATES).fetchall()
    return counted[0], counted[1]


def _fill(
    admin: psycopg.Connection[Any], statements: tuple[LiteralString, ...], *, first: int, last: int
) -> None:
    """`admin`: a superuser's connection, in autocommit. Leaves the tables as autovacuum does."""
    with admin.transaction():
        admin.execute("set local session_replication_role = replica")
        for statement in statements:
            admin.execute(statement, {"first": first, "last": last})
    admin.execute(_VACUUM)
