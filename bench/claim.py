"""A claim of 8 rows with 100 thousand pending, as the table grows from a thousand finished rows to a million.

Two databases: one stays small, the other grows, and claims in the two alternate. In SQL each claim is rolled back; over
REST it is committed, and its rows are released to the end of the queue before the next.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from bench.report import Bench, Found, Line, at_most, info, middle, percentiles, spread
from tests.checks.figures.scene import Scene, scene

_SMALL = 1_000
_GROWN = (10_000, 100_000, 1_000_000)
_WAITING = 100_000
_RUNNING = 32
_AT_ONCE = 100_000
_WANTED = 8
_WARM_UP = 10
_CLAIMS = 100
_REST_CLAIMS = 40

_CLAIM = "select public.watcher_claim('bench', %s, jsonb_build_object('publish', %s::integer), 20)"

# Twenty rows per user, ten photos per row. Finished rows ended in the order of their insertion, within the year that
# ended two hours ago.
_USERS = """
insert into auth.users (id, email, is_sso_user)
select md5('user ' || n)::uuid, n || '@example.com', false from generate_series({first} / 20, ({last} - 1) / 20) n
on conflict do nothing
"""
_ROW = """
  gen_random_uuid() as id, md5('user ' || n / 20)::uuid as user_id,
  (select array_agg(format('%s/set-%s/photo-%s.jpg', md5('user ' || n / 20)::uuid, n, image))
    from generate_series(1, 10) image) as image_paths
"""
_FINISHED = f"""
with made as (
  select n, now() - interval '2 hours' - (1 - n / 1e6) * interval '1 year' as came, {_ROW}
  from generate_series({{first}}, {{last}} - 1) n
), inserted as (
  insert into public.trained_identities (id, user_id, identity_name, image_paths, status, model_id, images_published,
    training_config, huggingface_repo_url, commit_sha, published_at, created_at, updated_at)
  select id, user_id, 'Ada', image_paths, 'published', 'sandbox/identity-ada-' || n, 10,
    '{{{{"steps": 1000, "learning_rate": 0.0001, "resolution": 1024}}}}', 'http://hub/sandbox/identity-ada-' || n,
    md5('sha ' || n) || '01234567', came + interval '1 minute', came, came + interval '1 minute' from made
), named as (
  insert into watcher.names (model_id, namespace, slug, seconds, identity_id, reserved_at)
  select 'sandbox/identity-ada-' || n, 'sandbox', 'ada', n, id, came from made
)
insert into watcher.attempts (work_id, kind, identity_id, instance, run_id, alone, look_only, started_at,
  lease_expires_at, ended_at, outcome)
select -n, 'publish', id, 'bench', md5('run ' || n / 1000)::uuid, false, false, came, came + interval '1 minute',
  came + interval '1 minute', 'published' from made
"""
# Every tenth is deferred after an attempt; half of these are due. The others are queued as the trigger does it: each
# further row of a user half a minute later. The first few are held by other daemons.
_OPEN = f"""
with made as (
  select n, case when n < {{first}} + {_RUNNING} then 'publishing' else 'pending' end as status, n % 10 = 9 as deferred,
    now() - interval '1 hour' + n % 1000 * interval '1 second' as came, {_ROW}
  from generate_series({{first}}, {{last}} - 1) n
), inserted as (
  insert into public.trained_identities (id, user_id, identity_name, image_paths, status, next_attempt_at,
    created_at, updated_at)
  select id, user_id, 'Ada', image_paths, status,
    case when deferred and status = 'pending' then now() + (n % 200 - 100) * interval '10 seconds' end, came, came
  from made
), queued as (
  insert into watcher.work (kind, identity_id, turn_at, next_at, spent)
  select 'publish', id, case when not deferred and status = 'pending' then came + n % 20 * interval '30 seconds' end,
    case when deferred and status = 'pending' then now() + (n % 200 - 100) * interval '10 seconds' end,
    case when deferred or status <> 'pending' then 1 else 0 end from made
  returning id as work_id, identity_id
)
insert into watcher.attempts (work_id, kind, identity_id, instance, run_id, alone, look_only, started_at,
  lease_expires_at, ended_at, outcome)
select work_id, 'publish', id, 'bench', md5('run of others')::uuid, false, false, came, now() + interval '1 day',
  case when status = 'pending' then came + interval '1 minute' end, case when status = 'pending' then 'deferred' end
