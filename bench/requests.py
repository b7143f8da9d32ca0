"""Requests to Storage, the Hub and the database for a row of 3, 10 and 40 images, as counted by the sandbox.

One row at a time, with nothing else due, and not the daemon's first. Counting starts when the daemon is ready and the
photos are uploaded, and ends shortly after the row is published. The user's own requests are excluded, and so are those
that belong to no row: the checks at the start (version, whoami), `watcher_beat`, and the empty claims of the poll.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable

from bench.photos import MEGABYTE, upload
from bench.report import Bench, Found, Line, at_most
from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene
from watcher.publishing.batching import ENOUGH_BYTES
from watcher.sandbox.faults.traffic import Count

_SIZE = 2 * MEGABYTE
_IMAGES = (3, 10, 40)
_ROWS_EACH = 3
_CALLS = 3  # claim, reserve, complete
_OF_NO_ROW = ("/watcher_beat", "/watcher_version", "/whoami-v2")


def by_the_daemon(counts: Iterable[Count]) -> list[Count]:
    """Its requests to Storage and the Hub for rows; those to the Hub's store are signed and have no caller."""
    return [
        one
        for one in counts
        if (one.service == "hub" or (one.service == "storage" and one.caller == "service_role"))
        and not one.route.endswith(_OF_NO_ROW)
    ]


def image_bytes(counts: Iterable[Count]) -> tuple[int, int]:
    """Bytes of images fetched and uploaded."""
    counts = list(counts)
    down = sum(c.bytes_out for c in counts if c.service == "storage" and c.caller == "service_role")
    up = sum(c.bytes_in for c in counts if c.service == "hub" and c.route.startswith("/_lfs/put/"))
    return down, up


class _Row:
    """What one row cost."""

    def __init__(self, here: Scene, identity: str, counts: list[Count]) -> None:
        attempts = here.attempts(identity)
        assert [attempt["outcome"] for attempt in attempts] == ["published"], attempts
        moved = by_the_daemon(counts)
        calls = [c for c in counts if c.service == "rest" and c.caller == "service_role"]
        self.calls = Counter({c.route: c.requests for c in calls if not c.route.endswith(_OF_NO_ROW)})
        claim, renew = "/rest/v1/rpc/watcher_claim", "/rest/v1/rpc/watcher_renew"
        self.empty_claims = self.calls[claim] - len(attempts)
        self.calls[claim] = len(attempts)
        self.renewals = self.calls.pop(renew, 0)
        self.routes = Counter({f"{c.service} {c.method} {c.route}": c.requests for c in moved})
        self.requests = self.routes.total()
        self.api = sum(c.requests for c in moved if c.service == "hub" and not c.route.startswith("/_lfs/"))
        self.bytes = sum(c.bytes_in + c.bytes_out for c in [*moved, *calls])


def _measure() -> Found:
    with scene() as here:
        person = Person(here.stage)
        paths = upload(person, _SIZE, max(_IMAGES))
        sizes = [
            here.one("select (metadata->>'size')::bigint from storage.objects where name = %(n)s", n=path)
            for path in paths
        ]
        found: dict[int, list[_Row]] = {count: [] for count in _IMAGES}
        with Watcher(here.stage) as watcher:
            watcher.ready()
            time.sleep(1)  # for the claim that follows the subscription to Realtime
            _one_row(
                here, person, paths[:3]
            )  # for a daemon's first row the Hub checks the model card beforehand
            for _ in range(_ROWS_EACH):
                for count in _IMAGES:
                    found[count].append(_one_row(here, person, paths[:count]))
            watcher.stop()
    rows = {count: max(found[count], key=lambda row: row.requests) for count in _IMAGES}
    calls = max(row.calls.total() for several in found.values() for row in several)
    empty = max(row.empty_claims for several in found.values() for row in several)
    renewals = sum(row.renewals for several in found.values() for row in several)
    ratios = {count: max(row.bytes for row in found[count]) / sum(sizes[:count]) for count in _IMAGES}
    lines = [_line(sizes[:count], rows[count].requests) for count in _IMAGES]
    api = {count: rows[count].api for count in _IMAGES}
    lines.append(at_most("of these, calls of the Hub's API for a row of 10", api[10], 4, digits=0))
    lines.append(at_most("database calls of a row, without renewals", calls, _CALLS, digits=0))
    lines.append(
        Line("not counted there: empty claims, most per row; renewals, in all", f"{empty}; {renewals}")
    )
    lines.append(
        at_most("bytes on the wire ÷ the images' (worst of n = 3, 10, 40)", max(ratios.values()), 2.02)
    )
    numbers = {
        "requests": {str(count): rows[count].requests for count in _IMAGES},
        "hub_api_calls": {str(count): calls for count, calls in api.items()},
        "database_calls": calls,
        "wire_ratio": round(max(ratios.values()), 4),
    }
    return Found(numbers, lines, _by_route(rows))


def _one_row(here: Scene, person: Person, paths: list[str]) -> _Row:
    here.sandbox.faults.reset()
    identity = person.insert("Ada", paths)
    person.wait_for(identity, "published", within=60)  # polls as the user, whose requests are not counted
    time.sleep(0.3)  # for requests that follow the write-back
    return _Row(here, identity, here.sandbox.faults.counts())


def _line(sizes: list[int], requests: int) -> Line:
    """Each image is fetched and uploaded; create, look, URLs for one batch and commit are four, each further batch one."""
    further = math.ceil(sum(sizes) / ENOUGH_BYTES) - 1
    return at_most(
        f"requests of a row of {len(sizes)} to Storage and the Hub",
        requests,
        2 * len(sizes) + 4 + further,
        digits=0,
    )


def _by_route(rows: dict[int, _Row]) -> list[str]:
    routes = sorted({route for row in rows.values() for route in (*row.routes, *row.calls)})
    lines = ["requests by route, n = " + ", ".join(map(str, rows))]
    lines += [
        "  ".join([*(f"{(row.routes + row.calls)[route]:4}" for row in rows.values()), route])
        for route in routes
    ]
    return ["\n".join(lines)]


BENCH = Bench("requests", "how many requests and bytes does a row cost?", _measure)
