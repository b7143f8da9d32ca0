"""What the operator sees of erasures: open ones and why they wait, receipts, what the sweep holds back. Prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watcher.operator.format import count, duration, moment
from watcher.operator.tables import cell, new_table
from watcher.process.untrusted import one_line


def erases(planned: Mapping[str, Any]) -> bool:
    """Return whether `watcher forget` would erase anything that is not being erased already."""
    return any(planned[what] for what in ("rows", "repos", "photos", "limits"))


def plan(planned: Mapping[str, Any]) -> list[str]:
    """Say what `watcher forget` would erase."""
    if not erases(planned):
        lines = ["There is nothing of this user to erase."]
    else:
        things = [
            count(planned["rows"], "row"), count(planned["repos"], "repo"), count(planned["photos"], "photo")
        ]  # fmt: skip
        limits = ", and what is kept of the user's limits" if planned["limits"] else ""
        lines = [f"Would erase {things[0]}, {things[1]} and {things[2]}{limits}."]
    if planned["open"]:
        lines.append(
            f"Being erased already: {count(planned['open'], 'deleted row')}; see `watcher erasures`."
        )
    if planned["account"]:
        lines.append(
            "The account is still there, and its user can upload and insert again: delete it in the project's dashboard, "
            "Authentication, Users."
        )
    return lines


def confirmed(answer: Mapping[str, int]) -> str:
    """Say what the next sweeps may erase."""
    sentence = _held(answer["users"], answer["names"], answer["uploads"])
    return f"The next sweeps erase what is left of {sentence}." if sentence else "Nothing is held back."


def overdue(summary: Mapping[str, Any]) -> str:
    """Say for how long an open erasure has been due."""
    seconds = summary["overdue_seconds"]
    return f"due for {duration(seconds)}" if seconds else "not due yet"


def held(summary: Mapping[str, Any]) -> str | None:
    """Say what the sweep holds back, None if nothing."""
    sentence = _held(*(summary[f"held_{what}"] or 0 for what in ("users", "names", "uploads")))
    if not sentence:
        return None
    return (
        f"The sweep leaves {sentence} alone: so many at once look like a restore. If they are gone for good: "
        "watcher erasures --confirm"
    )


def failed(summary: Mapping[str, Any]) -> str | None:
    """Say what the last sweep could not erase, None if nothing."""
    if not summary["failed"]:
        return None
    users = count(summary["failed"], "user")
    return f"The sweep could not erase what is left of {users}: {one_line(summary['failed_because'])}"


def _held(users: int, names: int, uploads: int) -> str:
    parts = [f"{count(users, 'user')} without an account"] if users else []
    parts += [f"{count(names, 'repo')} without a row"] if names else []
    parts += [f"the uploads of {count(uploads, 'user')} that no row names"] if uploads else []
    return " and ".join(parts)


def erasures(answer: Mapping[str, Any]) -> RenderableType:
    """Show the answer of `watcher_erasures`."""
    parts: list[RenderableType] = []
    for sentence in filter(None, (held(answer["summary"]), failed(answer["summary"]))):
        parts += [Text(sentence, "yellow"), Text()]
    parts.append(_open(answer["open"], answer["summary"]["open"]))
    if answer["receipts"]:
        parts += [Text(), _receipts(answer["receipts"])]
    parts += [Text(), Text(_settings(answer["settings"]), "dim")]
    return Group(*parts)


def _open(rows: Sequence[Mapping[str, Any]], total: int) -> RenderableType:
    if not rows:
        return Text("No erasure is open.")
    title = "Open" if total <= len(rows) else f"Open, the oldest {len(rows)} of {total:,}"
    table = new_table(title, "id", "for", "left", "next look", "reason")
    for row in rows:
        left = [count(row["repos_left"], "repo")] if row["repos_left"] else []
        left += [count(row["photos_left"], "photo")] if row["photos_left"] else []
        left += [count(row["jobs_left"], "job")] if row["jobs_left"] else []
        left += [f"{count(row['to_look_again'], 'thing')} to look at again"] if row["to_look_again"] else []
        table.add_row(
            row["id"],
            duration(row["age_seconds"]),
            ", ".join(left),
            f"in {duration(row['due_in_seconds'])}" if row["due_in_seconds"] else "now",
            cell(row["last_reason"] or ""),
        )
    return table


def _receipts(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = new_table("Receipts, the last first", "id", "finished", "took", "repos", "photos", "reason")
    for row in rows:
        table.add_row(
            row["id"],
            moment(row["finished_at"]),
            duration(row["seconds"]),
            str(row["repos"]),
            str(row["photos"]),
            cell(f"closed: {row['closed_because']}" if row["closed_because"] else ""),
        )
    return table


def _settings(settings: Mapping[str, Any]) -> str:
    going = [what for what in ("repos", "photos") if settings[what]]
    after = f"{duration(settings['after_seconds'])} later" if settings["after_seconds"] else "at once"
    return (
        f"When a row is deleted, its {' and '.join(going)} are erased {after}."
        if going
        else "When a row is deleted, its repo and photos are kept."
    )


def notices(erasing: Mapping[str, Any]) -> list[str]:
    """Say in `watcher status` that erasures are open, and that the sweep holds something back."""
    notices = []
    if erasing["open"]:
        notices.append(f"{count(erasing['open'], 'erasure')} open, {overdue(erasing)}: watcher erasures")
    return [*notices, *filter(None, (held(erasing), failed(erasing)))]
