"""Checks the queue as Supabase reports it: daemons are heard, none is in an outage, and no due row waits for long."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from watcher.errors import WatcherError
from watcher.operator.doctor.finding import Finding, unanswered
from watcher.operator.format import ago, count, duration
from watcher.operator.queries import Queries
from watcher.operator.waiting import OVERDUE, UNHEARD, is_paused, outages, paused
from watcher.process.instance import machine
from watcher.settings.settings import Settings

_OFTEN = 3
"""Attempts after which a row that waits is worth a look."""
_LATELY = 3600.0
_REMEDY = "systemctl status watcher; journalctl -u watcher -n 50"


async def findings(settings: Settings, queries: Queries) -> AsyncIterator[Finding]:
    """Check which rows wait, and who was heard lately."""
    try:
        status = await queries.status()
    except WatcherError as error:
        yield unanswered("queue", "watcher_status", error)
        return
    for name, what, reason in outages(status):
        sentence = f"The daemon {name} is in an outage{what}: {reason}"
        yield Finding("outage", "error", sentence, "journalctl -u watcher -p warning -n 50")
    if sentence := paused(status["paused"]):
        yield Finding("paused", "warning", sentence, "watcher resume")
    if not is_paused(status["paused"], "publish"):
        yield _waiting(status)
    if stuck := [row for row in status["waiting"] if row["spent"] >= _OFTEN]:
        sentence = (
            f"{count(len(stuck), 'row')} of the oldest ten were tried {_OFTEN} times or more; the last reason: "
            f"{stuck[0]['last_reason']}"
        )
        yield Finding("attempts", "warning", sentence, f"watcher show {stuck[0]['id']}")
    if lately := [row for row in status["last_failed"] if _is_ours(row)]:
        code = lately[0]["error_code"]
        sentence = f"Within the last hour rows failed, and not by their photos ({code}): {lately[0]['error_message']}"
        yield Finding("failed", "warning", sentence, f"watcher replay --code {code} --since 2h")
    known = status["instances"].get(settings.instance)
    if known is not None and known["machine"] != machine():
        sentence = (
            f"A daemon runs as {settings.instance} on another host ({known['machine']}), and was heard "
            f"{ago(known['heard_seconds_ago'])}: one that starts here waits for it to be gone."
        )
        yield Finding("instance", "error", sentence, "Set WATCHER_INSTANCE to another name for one of them.")


def _is_ours(row: Mapping[str, Any]) -> bool:
    """Whether a row failed lately by something that its user cannot mend."""
    return row["failed_seconds_ago"] < _LATELY and row["error_code"] in {"hub_refused", "attempts_exhausted"}


def _waiting(status: Mapping[str, Any]) -> Finding:
    unheld = any(row["attempt"] is None for row in status["publishing"])
    expired = [-row["lease_seconds"] for row in status["publishing"] if row["attempt"]]
    waits = max(status["overdue_seconds"], *expired, 0)
    if not status["instances"] and (waits > UNHEARD or unheld):
        since = f" for {duration(waits)}" if waits > 0 else ""
        sentence = f"Rows wait{since}, and no daemon was heard in the last {UNHEARD:.0f} s."
        return Finding("queue", "error", sentence, _REMEDY)
    if waits > OVERDUE or unheld:
        sentence = f"The oldest due row has waited for {duration(waits)}: all slots are busy, or rows are not claimed."
        return Finding("queue", "warning", sentence, _REMEDY)
    return Finding("queue", "ok", f"No due row waits for long; {count(status['pending'], 'row')} pending.")
