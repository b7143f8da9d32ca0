"""Whether a daemon's memory grows with the rows that it publishes, while requests fail, hang and lose their answers.

`SOAK=900` says for how many seconds. Rows of three small photos are inserted so that there is always work. The daemon's
memory (VmRSS) is read every second; growth is the difference of the medians around the middle and at the end, divided by the
rows between them.
"""

import random
import re
import time
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from bench.report import Bench, Found, Line, at_most, info
from tests.acceptance.running import Watcher
from tests.checks.figures.scene import Scene, scene, until
from watcher.sandbox.faults import Answer, Cut, Delay, Hang, LoseAnswer
from watcher.settings.settings import environment

_SECONDS = 900.0
_BACKLOG = 60
"""Rows that wait, so that the daemon is never idle."""
_FAULT_EVERY = 2.0
_GOAL = 20
_FAULTS: tuple[tuple[Any, str, str | None], ...] = (
    (Answer(503), "hub", None),
    (Answer(503), "storage", "/object/authenticated/"),
    (Answer(503), "rest", "/rpc/watcher_"),
    (Cut(), "storage", "/object/authenticated/"),
    (LoseAnswer(), "hub", "/commit/"),
    (LoseAnswer(), "rest", "/rpc/watcher_(complete|claim|renew)"),
    # Longer than a renewal waits: it is cancelled.
    (Delay(2), "rest", "/rpc/watcher_renew"),
    (Delay(1), "storage", "/object/authenticated/"),
    (Hang(), "rest", "/rpc/watcher_renew"),
)


def _measure() -> Found:
    return soak(float(environment().get("SOAK", _SECONDS)))


def soak(seconds: float) -> Found:
    """Measure for so many seconds."""
    rnd, faults = random.Random(1), cycle(_FAULTS)
    samples: list[tuple[float, int, int, int]] = []
    with scene() as here, Watcher(here.stage, WATCHER_LEASE="6", WATCHER_RENEWAL="0.5") as watcher:
        for limit, value in (("open_rows", 10_000), ("rows_per_day", 1_000_000)):
            here.stage.rpc("watcher_set_limit", name=limit, value=value)
        watcher.ready()
        began = time.monotonic()
        inserted, fault_at, published, read = 0, began, 0, 0
        while (now := time.monotonic()) < began + seconds:
            new = watcher.lines[read:]
            read += len(new)
            published += sum('"event": "published"' in line for line in new)
            samples.append((now - began, published, *_sizes(watcher)))
            if inserted - published < _BACKLOG:
                _insert(here, _BACKLOG)
                inserted += _BACKLOG
            if now >= fault_at:
                action, service, path = next(faults)
                rule = here.sandbox.faults.add(action, service=service, path=path, times=rnd.randint(1, 3))
                fault_at = now + _FAULT_EVERY
                if isinstance(action, Hang):
                    time.sleep(1)
                    here.sandbox.faults.remove(rule)
            _delete_repos(here)
            time.sleep(1)
        here.sandbox.faults.clear()
        until(lambda: here.one("select count(*) from watcher.work where kind = 'publish'") == 0, 300, pause=1)
        left = here.one("select count(*) from public.trained_identities where status <> 'published'")
        cancelled = len(watcher.said("lease_lost"))
        watcher.stop()
    return _found(samples, seconds, inserted, left, cancelled)


def _found(
    samples: list[tuple[float, int, int, int]], seconds: float, rows: int, left: int, lost: int
) -> Found:
    width = seconds / 20
    middle = [one for one in samples if abs(one[0] - seconds / 2) <= width]
    last = [one for one in samples if one[0] >= seconds - 2 * width]
    between = median(one[1] for one in last) - median(one[1] for one in middle)
    grown = (median(one[2] for one in last) - median(one[2] for one in middle)) / max(between, 1)
    lines: list[Line] = [
        at_most(
            f"{seconds:.0f} s, {rows:,} rows: growth in the second half, bytes a row", grown, _GOAL, digits=0
        ),
        at_most("rows not published", left, 0, digits=0),
        info("  memory in the middle and at the end, MB", f"{_mb(middle)} and {_mb(last)}"),
        info("  open files and sockets, the same", f"{_files(middle)} and {_files(last)}"),
        info("  leases lost", str(lost)),
    ]
    numbers = {"seconds": seconds, "rows": rows, "bytes_per_row": round(grown, 1), "not_published": left}
    return Found({"soak": numbers}, lines)


def _mb(samples: list[tuple[float, int, int, int]]) -> str:
    return f"{median(one[2] for one in samples) / 1e6:.1f}"


def _files(samples: list[tuple[float, int, int, int]]) -> str:
    return f"{median(one[3] for one in samples):.0f}"


def _sizes(watcher: Watcher) -> tuple[int, int]:
    """Bytes of memory and open files of the daemon."""
    process = Path(f"/proc/{watcher.process.pid}")
    [kilobytes] = re.findall(r"^VmRSS:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)
    return 1024 * int(kilobytes), len(list((process / "fd").iterdir()))


def _insert(here: Scene, count: int) -> None:
    here.database.execute(
        """
        insert into public.trained_identities (user_id, identity_name, image_paths)
        select %s, 'Ada', %s from generate_series(1, %s)
        """,
        [here.person.id, here.paths, count],
    )


def _delete_repos(here: Scene) -> None:
    """Delete the repos of published rows, so that the sandbox does not fill up."""
    done = {
        name
        for (name,) in here.database.execute(
            "select model_id from public.trained_identities where status = 'published'"
            " and published_at > now() - interval '1 minute'"
        )
    }
    store = here.sandbox.hub.store
    for repo in store.repos("models"):
        if repo.name in done:
            store.delete(repo)


BENCH = Bench("soak", "does anything grow?", _measure)
