"""What single calls cost beside many rows: in SQL, rolled back, in the state in which autovacuum leaves the tables.

- A claim that finds nothing, with 50,000 deferred rows.
- `watcher status` and a scrape of /metrics, which make one call, with 50,000 pending and 50,000 failed rows.
- A reservation that finds the next 100,000 names taken.
- Writes of progress: the share that is HOT, which adds nothing to any index.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any
from uuid import uuid4

import httpx
import psycopg

from bench.claim import session
from bench.report import Bench, Found, at_least, at_most, info, spread
from tests.checks.figures.scene import Scene, scene
from tests.support import many

_DEFERRED = _FAILED = 50_000
_NAMES = 100_000
_TIMES = 31
_WARM_UP = 6
"""From the sixth call on, a session uses cached plans."""
_ROWS, _IMAGES = 16, 20

_CLAIM = 'select public.watcher_claim(\'bench\', %s, \'{"publish": 8, "erase": 2, "sweep": 1}\', 20)'


def _measure() -> Found:
    with scene() as here:
        many.defer(here.database, _DEFERRED)
        here.database.execute(
            "update watcher.work set turn_at = null, next_at = now() + interval '1 hour' where kind = 'sweep'"
        )
        with session(here) as connection:
            claim = _milliseconds(connection, lambda: connection.execute(_CLAIM, [uuid4()]))
        many.fail(here.database, _FAILED)
        with session(here) as connection:
            status = _milliseconds(connection, lambda: connection.execute("select public.watcher_status()"))
        rest = _over_rest(here)
        hot = _hot_share(here)
        behind = _reserve(here)
    numbers = {
        "claim_idle_ms": round(median(claim), 2),
        "status_ms": round(median(status), 1),
        "status_rest_ms": round(median(rest), 1),
        "reserve_ms": round(median(behind), 2),
        "hot_share": round(hot, 3),
    }
    lines = [
        at_most(f"claim that finds nothing, {_DEFERRED:,} deferred", numbers["claim_idle_ms"], 5, " ms"),
        info("  spread", f"{spread(claim)} ms"),
        at_most(
            f"status or scrape, {_DEFERRED:,} pending and {_FAILED:,} failed", numbers["status_ms"], 50, " ms"
        ),
        info("  spread", f"{spread(status, 1)} ms"),
        info("  over REST", f"{spread(rest, 1)} ms"),
        at_most(f"reservation behind {_NAMES:,} names", numbers["reserve_ms"], 10, " ms"),
        info("  spread", f"{spread(behind)} ms"),
        at_least("share of progress writes that are HOT", 100 * hot, 90, " %", digits=1),
    ]
    return Found({"size": numbers}, lines)


def _milliseconds(connection: psycopg.Connection[Any], call: Callable[[], object]) -> list[float]:
    """The milliseconds of each call, which is rolled back."""
    found = []
    for _ in range(_WARM_UP + _TIMES):
        began = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - began))
        connection.rollback()
    return found[_WARM_UP:]


def _over_rest(here: Scene) -> list[float]:
    found = []
    with httpx.Client() as http:
        for _ in range(_WARM_UP + _TIMES):
            began = time.perf_counter()
            answer = http.post(
                f"{here.stage.url}/rest/v1/rpc/watcher_status",
                json={},
                headers={"apikey": here.stage.secret_key},
            )
            found.append(1000 * (time.perf_counter() - began))
            counts = answer.raise_for_status().json()
            assert (counts["pending"], sum(counts["failed"].values())) == (_DEFERRED, _FAILED)
    return found[_WARM_UP:]


def _claim(here: Scene, count: int) -> list[int]:
    answer = here.one(
        "select public.watcher_claim('bench', gen_random_uuid(), jsonb_build_object('publish', %(n)s::int), 600)",
        n=count,
    )
    return [claim["attempt"] for claim in answer["claims"]]


def _reserve(here: Scene) -> list[float]:
    """Reserve a name whose second and the 100,000 after it are taken."""
    [identity] = here.insert()
    [attempt] = _claim(here, 1)
    second = here.one(
        "select floor(extract(epoch from created_at))::bigint from public.trained_identities where id = %(id)s",
        id=identity,
    )
    many.reserve(here.database, _NAMES, second)
    reserve = "select public.watcher_reserve(%s, 'acme', 'ada')"
    with session(here) as connection:
        found = _milliseconds(connection, lambda: connection.execute(reserve, [attempt]))
        [(name,)] = connection.execute(reserve, [attempt]).fetchall()
    assert name == f"acme/identity-ada-{second + _NAMES}", name
    assert here.one("select public.watcher_fail(%(n)s, 'hub_refused', 'X.')", n=attempt) == "done"
    return found


def _hot_share(here: Scene) -> float:
    """Report the progress of rows side by side, image by image, each time for all of them, as a daemon does."""
    paths = here.person.photos(_IMAGES)
    for _ in range(_ROWS):
        here.person.insert("Ada", paths)
    attempts = _claim(here, _ROWS)
    assert len(attempts) == _ROWS
    before = many.updates(here.database)
    for images in range(1, _IMAGES + 1):
        here.database.execute(
            "select public.watcher_renew(jsonb_object_agg(number, jsonb_build_object('images_published', %s::int)), 600)"
            " from unnest(%s::bigint[]) number",
            [images, attempts],
        )
    after = many.updates(here.database)
    assert after[0] - before[0] == _ROWS * _IMAGES
    for attempt in attempts:
        here.one("select public.watcher_fail(%(n)s, 'hub_refused', 'X.')", n=attempt)
    return float((after[1] - before[1]) / (after[0] - before[0]))


BENCH = Bench("size", "what do single calls cost beside many rows?", _measure)
