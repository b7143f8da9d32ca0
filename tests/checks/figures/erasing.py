"""Erasure: what a deleted row or account has left is gone in time, and no repo comes back."""

import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher

from .figure import Figure, Measured, in_words, spread
from .scene import Scene, scene, until

_EACH = 10
_ACCOUNTS = 200
_AT_ONCE = 8


def _receipts(here: Scene) -> dict[str, Any]:
    receipts = here.stage.rpc("watcher_erasures", limit=100_000)["receipts"]
    return {receipt["id"]: receipt for receipt in receipts}


def _wait_for(here: Scene, rows: Iterable[str], within: float) -> list[float]:
    """Wait for the receipts of rows, and return the seconds that each took."""
    wanted = set(rows)
    until(lambda: wanted <= _receipts(here).keys(), within)
    return [float(receipt["seconds"]) for identity, receipt in _receipts(here).items() if identity in wanted]


def _left(here: Scene) -> list[str]:
    """What is left: repos, large files of repos that are gone, names, rows, and photos of all but the scene's user."""
    store = here.sandbox.hub.store
    left = [f"repo {repo.name}" for repo in store.repos("models")]
    left += [f"large file {name}" for name in store.bytes.uncollected()]
    for table in ("public.trained_identities", "watcher.names", "watcher.erase_lines"):
        left += [f"{number} of {table}"] if (number := here.one(f"select count(*) from {table}")) else []
    others = "select count(*) from storage.objects where not starts_with(name, %(user)s)"
    left += [f"{photos} photos"] if (photos := here.one(others, user=here.person.id)) else []
    return left


def _published(here: Scene, count: int) -> list[str]:
    rows = [here.person.insert("Ada") for _ in range(count)]
    here.all_become(rows, "published", 120)
    return rows


def _failed(here: Scene, count: int) -> list[str]:
    rows = []
    for _ in range(count):
        paths = [*here.person.photos(), here.person.upload(b"no picture")]
        rows.append(here.person.insert("Ada", paths))
    here.all_become(rows, "failed", 120)
    # Where the photo was refused before the request for the repo was answered, a second look comes 150 s later; see _late.
    answered = "select bool_and(answered) from watcher.attempts where identity_id = %s and kind = 'publish'"
    return [row for row in rows if here.stage.sql(answered, row)[0]]


def _pending(here: Scene, count: int) -> list[str]:
    return [here.person.insert("Ada") for _ in range(count)]


def _healthy() -> Measured:
    """Rows in each status are deleted, one after the other, while two daemons run."""
    seconds: list[float] = []
    with scene() as here:
        made: tuple[Callable[[Scene, int], list[str]], ...] = (_published, _failed)
        with Watcher(here.stage) as one, Watcher(here.stage) as two:
            one.ready(), two.ready()
            for make in made:
                rows = make(here, _EACH)
                for row in rows:
                    here.person.delete(row)
                    time.sleep(random.uniform(0, 0.5))
                seconds += _wait_for(here, rows, 60)
        # Pending: no daemon has taken them yet.
        rows = _pending(here, _EACH)
        for row in rows:
            here.person.delete(row)
        with Watcher(here.stage):
            _wait_for(here, rows, 60)
        left = _left(here)
    numbers = spread(seconds)
    return Measured(
        numbers["median"] <= 5 and numbers["max"] <= 60 and not left,
        f"{in_words(numbers)}; left: {left or 'nothing'}",
        {"seconds": numbers, "left": len(left)},
    )


def _late() -> Measured:
    """A daemon is killed or frozen at a request that lands half a minute later; meanwhile the row is deleted."""
    with scene() as here, ExitStack() as stack:
        rows, rules = [], []
        for place, harm in itertools.product(("create", "commit"), (signal.SIGKILL, signal.SIGSTOP)):
            daemon = stack.enter_context(Watcher(here.stage))
            rules.append(here.keep(place, times=1))
            rows.append(here.person.insert("Ada"))
            until(lambda: rules[-1].reached, 120)
            daemon.send(harm)
            here.person.delete(rows[-1])
        stack.enter_context(Watcher(here.stage))
        time.sleep(30)
        for rule in rules:
            rule.release()
        seconds = _wait_for(here, rows, 290)
        time.sleep(10)
        left = _left(here)
    numbers = spread(seconds)
    return Measured(
        numbers["max"] <= 300 and not left,
        f"{in_words(numbers)}; left: {left or 'nothing'}",
        {"seconds": numbers, "left": len(left)},
    )


def _accounts() -> Measured:
    """Accounts with rows in every status are deleted, every second one softly, while two daemons work on them."""
    refused: list[str] = []
    met: Counter[str] = Counter()

    def live(number: int) -> float:
        """Live up to the deletion of the account; returns the seconds that this took."""
        person = Person(here.stage)
        photos = person.photos()
        good = person.insert("Ada", photos)
        bad = person.insert("Ada", [*photos, person.upload(b"no picture")])
        row, statuses = (
            (good, {"pending", "publishing", "published"}),
            (good, {"publishing", "published"}),
            (good, {"published"}),
            (bad, {"failed"}),
        )[number % 4]
        until(lambda: person.row(row)["status"] in statuses, 300, pause=0.2)
        person.insert("Ada", photos)
        person.upload(b"stray")
        met.update(row["status"] for row in person.rows())
        began = time.monotonic()
        try:
            here.stage.admin.auth.admin.delete_user(person.id, should_soft_delete=number // 4 % 2 == 0)
        except Exception as error:  # noqa: BLE001  (any refusal is what is looked for)
            refused.append(repr(error))
        return time.monotonic() - began

    with scene() as here, ThreadPoolExecutor(_AT_ONCE) as pool:
        with Watcher(here.stage) as one, Watcher(here.stage) as two:
            one.ready(), two.ready()
            deletions = spread(list(pool.map(live, range(_ACCOUNTS))))
            began = time.monotonic()
            until(lambda: not here.stage.leaving(), 300, pause=1)
            # What may land late is looked at once more 150 s later, which erasure_late waits for.
            here.stage.erase_due(within=300)
            gone_after = round(time.monotonic() - began)
        left = _left(here)
    return Measured(
        not refused and not left and met.keys() >= {"pending", "publishing", "published", "failed"},
        f"{len(refused)} of {_ACCOUNTS} refused, of rows {dict(met)}; deletion {in_words(deletions)}; "
        f"all gone {gone_after} s after the last; left: {left or 'nothing'}",
        {
            "refused": len(refused),
            "met": met,
            "deletion": deletions,
            "gone_after": gone_after,
            "left": len(left),
        },
    )


FIGURES = (
    Figure("erasure", "A deleted row is gone everywhere: median 5 s, at most 60 s", _healthy),
    Figure("erasure_accounts", "An account can always be deleted, and leaves nothing", _accounts),
    Figure(
        "erasure_late",
        "Also after a kill or a freeze: at most 5 min, and no repo comes back",
        _late,
        waits=True,
    ),
)
