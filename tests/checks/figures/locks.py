"""Locks: a row that another session has locked, and accounts that are deleted while their rows are being published."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher

from .figure import Figure, Measured, spread
from .scene import Scene, scene

_LOCKED_FOR = 30.0
_ACCOUNTS, _AT_ONCE = 200, 6


def _locked() -> Measured:
    """Two daemons with four rows each. A session locks one row of each; of the second, the attempt as well."""
    with scene() as here, ExitStack() as stack:
        kept = here.keep("create")
        rows: list[list[str]] = []
        watchers = []
        for _ in range(2):
            watchers.append(stack.enter_context(Watcher(here.stage)))
            rows.append(here.insert(4))
            for row in rows[-1]:
                here.claimed(row)
        locked = [mine[0] for mine in rows]
        others = [row for mine in rows for row in mine[1:]]
        began = time.monotonic()
        with psycopg.connect(here.sandbox.admin_db_url) as somebody:
            ids = [locked]
            somebody.execute(
                "select from public.trained_identities where id = any (%s::uuid[]) for update", ids
            )
            somebody.execute(
                "select from watcher.attempts where identity_id = %s and ended_at is null for update",
                locked[1:],
            )
            time.sleep(22)  # longer than a lease, so that it lasts only by renewals
            here.sandbox.faults.remove(kept)
            here.all_become(others, "published", within=_LOCKED_FOR - 22)
            time.sleep(max(0.0, began + _LOCKED_FOR - time.monotonic()))
        here.all_become(locked, "published", within=60)
        for watcher in watchers:
            watcher.stop()
        good = sum([a["outcome"] for a in here.attempts(row)] == ["published"] for row in others)
        of_the_locked = [[a["outcome"] for a in here.attempts(row)] for row in locked]
    return Measured(
        good == len(others),
        f"{good} of {len(others)} others published by their first attempt while it was locked; attempts on the locked "
        f"ones: {of_the_locked[0]} and, with the attempt locked as well, {of_the_locked[1]}",
        {"others": good, "locked": of_the_locked},
    )


def _accounts() -> Measured:
    """Two daemons, and users who insert a row and soon after delete their account, six at a time."""
    with scene() as here, Watcher(here.stage) as one, Watcher(here.stage) as other:
        for watcher in (one, other):
            watcher.ready()
        deletions = _Deletions(here)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(deletions.insert_and_delete, range(_ACCOUNTS)))
        time.sleep(2)
        deadlocks = here.one("select sum(deadlocks)::int from pg_stat_database")
        left = here.one(
            "select (select count(*) from public.trained_identities) + (select count(*) from watcher.work)"
            " + (select count(*) from watcher.attempts where ended_at is null)"
        )
        unexpected = sum(len(watcher.said("unexpected")) for watcher in (one, other))
        for watcher in (one, other):
            watcher.stop()
    numbers = {
        "deleted": len(deletions.seconds),
        "while_publishing": deletions.while_publishing,
        "seconds": spread(deletions.seconds),
        "deadlocks": deadlocks,
        "left": left,
        "unexpected": unexpected,
    }
    return Measured(
        len(deletions.seconds) == _ACCOUNTS and deadlocks == left == unexpected == 0,
        f"{len(deletions.seconds)} of {_ACCOUNTS} succeeded ({deletions.while_publishing} while publishing, "
        f"at most {max(deletions.seconds):.2f} s), {deadlocks} deadlocks, {left} rows left",
        numbers,
    )


class _Deletions:
    """Inserts rows, deletes their users' accounts, and counts."""

    def __init__(self, here: Scene) -> None:
        self._here = here
        self._lock = threading.Lock()
        self.seconds: list[float] = []
        self.while_publishing = 0

    def insert_and_delete(self, number: int) -> None:
        somebody = Person(self._here.stage)
        [row] = self._here.insert(person=somebody)
        time.sleep(random.uniform(0, 0.5))
        publishing = somebody.row(row)["status"] == "publishing"
        began = time.monotonic()
        self._here.stage.admin.auth.admin.delete_user(somebody.id)
        with self._lock:
            self.seconds.append(time.monotonic() - began)
            self.while_publishing += int(publishing)


FIGURES = [
    Figure(
        "locked", "1 row of 4 locked for 30 s: the others keep their lease and publish", _locked, waits=True
    ),
    Figure("accounts", "200 account deletions while publishing: no failure, deadlock or row left", _accounts),
]