from made join queued on identity_id = id where deferred or status <> 'pending'
"""
_TABLES = "public.trained_identities, watcher.attempts, watcher.work, watcher.names, auth.users"


def _measure() -> Found:
    with scene() as small, scene() as large:
        took = [fill(small, open_rows=_WAITING, finished=_SMALL)]
        took.append(fill(large, open_rows=_WAITING, finished=0))
        found: dict[int, tuple[list[float], list[float]]] = {}
        for before, finished in zip((0, *_GROWN), _GROWN, strict=False):
            took.append(fill(large, finished=finished - before, first=before))
            found[finished] = _alternating(small, large)
        plans = _plans(large)
        rest_small, rest_large = _over_rest(small, large)
    last = found[_GROWN[-1]]
    at_small, at_large = (median(seconds) * 1000 for seconds in last)
    allowed = at_small + max(1.0, 0.2 * at_small)
    lines = [
        at_most("claim of 8 in SQL, 1 million finished: median", at_large, 5, " ms"),
        Line("… beside a thousand", _beside(last), f"≤ {allowed:.2f} ms", at_large <= allowed),
        *(
            info(f"… {finished:,} finished", _beside(seconds))
            for finished, seconds in list(found.items())[:-1]
        ),
        info("… p95, 1 million and a thousand", _p95(last)),
        info("over REST, 1 million", _spread(rest_large)),
        info("over REST, a thousand", _spread(rest_small)),
        info(f"filling with {_WAITING:,} and {_GROWN[-1]:,} rows", f"{sum(took):.0f} s"),
    ]
    numbers = {
        "1k": middle([1000 * one for one in last[0]]),
        "1m": middle([1000 * one for one in last[1]]),
        "rest_1m": middle([1000 * one for one in rest_large]),
        "rest_1k": middle([1000 * one for one in rest_small]),
        "p95": {
            name: percentiles(seconds)["p95"]
            for name, seconds in (("1k", last[0]), ("1m", last[1]), ("rest_1m", rest_large))
        },
    }
    return Found({"claim_ms": numbers}, lines, plans)


def fill(here: Scene, *, open_rows: int = 0, finished: int = 0, first: int = 0) -> float:
    """Add rows as real use would have left them, then vacuum and analyze; returns the seconds taken.

    Finished rows are numbered from `first` on, open ones from 10 million.
    """
    began = time.monotonic()
    with _without_checks(here):
        for statement, start, count in ((_FINISHED, first, finished), (_OPEN, 10_000_000, open_rows)):
            for at in range(start, start + count, _AT_ONCE):
                part = {"first": at, "last": min(at + _AT_ONCE, start + count)}
                for query in (_USERS, statement):
                    here.database.execute(query.format(**part).encode())
    here.database.execute(f"vacuum (analyze) {_TABLES}".encode())
    here.database.execute("checkpoint")
    return time.monotonic() - began


@contextmanager
def _without_checks(here: Scene) -> Iterator[None]:
    """Insert without triggers and checks, which take a minute per million rows; later changes are checked again."""
    checks = here.database.execute(
        "select conname, pg_get_constraintdef(oid) from pg_constraint "
        "where conrelid = 'public.trained_identities'::regclass and contype = 'c'"
    ).fetchall()
    here.database.execute("set session_replication_role = replica")
    for name, _ in checks:
        here.database.execute(f"alter table public.trained_identities drop constraint {name}".encode())
    yield
    for name, definition in checks:
        bare = definition.removesuffix(" NOT VALID")
        add = f"alter table public.trained_identities add constraint {name} {bare} not valid"
        here.database.execute(add.encode())
    here.database.execute("set session_replication_role = origin")


@contextmanager
def session(here: Scene) -> Iterator[psycopg.Connection[Any]]:
    """A session with the daemon's role, that can also load auto_explain."""
    with psycopg.connect(here.sandbox.admin_db_url) as connection:
        connection.execute("set role service_role")
        connection.commit()
        yield connection


def _alternating(small: Scene, large: Scene) -> tuple[list[float], list[float]]:
    """Seconds of each claim in the small and in the large database."""
    with session(small) as one, session(large) as other:
        both = [(claim_in_sql(one), claim_in_sql(other)) for _ in range(_WARM_UP + _CLAIMS)][_WARM_UP:]
    return [pair[0] for pair in both], [pair[1] for pair in both]


