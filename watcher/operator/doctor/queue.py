"""The queue: nobody waits for long, and no two watchers have one name."""

from collections.abc import AsyncIterator

from watcher.errors import WatcherError
from watcher.operator.doctor.finding import Finding, unanswered
from watcher.operator.format import count, duration
from watcher.operator.queries import Queries
from watcher.settings.settings import Settings

_OVERDUE = 300.0
"""Seconds that a due row may wait before somebody ought to look why."""


async def findings(settings: Settings, queries: Queries) -> AsyncIterator[Finding]:
    """Look at what waits and who works."""
    try:
        told = await queries.status()
    except WatcherError as error:
        yield unanswered("queue", "watcher_status", error)
        return
    lost = [row for row in told["publishing"] if not row["attempt"] or row["lease_seconds"] < -_OVERDUE]
    if told["overdue_seconds"] > _OVERDUE or lost:
        waits = duration(
            max(told["overdue_seconds"], *(-row["lease_seconds"] for row in lost if row["attempt"]), 0)
        )
        sentence = f"Rows that are due have waited for {waits}: no watcher takes them."
        yield Finding("queue", "warning", sentence, "systemctl status watcher; journalctl -u watcher -n 50")
    else:
        yield Finding("queue", "ok", f"No due row waits for long; {count(told['pending'], 'row')} pending.")
    runs = {
        row["run_id"]
        for row in told["publishing"]
        if row["instance"] == settings.instance and row["attempt"] and row["lease_seconds"] > 0
    }
    if len(runs) > 1:
        sentence = f"Two watchers are called {settings.instance}: whichever starts takes the other's rows."
        yield Finding("instance", "error", sentence, "Set WATCHER_INSTANCE to another name on one of them.")
