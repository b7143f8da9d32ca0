"""What the operator sees of the rows: the queue as a whole, and one row's story."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watcher.operator.format import ago, count, duration, moment, plain

_STYLES = {"pending": "yellow", "publishing": "cyan", "published": "green", "failed": "red"}
_ENDS = {
    "published": ("published", "green"),
    "failed": ("failed", "red"),
    "deferred": ("put off", "yellow"),
    "released": ("given back", ""),
    "silent": ("silent", "red"),
    "revoked": ("revoked", "yellow"),
}
"""An attempt's end as a person reads it: put off is spent, given back is not, silent is a worker that was lost."""


_IMAGE = re.compile(r"Image (\d+) ")
"""How a reason begins that is about one image; its object is what has to be replaced."""
_OVERDUE = 300.0
"""Seconds that a due row may wait before the screen says where to look why."""
_NAME = 30
"""Columns of a name in a table: a row's screen has it whole, and the reason needs the room more."""


def status(told: Mapping[str, Any]) -> RenderableType:
    """Show what `watcher_status` told."""
    parts: list[RenderableType] = [_summary(told)]
    if told["overdue_seconds"] > _OVERDUE:
        waits = duration(told["overdue_seconds"])
        parts += [Text(f"\nRows that are due have waited for {waits}: `watcher doctor` looks why.", "yellow")]
    if told["publishing"]:
        parts += [Text(), _publishing(told["publishing"])]
    if told["waiting"]:
        parts += [Text(), _waiting(told["waiting"], told["pending"])]
    if told["last_failed"]:
        parts += [Text(), _failed(told["last_failed"], sum(told["failed"].values()))]
        parts += [Text("\n`watcher show ID` tells a row's story; `watcher replay ID` tries it again.")]
    return Group(*parts)


