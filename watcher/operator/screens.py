"""What the operator sees of the rows as a whole: the queue, limits, a replay. Prints nothing. One row is in `row_screens`.

The words are those of the database and the log: pending, publishing, published, training, ready, failed; deferred, waited,
released, crashed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watcher.operator import erasing_screens, training_screens
from watcher.operator.format import ago, count, duration, moment
from watcher.operator.row_screens import STATUSES
from watcher.operator.tables import cell, new_table
from watcher.operator.waiting import OVERDUE, is_paused, outages, paused, why_waiting
from watcher.process.log import redact
from watcher.process.untrusted import one_line

_NAME = 30
"""Columns of a name in a table: the reason needs the room more, and a row's own screen shows the whole name."""


def status(answer: Mapping[str, Any]) -> RenderableType:
    """Show the answer of `watcher_status`."""
    parts: list[RenderableType] = [_summary(answer)]
    if answer["overdue_seconds"] > OVERDUE and not is_paused(answer["paused"], "publish"):
        overdue = duration(answer["overdue_seconds"])
        sentence = f"\nThe oldest due row has waited for {overdue}. Run `watcher doctor`."
        parts += [Text(sentence, "yellow")]
    if sentence := paused(answer["paused"]):
        parts += [Text(f"\n{sentence}", "yellow")]
    for name, what, reason in outages(answer):
        parts += [Text(f"\nOutage{what}, as {one_line(name)} reports it: {one_line(reason)}", "red")]
    if answer["publishing"]:
        parts += [Text(), _publishing(answer["publishing"])]
    if answer["waiting"]:
        parts += [Text(), _pending(answer)]
    notices = [*training_screens.notices(answer["training"]), *erasing_screens.notices(answer["erasing"])]
    parts += [Text(f"\n{notice}", "yellow") for notice in notices]
    if answer["last_failed"]:
        parts += [Text(), failed(answer)]
    return Group(*parts)


def failed(answer: Mapping[str, Any]) -> RenderableType:
    """Show the failed rows of the answer of `watcher_status`."""
    rows, total = answer["last_failed"], sum(answer["failed"].values())
    if not rows:
        return Text(f"No failed rows{_since(answer)}.")
    help_ = "\n`watcher show ID` shows a row's attempts; `watcher replay ID` tries it again."
    return Group(_failed(rows, total, _since(answer)), Text(help_))


def retrying(error: Exception, seconds: float) -> RenderableType:
    """Show why there is no status just now."""
    return Text(f"{one_line(redact(str(error)))}\nTrying again every {seconds:g} s.")


def limits(answer: Sequence[Mapping[str, Any]], *, for_user: bool) -> RenderableType:
    """Show the answer of `watcher_limits`."""
    table = new_table("", "limit", "value", *(["used"] if for_user else []), "set for", "what it is")
    for limit in answer:
        used = "" if limit["used"] is None else f"{limit['used']:,}"
        others = f", {count(limit['users'], 'user')}" if limit["users"] and not for_user else ""
        set_for = {None: "default", "user": "this user", "everybody": "everybody"}[limit["set_for"]]
        cells = [
            limit["name"],
            f"{limit['value']:,}",
            *([used] if for_user else []),
            set_for + others,
            limit["about"],
        ]
        table.add_row(*map(cell, cells))
    return table


def replay(
    counts: Mapping[str, Any], ids: Sequence[str] | None, *, verb: str, noun: str = "failed row"
) -> list[str]:
    """Return the lines that say which rows a replay takes or took, which it leaves alone and which it did not find.

    The first is for example "Replayed 3 failed rows: 2 image_missing, 1 hub_refused."
    """
    which = _codes(counts["codes"])
    lines = [f"{verb} {count(counts['replayed'], noun)}" + (f": {which}." if which else ".")]
    others = [name for name in ("pending", "publishing", "published") if counts.get(name)]
    lines += [f"Left alone: {counts[name]:,} {name}." for name in others]
    if "ids" in counts:
        lines += [f"  {id_}" for id_ in counts["ids"]]
        if counts["replayed"] > len(counts["ids"]):
            lines.append(f"  … and {counts['replayed'] - len(counts['ids']):,} more")
    found = counts["replayed"] + sum(counts[name] for name in others)
    if ids and len(ids) > found:
        lines.append(f"Not found, or not matching: {len(ids) - found:,} of the {len(ids):,} given.")
    return lines


def _summary(answer: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(style="dim")
    pending = ""
    if answer["pending"]:
        pending = f"oldest: {duration(answer['oldest_pending_seconds'])}"
        if answer["deferred"]:
            pending += f"; {answer['deferred']:,} deferred"
    codes = _codes(answer["failed"])
    for state, number, more in (
        ("pending", answer["pending"], pending),
        ("publishing", len(answer["publishing"]), ""),
        ("published", *_published(answer)),
        *training_screens.summary(answer["training"]),
        ("failed", sum(answer["failed"].values()), codes + (_since(answer) if codes else "")),
    ):
        grid.add_row(Text(state.capitalize(), STATUSES[state] if number else "dim"), f"{number:,}", more)
    return grid


def _published(answer: Mapping[str, Any]) -> tuple[int, str]:
    if answer["since"]:
        return answer["published_since"], _since(answer).strip()
    return answer["published_24h"], "in the last 24 hours"


def _publishing(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = new_table("Publishing", "name", "id", "for", "uploaded", "instance")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            duration(row["seconds"]) if row["attempt"] else "",
            f"{row['images_published']} of {row['num_training_images']}",
            cell(_holder(row)),
        )
    return table


def _holder(row: Mapping[str, Any]) -> str:
    if row["attempt"] is None:
        return "none (waiting for a daemon)"
    if row["lease_seconds"] < 0:
        return f"{row['instance']}, lease expired {ago(-row['lease_seconds'])}"
    return str(row["instance"])


def _pending(answer: Mapping[str, Any]) -> Table:
    rows, total = answer["waiting"], answer["pending"]
    title = "Pending" if total <= len(rows) else f"Pending, the oldest {len(rows)} of {total:,}"
    table = new_table(title, "name", "id", "for", "next attempt", "reason")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            duration(row["age_seconds"]),
            f"in {duration(row['due_in_seconds'])}" if row["due_in_seconds"] else "due",
            cell(why_waiting(row, answer)),
        )
    return table


def _codes(numbers: Mapping[str, int]) -> str:
    """Return error codes with their numbers, the most frequent first, for example 2 image_missing, 1 hub_refused."""
    return ", ".join(
        f"{number:,} {code}" for code, number in sorted(numbers.items(), key=lambda entry: -entry[1])
    )


def _since(answer: Mapping[str, Any]) -> str:
    return f" since {moment(answer['since'])}" if answer["since"] else ""


def _failed(rows: Sequence[Mapping[str, Any]], total: int, since: str) -> Table:
    which = f", the last {len(rows):,} of {total:,}" if total > len(rows) else ""
    table = new_table(f"Failed{since}{which}", "name", "id", "when", "reason")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            ago(row["failed_seconds_ago"]),
            cell(row["error_message"]),
        )
    return table


def _name(text: str) -> Text:
    name = cell(text)
    name.truncate(_NAME, overflow="ellipsis")
    return name