def claim_in_sql(connection: psycopg.Connection[Any], limit: int = _WANTED) -> float:
    """The seconds of a claim, which is rolled back."""
    began = time.perf_counter()
    [(answer,)] = connection.execute(_CLAIM, [uuid4(), limit]).fetchall()
    seconds = time.perf_counter() - began
    connection.rollback()
    assert len(answer["claims"]) == limit, answer
    return seconds


def _over_rest(small: Scene, large: Scene) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    with httpx.Client() as http:
        for _ in range(_WARM_UP + _REST_CLAIMS):
            for here, seconds in zip((small, large), found, strict=True):
                seconds.append(_claim_over_rest(here, http))
    return found[0][_WARM_UP:], found[1][_WARM_UP:]


def _claim_over_rest(here: Scene, http: httpx.Client) -> float:
    began = time.perf_counter()
    answer = http.post(
        f"{here.stage.url}/rest/v1/rpc/watcher_claim",
        json={
            "p_instance": "bench",
            "p_run": str(uuid4()),
            "p_slots": {"publish": _WANTED},
            "p_lease_seconds": 20,
        },
        headers={"apikey": here.stage.secret_key},
    )
    seconds = time.perf_counter() - began
    claims = answer.raise_for_status().json()["claims"]
    assert len(claims) == _WANTED
    for claim in claims:
        assert here.one("select public.watcher_release(%(n)s, 'bench')", n=claim["attempt"]) == "done"
    return seconds


def _plans(here: Scene) -> list[str]:
    """The plans of the claim's two large queries in the large database, once the session uses cached plans."""
    seen: list[dict[str, Any]] = []
    with session(here) as connection:
        for _ in range(_WARM_UP):
            claim_in_sql(connection)
        connection.execute("reset role")
        try:
            connection.execute("load 'auto_explain'")
        except psycopg.errors.UndefinedFile:
            return ["No plans: this Postgres has no auto_explain."]
        for name, value in (
            *(("log_min_duration", "0"), ("log_nested_statements", "on"), ("log_analyze", "on")),
            *(("log_buffers", "on"), ("log_format", "json"), ("log_level", "notice")),
        ):
            connection.execute(f"set auto_explain.{name} = {value}".encode())
        connection.execute("set client_min_messages = notice")
        connection.execute("set role service_role")
        connection.commit()
        connection.add_notice_handler(lambda notice: seen.append(_plan_in(notice.message_primary or "")))
        claim_in_sql(connection)
    wanted = (("which work is due", ") candidates"), ("when the next is due", ") times"))
    return [
        "\n".join([f"{what} (1 million finished):", *_summary(plan["Plan"])])
        for what, mark in wanted
        for plan in seen
        if mark in plan.get("Query Text", "")
    ]


def _plan_in(message: str) -> dict[str, Any]:
    _, brace, rest = message.partition("{")
    plan: dict[str, Any] = json.loads(brace + rest) if brace else {}
    return plan


def _summary(plan: dict[str, Any], depth: int = 1) -> Iterator[str]:
    """One line per node of a plan: its type, rows, loops, milliseconds and pages."""
    on = " on ".join(plan[key] for key in ("Index Name", "Relation Name") if key in plan)
    loops = f" x {plan['Actual Loops']:g}" if plan["Actual Loops"] > 1 else ""
    removed = sum(
        plan.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Join Filter", "Index Recheck")
    )
    yield (
        f"{'  ' * depth}{plan['Node Type']} {on}: {plan['Actual Rows']:g} rows{loops}, "
        f"{plan['Actual Total Time']:.2f} ms, {plan['Shared Hit Blocks'] + plan['Shared Read Blocks']} pages"
        f"{f', {removed:g} removed' if removed else ''}"
    )
    for child in plan.get("Plans", ()):
        yield from _summary(child, depth + 1)


def _beside(seconds: tuple[list[float], list[float]]) -> str:
    small, large = (median(each) * 1000 for each in seconds)
    return f"{large:.2f} beside {small:.2f} ms, ratio {large / small:.2f}"


def _p95(seconds: tuple[list[float], list[float]]) -> str:
    small, large = (percentiles(each)["p95"] for each in seconds)
    return f"{large:.1f} and {small:.1f} ms"


def _spread(seconds: Sequence[float]) -> str:
    return f"{spread([1000 * one for one in seconds])} ms"


BENCH = Bench("claim", "how long a claim takes as the table grows", _measure)