def story(told: Mapping[str, Any]) -> RenderableType:
    """Show what `watcher_story` told of a row that exists."""
    state = told["status"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("status", _status_in_words(told))
    if state == "failed":
        facts.add_row("reason", _cell(f"{told['error_message']} ({told['error_code']})"))
        image = _IMAGE.match(told["error_message"])
        if image and int(image[1]) <= len(told["image_paths"]):
            facts.add_row(f"image {image[1]}", _cell(told["image_paths"][int(image[1]) - 1]))
    if state == "pending" and told["last_reason"]:
        facts.add_row("last reason", _cell(told["last_reason"]))
    facts.add_row("repo", _repo(told))
    facts.add_row("images", f"{told['images_published']} of {told['num_training_images']} published")
    facts.add_row("inserted", f"{moment(told['created_at'])}, {ago(told['age_seconds'])}")
    facts.add_row("user", told["user_id"])
    if told["spent"] is not None:
        facts.add_row("budget", f"{told['spent']} of {told['max_attempts']} attempts spent")
    others = [name for name in told["names"] if name != told["model_id"]]
    if others:
        facts.add_row("names before", Text(", ".join(others)))
    parts: list[RenderableType] = [
        Text.assemble((plain(told["identity_name"]), "bold"), f"  {told['id']}"),
        facts,
        Text(),
        _attempts(told["attempts"]) if told["attempts"] else Text("No attempt yet."),
    ]
    if state == "failed":
        parts.append(Text(f"\nOnce that is mended: watcher replay {told['id']}"))
    return Group(*parts)


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Attempts", "number", "begun (UTC)", "took", "by", "end", "why")
    for attempt in attempts:
        table.add_row(
            str(attempt["number"]),
            moment(attempt["started_at"]).removesuffix(" UTC"),
            duration(attempt["seconds"]),
            _cell(attempt["instance"]),
            _end(attempt),
            _cell(attempt["reason"] or ("It was only to look." if attempt["look_only"] else "")),
        )
    return table


def _summary(told: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(style="dim")
    waiting = ""
    if told["pending"]:
        waiting = f"the oldest for {duration(told['oldest_pending_seconds'])}"
        if told["deferred"]:
            waiting += f"; {told['deferred']:,} of them to be tried again later"
    failed = sorted(told["failed"].items(), key=lambda entry: -entry[1])
    for state, word, number, more in (
        ("pending", "Waiting", told["pending"], waiting),
        ("publishing", "Publishing", len(told["publishing"]), ""),
        ("published", "Published", told["published_24h"], "in the last 24 hours"),
        ("failed", "Failed", sum(told["failed"].values()), ", ".join(f"{n:,} {code}" for code, n in failed)),
    ):
        grid.add_row(Text(word, _STYLES[state] if number else "dim"), f"{number:,}", more)
    return grid


def _publishing(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Publishing", "name", "id", "for", "images", "by")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            duration(row["seconds"]) if row["attempt"] else "",
            f"{row['images_published']} of {row['num_training_images']}",
            _cell(_holder(row)),
        )
    return table


def _waiting(rows: Sequence[Mapping[str, Any]], total: int) -> Table:
    title = "Waiting" if total <= len(rows) else f"Waiting, the oldest {len(rows)} of {total:,}"
    table = _table(title, "name", "id", "for", "next try", "why")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            duration(row["age_seconds"]),
            f"in {duration(row['due_in_seconds'])}" if row["due_in_seconds"] else "due",
            _cell(row["last_reason"] or "waits for its turn"),
        )
    return table


def _failed(rows: Sequence[Mapping[str, Any]], total: int) -> Table:
    title = "Failed" if total <= len(rows) else f"Failed, the last {len(rows)} of {total:,}"
    table = _table(title, "name", "id", "when", "why")
    for row in rows:
        table.add_row(
            _name(row["identity_name"]),
            row["id"],
            ago(row["failed_seconds_ago"]),
            _cell(row["error_message"]),
        )
    return table


def _table(title: str, *heads: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for head in heads:
        free = head in {"name", "by", "why"}
        table.add_column(head, header_style="dim", no_wrap=not free, overflow="fold")
    return table


def _cell(text: str) -> Text:
    return Text(plain(text))


def _name(text: str) -> Text:
    name = _cell(text)
    name.truncate(_NAME, overflow="ellipsis")
    return name


def _holder(row: Mapping[str, Any]) -> str:
    if row["attempt"] is None:
        return "nobody: it is taken over at the next claim"
    if row["lease_seconds"] < 0:
        return f"{row['instance']}, lost {ago(-row['lease_seconds'])}"
    return str(row["instance"])


def _status_in_words(told: Mapping[str, Any]) -> Text:
    words = {
        "pending": "waiting, due now",
        "publishing": "publishing",
        "published": "published",
        "failed": "failed",
    }.get(told["status"], told["status"])
    if told["due_in_seconds"]:
        words = f"waiting, next try in {duration(told['due_in_seconds'])}"
    if told["published_at"]:
        words += f" {moment(told['published_at'])}"
    return Text(words, _STYLES.get(told["status"], ""))


def _repo(told: Mapping[str, Any]) -> Text:
    if told["huggingface_repo_url"]:
        return Text(f"{told['huggingface_repo_url']}  (commit {told['commit_sha'][:12]})")
    if not told["model_id"]:
        return Text("none")
    if told["status"] == "failed":
        return Text(f"{told['model_id']} is reserved; deleted if it was empty")
    return Text(f"{told['model_id']} is reserved")


def _end(attempt: Mapping[str, Any]) -> Text:
    if attempt["outcome"] is None:
        lease = attempt["lease_seconds"]
        return Text("running" if lease > 0 else f"lost {ago(-lease)}", "cyan" if lease > 0 else "red")
    return Text(*_ENDS[attempt["outcome"]])


def counts(told: Mapping[str, Any], *, verb: str) -> str:
    """Say in one sentence which rows a replay takes or took, for example "Replayed 3 failed rows: 2 image_missing"."""
    codes = sorted(told["codes"].items(), key=lambda entry: -entry[1])
    which = ", ".join(f"{number:,} {code}" for code, number in codes)
    return f"{verb} {count(told['replayed'], 'failed row')}" + (f": {which}." if which else ".")
