"""The metrics: a separate registry in memory, with a description of every series.

Counters and histograms are updated where things happen; gauges are set when /metrics is requested.
"""

from contextlib import AbstractContextManager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from watcher import __version__
from watcher.errors import CODES, TRAINING_CODES

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has types for everything but this
REGISTRY = CollectorRegistry()

INFO = Info("watcher", "The program's version.", registry=REGISTRY)
INFO.info({"version": __version__})
READY = Gauge(
    "watcher_ready", "1 if a row can be claimed now, else 0; the same as /readyz.", registry=REGISTRY
)
SLOTS = Gauge(
    "watcher_slots",
    "Slots by kind of work, `publish`, `erase`, `sweep`, `train`, `follow` or `notify`, and by state, `busy` or `free`. "
    "One more than there are may be `busy`, for a user who has no row running.",
    ["kind", "state"],
    registry=REGISTRY,
)
ROWS = Gauge(
    "watcher_rows",
    "Rows of the whole table by status: `pending` (due now), `deferred` (pending, due later), `publishing`, `failed`, "
    "and `published` in the last 24 hours. Absent while the database does not respond.",
    ["status"],
    registry=REGISTRY,
)
PAUSED = Gauge(
    "watcher_paused",
    "1 while the operator has paused that kind of work; else absent. A pause of every kind is one of each.",
    ["kind"],
    registry=REGISTRY,
)
FAILED_ROWS = Gauge(
    "watcher_failed_rows",
    "Failed rows of the whole table by `error_code`. Absent while the database does not respond.",
    ["code"],
    registry=REGISTRY,
)
OLDEST = Gauge(
    "watcher_oldest_row_seconds",
    "Seconds since the longest-waiting due row became due. Absent while no `pending` row is due.",
    ["status"],
    registry=REGISTRY,
)
ATTEMPTS = Counter(
    "watcher_attempts",
    "Attempts that ended, by outcome: `published`, `erased`, `swept`, `trained`, `followed`, `training_postponed`, "
    "`notified`, `failed`, `deferred`, `waited`, `released` or `lease_lost`; `code` is the row's `error_code` or "
    "`training_error_code` if it failed, and `unexpected` if a bug ended the attempt.",
    ["outcome", "code"],
    registry=REGISTRY,
)
STAGES = Histogram(
    "watcher_stage_seconds",
    "Duration of one call of a stage, successful or not: `wait` (from a row's insert to its first claim), `look` (what the "
    "Hub has under the repo's name), `fetch` (one image), `upload` (a batch of images), `commit`, `complete`.",
    ["stage"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
    registry=REGISTRY,
)
BYTES = Counter(
    "watcher_bytes", "Bytes of images `fetched` and `uploaded`.", ["direction"], registry=REGISTRY
)
RENEWALS = Counter(
    "watcher_lease_renewals",
    "Lease renewals by result: `renewed`, `busy` (the row was locked), `lost` or `failed` (an error or no response).",
    ["result"],
    registry=REGISTRY,
)
OLDEST_ERASURE = Gauge(
    "watcher_oldest_erasure_seconds",
    "Seconds since the longest-waiting of what is due to be erased became due, 0 if nothing is due.",
    registry=REGISTRY,
)
SWEEP_HELD = Gauge(
    "watcher_sweep_held",
    "Users without an account or with uploads without a row, and repos without a row, that the sweep leaves alone until "
    "`watcher erasures --confirm`.",
    registry=REGISTRY,
)
TRAININGS = Gauge(
    "watcher_trainings",
    "Trainings by state: `running`, `waiting`, `overdue` (they have gone on for longer than a job may wait and run) and "
    "`doubled` (started within 24 hours, with more than one job). Absent while the database does not respond.",
    ["state"],
    registry=REGISTRY,
)
TRAINING_USD = Gauge(
    "watcher_training_usd",
    "US dollars of the trainings that started today, in UTC: `spent`, `reserved` (what the others can cost at most) and "
    "`budget` (0 while trainings are off). Absent while the database does not respond.",
    ["of"],
    registry=REGISTRY,
)
TRAINING_BUDGET_USED_UP = Gauge(
    "watcher_training_budget_used_up",
    "1 while a training waits for tomorrow's dollars, in UTC, else 0.",
    registry=REGISTRY,
)
FEED_ALIVE = Gauge(
    "watcher_feed_alive", "1 while Realtime is subscribed and delivers events.", registry=REGISTRY
)
FEED_LOSSES = Counter(
    "watcher_feed_losses", "How often Realtime was lost after it had been alive.", registry=REGISTRY
)
HINTS_MISSED = Counter(
    "watcher_hints_missed",
    "New rows that polling found and that Realtime, though alive, had not announced.",
    registry=REGISTRY,
)
OUTAGE = Gauge(
    "watcher_outage",
    "1 during an outage, by kind: `refused` (a service refuses every request, or this host's disk is full: nothing that it "
    "concerns is claimed, except one row as a trial) or `unreachable` (no response).",
    ["kind"],
    registry=REGISTRY,
)
OUTAGES = Counter("watcher_outages", "Outages that began, by kind, as above.", ["kind"], registry=REGISTRY)
HUB_REQUESTS = Gauge(
    "watcher_hub_requests",
    "The Hub's rate limit for this token in the current window: the `limit` and the `remaining` requests. Absent while "
    "unknown.",
    ["budget"],
    registry=REGISTRY,
)


def stage(name: str) -> AbstractContextManager[object]:
    """Measure the body as one call of a stage."""
    return STAGES.labels(name).time()


def exposition() -> bytes:
    """Return all series in Prometheus's text format 0.0.4."""
    return generate_latest(REGISTRY)


# Start every counter at 0: Prometheus does not count the first increase of a series that appears at 1.
for _outcome in (
    *("published", "erased", "swept", "trained", "followed", "training_postponed", "notified"),
    *("deferred", "waited", "released", "lease_lost"),
):
    ATTEMPTS.labels(_outcome, "")
ATTEMPTS.labels("deferred", "unexpected")
for _code in (*CODES, *TRAINING_CODES):
    ATTEMPTS.labels("failed", _code)
for _stage in ("wait", "look", "fetch", "upload", "commit", "complete"):
    STAGES.labels(_stage)
for _direction in ("fetched", "uploaded"):
    BYTES.labels(_direction)
for _result in ("renewed", "busy", "lost", "failed"):
    RENEWALS.labels(_result)
for _kind in ("refused", "unreachable"):
    OUTAGES.labels(_kind)
