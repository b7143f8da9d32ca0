"""What the operator sees of one row: what it is, and all attempts at it. Prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from watcher.operator import training_screens
from watcher.operator.format import ago, duration, moment
from watcher.operator.tables import cell, new_facts, new_table
from watcher.process.untrusted import one_line

STATUSES = {
    "pending": "yellow",
    "publishing": "cyan",
    "published": "green",
    "training": "cyan",
    "ready": "green",
    "failed": "red",
}
_OUTCOMES = {
    "published": "green",
    "erased": "green",
    "trained": "green",
    "failed": "red",
    "deferred": "yellow",
    "waited": "yellow",
    "crashed": "red",
    "revoked": "yellow",
}


def story(row: Mapping[str, Any]) -> RenderableType:
    """Show the answer of `watcher_story` for a row that exists."""
    parts: list[RenderableType] = [
        Text.assemble((one_line(row["identity_name"]), "bold"), f"  {row['id']}"),
        _facts(row),
        *training_screens.story(row),
        Text(),
        _attempts(row["attempts"]) if row["attempts"] else Text("No attempt yet."),
    ]
    if row["status"] == "failed":
        parts.append(Text(f"\nOnce the cause is fixed: watcher replay {row['id']}"))
    return Group(*parts)


def _facts(row: Mapping[str, Any]) -> Table:
    state = row["status"]
    facts = new_facts()
    facts.add_row("status", _status(row))
    if state == "failed":
        facts.add_row("reason", cell(f"{row['error_message']} ({row['error_code']})"))
        if image := row["error_image"]:
            facts.add_row(f"image {image}", cell(row["image_paths"][image - 1]))
    if state == "pending" and row["last_reason"]:
        facts.add_row("last reason", cell(row["last_reason"]))
    facts.add_row("repo", _repo(row))
    images = str(row["num_training_images"])
    # A failed row has the number of its last attempt, whose uploads are worth nothing any more.
    facts.add_row(
        "images", images if state == "failed" else f"{row['images_published']} of {images} uploaded"
    )
    facts.add_row("inserted", f"{moment(row['created_at'])}, {ago(row['age_seconds'])}")
    facts.add_row("user", row["user_id"])
    if row["spent"] is not None:
        facts.add_row("attempts", _spent(row))
    earlier = [name for name in row["names"] if name != row["model_id"]]
    if earlier:
        facts.add_row("earlier names", Text(", ".join(earlier)))
    return facts


def _spent(row: Mapping[str, Any]) -> str:
    running = next((one for one in row["attempts"] if one["kind"] == "publish" and not one["outcome"]), None)
    if running is None:
        return f"{row['spent']} of {row['max_attempts']} used"
    return f"attempt {row['spent']} of {row['max_attempts']} (number {running['number']}) is running"


def _status(row: Mapping[str, Any]) -> Text:
    words = str(row["status"])
    if words == "pending":
        due = row["due_in_seconds"]
        words += f", next attempt in {duration(due)}" if due else ", due now"
    if row["published_at"]:
        words += "" if words == "published" else ", published"
        words += f" {moment(row['published_at'])}"
    return Text(words, STATUSES.get(row["status"], ""))


def _repo(row: Mapping[str, Any]) -> Text:
    if row["huggingface_repo_url"]:
        return Text(f"{row['huggingface_repo_url']}  (commit {row['commit_sha'][:12]})")
    if not row["model_id"]:
        return Text("none")
    return Text(f"{row['model_id']} (reserved)")


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Table:
    table = new_table("Attempts", "number", "kind", "started (UTC)", "took", "instance", "outcome", "reason")
    for attempt in attempts:
        table.add_row(
            str(attempt["number"]),
            attempt["kind"],
            moment(attempt["started_at"]).removesuffix(" UTC"),
            duration(attempt["seconds"]),
            cell(attempt["instance"]),
            _outcome(attempt),
            cell(
                attempt["reason"]
                or ("No attempts left; only checked the Hub." if attempt["look_only"] else "")
            ),
        )
    return table


def _outcome(attempt: Mapping[str, Any]) -> Text:
    if (outcome := attempt["outcome"]) is not None:
        return Text(outcome, _OUTCOMES.get(outcome, ""))
    lease = attempt["lease_seconds"]
    return Text("running", "cyan") if lease > 0 else Text(f"lease expired {ago(-lease)}", "red")
