"""Says why rows wait, from the answer of `watcher_status`: a pause, outages, no daemon, or their turn. Prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from watcher.operator.format import duration, plain

UNHEARD = 30.0
"""Seconds that a due row may wait if no daemon is heard."""


def paused(pauses: Sequence[Mapping[str, Any]]) -> str:
    """Return what is paused, for how long and why; empty if nothing is."""
    told = []
    for pause in pauses:
        left = pause["left_seconds"]
        until = "until `watcher resume`" if left is None else f"for another {duration(left)}"
        told.append(f"{pause['kind']} {until}" + (f" ({plain(pause['why'])})" if pause["why"] else ""))
    return f"Paused: {'; '.join(told)}." if told else ""


def outages(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the reasons of the daemons that are in an outage, by their names."""
    return {
        name: instance["outage"]
        for name, instance in answer["instances"].items()
        if instance["outage"] is not None
    }


def why_waiting(row: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return why a pending row waits."""
    if row["due_in_seconds"]:
        return str(row["last_reason"] or "put off")
    if any(pause["kind"] == "publish" for pause in answer["paused"]):
        return "paused"
    if not answer["instances"] and row["overdue_seconds"] > UNHEARD:
        return "no daemon was heard lately"
    if answer["instances"] and len(outages(answer)) == len(answer["instances"]):
        return "outage"
    return str(row["last_reason"] or "its turn")
