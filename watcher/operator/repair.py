"""Restores what the migrations created: `watcher migrate --repair`.

Finds the same differences as `watcher doctor`, over the database's own URL, and runs the SQL that doctor would show.
"""

from collections.abc import Callable, Iterator

import psycopg

from watcher import migrate
from watcher.errors import Misconfigured
from watcher.operator import direct
from watcher.operator.doctor import drift
from watcher.operator.doctor.definitions import definitions
from watcher.operator.doctor.drift import Drift

_CHECKS = (
    definitions,
    drift.tables,
    drift.policies,
    drift.grants,
    drift.needs,
    drift.buckets,
    drift.publication,
)
# What is restored can show more: a function that is created anew lacks its grants.
_PASSES = 5
_CATALOGUE = ("watcher.definitions()", "public.watcher_catalogue()")
_SETTINGS = f"set local lock_timeout = '{migrate.LOCK_TIMEOUT}s'; set local check_function_bodies = off;"


def repair(db_url: str, *, confirm: Callable[[list[Drift]], bool]) -> list[Drift]:
    """Restore what differs, in one transaction, and return it; nothing unless `confirm` agrees to what would be changed.

    Raises Misconfigured if something could not be restored, and Transient if the database cannot be reached or a lock is not
    available.
    """
    expected = drift.load_expected()
    with direct.connected(db_url) as connection:
        with connection.transaction(force_rollback=True):
            planned = list(_restore(connection, expected))
        if not planned or not confirm(planned):
            return []
        with connection.transaction():
            done = list(_restore(connection, expected))
        connection.execute("notify pgrst, 'reload schema'")
        return done


def _restore(connection: psycopg.Connection, expected: dict[str, object]) -> Iterator[Drift]:
    """Run the SQL for each difference, and yield it, until there is none."""
    connection.execute(_SETTINGS.encode())
    shown = expected["definitions"]
    assert isinstance(shown, dict)
    for function in _CATALOGUE:
        yield from _without_catalogue(connection, function, shown[f"function {function}"])
    for _ in range(_PASSES):
        found = _differences(connection, expected)
        for one in found:
            _execute(connection, one)
        yield from found
        if not found:
            return
    if found := _differences(connection, expected):
        raise Misconfigured(f"This could not be restored, and nothing was changed: {found[0].sentence}")


def _differences(connection: psycopg.Connection, expected: dict[str, object]) -> list[Drift]:
    return [one for check in _CHECKS for one in check(_catalogue(connection), expected)]


def _without_catalogue(connection: psycopg.Connection, function: str, want: str) -> Iterator[Drift]:
    """Restore a function that the catalogue is made with."""
    query = "select pg_get_functiondef(to_regprocedure(%s))"
    row = connection.execute(query, [function]).fetchone()
    have = row[0] if row else None
    if have != want:
        found = Drift(f"The function {function} {'is missing' if have is None else 'was changed'}.", want)
        _execute(connection, found)
        yield found


def _catalogue(connection: psycopg.Connection) -> dict[str, object]:
    row = connection.execute("select public.watcher_catalogue()").fetchone()
    assert row is not None
    catalogue: dict[str, object] = row[0]
    return catalogue


def _execute(connection: psycopg.Connection, one: Drift) -> None:
    try:
        connection.execute(one.remedy.encode())
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise Misconfigured(
            f"{one.sentence} It could not be restored, and nothing was changed: {error.diag.message_primary}."
        ) from error
