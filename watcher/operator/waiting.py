"""Says why rows wait, from the answer of `watcher_status`: a pause, outages, no daemon, or their turn. Prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from watcher.engine.outages import EVERY_KIND
from watcher.operator.format import duration
from watcher.process.untrusted import one_line

UNHEARD = 30.0
"""Seconds that a due row may wait if no daemon is heard."""
OVERDUE = 300.0
"""Seconds that a due row may wait while daemons are heard."""


def paused(pauses: Sequence[Mapping[str, Any]]) -> str:
    """Return what is paused, for how long and why; empty if nothing is."""
    told = []
    for pause in pauses:
        left = pause["left_seconds"]
        until = "until `watcher resume`" if left is None else f"for another {duration(left)}"
        told.append(f"{pause['kind']} {until}" + (f" ({one_line(pause['why'])})" if pause["why"] else ""))
    return f"Paused: {'; '.join(told)}." if told else ""


def is_paused(pauses: Sequence[Mapping[str, Any]], kind: str) -> bool:
    """Whether a kind of work is paused: a pause of every kind is listed as one of each."""
    return any(pause["kind"] == kind for pause in pauses)


def outages(answer: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the outages that the daemons report: a daemon's name, what it does not do and why.

    The second is empty if it does nothing at all, and otherwise for example " (erase)".
    """
    return [
        (name, "" if kind == EVERY_KIND else f" ({kind})", reason)
        for name, instance in answer["instances"].items()
        for kind, reason in instance["outages"].items()
    ]


def has_outage(instance: Mapping[str, Any], kind: str) -> bool:
    """Whether a daemon reports an outage of that kind of work, or of every kind."""
    return bool({EVERY_KIND, kind} & instance["outages"].keys())


def why_waiting(row: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return why a pending row waits."""
    if row["due_in_seconds"]:
        return str(row["last_reason"] or "put off")
    if is_paused(answer["paused"], "publish"):
        return "paused"
    if not answer["instances"] and row["overdue_seconds"] > UNHEARD:
        return "no daemon was heard lately"
    instances = answer["instances"].values()
    if instances and all(has_outage(instance, "publish") for instance in instances):
        return "outage"
    return str(row["last_reason"] or "its turn")
