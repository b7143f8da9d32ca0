"""Replays any number of rows, a batch at a time: each statement is short, and what is done stays done."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from watcher.errors import WatcherError
from watcher.operator.queries import Queries, ReplayFilter

_NUMBERS = ("replayed", "pending", "publishing", "published")


@dataclass
class Outcome:
    """The sums of all batches, and why it ended early, if it did."""

    counts: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_NUMBERS, 0) | {"codes": {}})
    """As `watcher_replay` returns them; see the migrations."""
    interrupted: bool = False
    error: WatcherError | None = None


async def replay(
    database: Queries,
    matching: ReplayFilter,
    *,
    dry_run: bool = False,
    on_batch: Callable[[int], None] = lambda _rows: None,
) -> Outcome:
    """Set failed rows back to pending, batch by batch; `on_batch` is told how many rows each has replayed.

    Ctrl-C ends it after the batch that is in progress, an error of Supabase's at once.
    """
    outcome = Outcome()
    after = None
    while True:
        request = asyncio.ensure_future(database.replay(matching, dry_run=dry_run, after=after))
        try:
            batch = await _finish(request, outcome)
        except WatcherError as error:
            outcome.error = error
            return outcome
        _add(outcome.counts, batch)
        on_batch(batch["replayed"])
        after = batch["last"]
        if after is None or outcome.interrupted:
            outcome.interrupted = outcome.interrupted and after is not None
            return outcome


async def _finish(request: "asyncio.Future[dict[str, Any]]", outcome: Outcome) -> dict[str, Any]:
    """Return what the request answers, also if it is interrupted meanwhile."""
    try:
        return await asyncio.shield(request)
    except asyncio.CancelledError:
        outcome.interrupted = True
        return await request


def _add(counts: dict[str, Any], batch: dict[str, Any]) -> None:
    for name in _NUMBERS:
        counts[name] += batch[name]
    counts["codes"] = dict(Counter(counts["codes"]) + Counter(batch["codes"]))
    if "ids" in batch:  # of a dry run, which is one batch
        counts["ids"] = batch["ids"]
