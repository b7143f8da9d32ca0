"""The last lines of a failed training's job, for `watcher show`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watcher.errors import WatcherError
from watcher.operator import hub


@dataclass(frozen=True, slots=True)
class Log:
    """The lines, or why there are none; neither, if no training has failed."""

    lines: Sequence[str] = ()
    why_none: str = ""


def of(row: Mapping[str, Any]) -> Log:
    """Ask the Hub for the log of the row's failed training; the row is the answer of `watcher_story`."""
    last = row["training"]["last"]
    if not row["training_error_code"] or last is None or last["job"] is None:
        return Log()
    command = f"hf jobs logs --namespace {last['namespace']} {last['job']}"
    try:
        lines = hub.last_lines(last["namespace"], last["job"])
    except hub.NoToken:
        return Log(
            why_none=f"With HF_TOKEN set, the last lines of the job's log are shown here. All of it: {command}"
        )
    except WatcherError as error:
        return Log(why_none=f"The job's log could not be fetched: {error} Try: {command}")
    return Log(lines, "" if lines else "The job has printed nothing, or is gone.")
