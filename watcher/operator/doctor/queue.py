"""Checks the queue as Supabase reports it: no due row waits for long, and no other host's daemon has this one's name."""

from collections.abc import AsyncIterator

from watcher.errors import WatcherError
from watcher.operator.doctor.finding import Finding, unanswered
from watcher.operator.format import ago, count, duration
from watcher.operator.queries import Queries
from watcher.process.instance import machine
from watcher.settings.settings import Settings

_OVERDUE = 300.0
"""Seconds that a due row may wait before it is a problem."""


async def findings(settings: Settings, queries: Queries) -> AsyncIterator[Finding]:
    """Check which rows wait, and who was heard lately."""
    try:
        status = await queries.status()
    except WatcherError as error:
        yield unanswered("queue", "watcher_status", error)
        return
    lost = [row for row in status["publishing"] if not row["attempt"] or row["lease_seconds"] < -_OVERDUE]
    if status["overdue_seconds"] > _OVERDUE or lost:
        waits = duration(
            max(status["overdue_seconds"], *(-row["lease_seconds"] for row in lost if row["attempt"]), 0)
        )
        sentence = (
            f"The oldest due row has waited for {waits}: no daemon is claiming rows, or all slots are busy."
        )
        yield Finding("queue", "warning", sentence, "systemctl status watcher; journalctl -u watcher -n 50")
    else:
        yield Finding("queue", "ok", f"No due row waits for long; {count(status['pending'], 'row')} pending.")
    known = status["instances"].get(settings.instance)
    if known is not None and known["machine"] != machine():
        sentence = (
            f"A daemon runs as {settings.instance} on another host ({known['machine']}), and was heard "
            f"{ago(known['heard_seconds_ago'])}: one that starts here waits for it to be gone."
        )
        yield Finding("instance", "error", sentence, "Set WATCHER_INSTANCE to another name for one of them.")
