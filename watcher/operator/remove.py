"""Takes what the migrations created out of a project again: `watcher migrate --remove`.

Repos on the Hub and photos in the buckets stay, and what the app has added beside our tables; what it has hung on a table or
function in `public` is an error. The schema watcher is ours alone, and goes with what hangs on it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from watcher import migrate
from watcher.errors import Transient
from watcher.operator import direct
from watcher.operator.doctor import drift
from watcher.operator.format import count

# Storage guards its tables against a DELETE by mistake; the buckets that go are empty.
_SETTINGS = (
    f"set local lock_timeout = '{migrate.LOCK_TIMEOUT}s'; set local storage.allow_delete_query = 'true';"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be removed and what stays, as sentences, and why it should not be done now."""

    removed: list[str]
    kept: list[str]
    reasons_against: list[str]
    statements: list[str]


def remove(db_url: str, *, force: bool, confirm: Callable[[Plan], bool]) -> bool:
    """Remove everything in one transaction, if `confirm` agrees; returns whether that was done.

    Raises Transient while daemons were heard lately or erasures are open, unless `force`, and if the database cannot be
    reached or a lock is not available; Misconfigured if something of the app's depends on what would be removed.
    """
    with direct.connected(db_url) as connection:
        planned = _plan(connection)
        if planned.reasons_against and not force:
            raise Transient(
                f"{' '.join(planned.reasons_against)} Nothing was removed; --force does it anyway."
            )
        if not planned.statements or not confirm(planned):
            return False
        with connection.transaction():
            connection.execute(_SETTINGS.encode())
            for statement in planned.statements:
                connection.execute(statement.encode())
        connection.execute("notify pgrst, 'reload schema'")
        return True


def _plan(connection: psycopg.Connection) -> Plan:
    expected = drift.load_expected()
    names = [name.partition(" ")[::2] for name in expected["definitions"]]
    tables = [name for kind, name in names if kind == "table" and name.startswith("public.")]
    functions = [name for kind, name in names if kind == "function" and name.startswith("public.")]
    policies = [policy["name"] for policy in expected["policies"] if policy["table"] == "storage.objects"]
    plan = Plan([], [], [], [])
    found = _existing(connection, policies, tables, functions)
    if any(found.values()):
        _plan_buckets(connection, expected, plan)
    for what, which in found.items():
        plan.removed.extend(_described(connection, what, which))
        plan.statements.extend(_dropping(what, name) for name in which)
    plan.reasons_against.extend(_reasons_against(connection))
    return plan


def _existing(
    connection: psycopg.Connection, policies: list[str], tables: list[str], functions: list[str]
) -> dict[str, list[str]]:
    """Return what of ours is there, in the order in which it can be dropped."""
    queries = {
        "policy": (
            (
                "select policyname from pg_policies where schemaname = 'storage' and tablename = 'objects' "
                "and policyname = any (%s)"
            ),
            policies,
        ),
        "function": (
            "select name from unnest(%s::text[]) name where to_regprocedure(name) is not null",
            functions,
        ),
        "schema": ("select nspname from pg_namespace where nspname = any (%s)", ["watcher"]),
        "table": ("select name from unnest(%s::text[]) name where to_regclass(name) is not null", tables),
    }
    return {
        what: [str(name) for (name,) in connection.execute(query.encode(), [names])]
        for what, (query, names) in queries.items()
    }


def _dropping(what: str, name: str) -> str:
    match what:
        case "policy":
            return f"drop policy {sql.Identifier(name).as_string()} on storage.objects"
        case "schema":
            return f"drop schema {name} cascade"
        case _:
            return f"drop {what} {name}"


def _described(connection: psycopg.Connection, what: str, which: list[str]) -> list[str]:
    if not which:
        return []
    match what:
        case "policy":
            return [f"the policies on storage.objects: {', '.join(which)}"]
        case "function":
            return [f"{count(len(which), 'function')} public.watcher_…"]
        case "table":
            return [f"the table {name} ({count(_rows(connection, name), 'row')})" for name in which]
        case _:
            attempts = count(_rows(connection, "watcher.attempts"), "attempt")
            erasures = count(_rows(connection, "watcher.erasures"), "erasure")
            return [f"the schema watcher (the history of {attempts}, the receipts of {erasures}, the limits)"]


def _plan_buckets(
    connection: psycopg.Connection, expected: dict[str, list[dict[str, str]]], plan: Plan
) -> None:
    texts = " ".join(f"{policy['using']} {policy['check']}" for policy in expected["policies"])
    for name in sorted(set(re.findall(r"bucket_id = '([\w-]+)'", texts))):
        query = """
            select (select count(*) from storage.objects o where o.bucket_id = b.id) from storage.buckets b where b.id = %s
        """
        row = connection.execute(query, [name]).fetchone()
        if row is None:
            continue
        if row[0]:
            plan.kept.append(f"the bucket {name}, which has {count(row[0], 'file')}")
        else:
            plan.removed.append(f"the bucket {name}, which is empty")
            plan.statements.append(f"delete from storage.buckets where id = '{name}'")  # noqa: S608  (of catalogue.json)


def _reasons_against(connection: psycopg.Connection) -> list[str]:
    reasons = []
    if _is_there(connection, "watcher.instances"):
        query = "select string_agg(name, ', ' order by name) from watcher.instances where seen_at > now() - interval '30 s'"
        [heard] = connection.execute(query).fetchone() or [None]
        if heard:
            reasons.append(f"These daemons were heard within the last 30 s: {heard}; stop them first.")
    if _is_there(connection, "watcher.erasures"):
        query = "select count(*) from watcher.erasures where finished_at is null"
        [open_] = connection.execute(query).fetchone() or [0]
        if open_:
            reasons.append(
                f"{count(open_, 'erasure')} open, of which repos and photos would stay for good: `watcher erasures`."
            )
    if _is_there(connection, "watcher.trainings"):
        query = "select count(*) from watcher.trainings where ended_at is null"
        [running] = connection.execute(query).fetchone() or [0]
        if running:
            reasons.append(
                f"{count(running, 'training')} running, which nobody would follow any more: `watcher training`."
            )
    return reasons


def _rows(connection: psycopg.Connection, table: str) -> int:
    if not _is_there(connection, table):
        return 0
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608  (of catalogue.json)
    assert row is not None
    return int(row[0])


def _is_there(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute("select to_regclass(%s) is not null", [table]).fetchone() == (True,)
