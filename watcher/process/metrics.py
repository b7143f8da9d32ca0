"""What is counted and measured: a registry of our own, in which every series says what it is.

What happens is counted where it happens. What is so just now (gauges) is set when somebody asks.
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
from watcher.errors import CODES

disable_created_metrics()  # type: ignore[no-untyped-call]  # it was forgotten when the library got its types
REGISTRY = CollectorRegistry()

INFO = Info("watcher", "The program's version.", registry=REGISTRY)
INFO.info({"version": __version__})
READY = Gauge("watcher_ready", "1 while a row could be claimed, as /readyz says.", registry=REGISTRY)
SLOTS = Gauge("watcher_slots", "Slots by state: `busy` or `free`.", ["state"], registry=REGISTRY)
ROWS = Gauge(
    "watcher_rows",
    "Rows of the whole table by status: `pending` (due now), `deferred` (pending, at a later time), `publishing`, "
    "`failed`, and `published` in the last 24 hours. Absent while the database does not answer.",
    ["status"],
    registry=REGISTRY,
)
FAILED_ROWS = Gauge(
    "watcher_failed_rows",
    "Failed rows of the whole table by `error_code`. Absent while the database does not answer.",
    ["code"],
    registry=REGISTRY,
)
OLDEST = Gauge(
    "watcher_oldest_row_seconds",
    "Since the turn came of the `pending` row that has waited longest; absent while none is due.",
    ["status"],
    registry=REGISTRY,
)
ATTEMPTS = Counter(
    "watcher_attempts",
    "Attempts that ended, by outcome: `published`, `failed`, `deferred`, `released` or `lease_lost`; `code` is the row's "
    "`error_code` where it failed, and `unexpected` where the program met an error of its own.",
    ["outcome", "code"],
    registry=REGISTRY,
)
STAGES = Histogram(
    "watcher_stage_seconds",
    "How long one call of a stage took, whatever came of it: `wait` (from a row's insert to its first claim), `look`, "
    "`fetch` (one image), `upload` (a batch of images), `commit`, `complete`.",
    ["stage"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
    registry=REGISTRY,
)
BYTES = Counter(
    "watcher_bytes", "Bytes of images `fetched` and `uploaded`.", ["direction"], registry=REGISTRY
)
RENEWALS = Counter(
    "watcher_lease_renewals",
    "Renewals of a row's lease, by result: `renewed`, `busy` (its row was locked), `lost` or `failed` (no answer).",
    ["result"],
    registry=REGISTRY,
)
FEED_ALIVE = Gauge("watcher_feed_alive", "1 while Realtime is proven alive.", registry=REGISTRY)
FEED_LOSSES = Counter(
    "watcher_feed_losses", "How often Realtime was lost after it had been alive.", registry=REGISTRY
)
HINTS_MISSED = Counter(
    "watcher_hints_missed",
    "New rows that a look found and Realtime, though alive, had not told of.",
    registry=REGISTRY,
)
OUTAGE = Gauge(
    "watcher_outage",
    "1 while it lasts, by kind: `refused` (a service refuses everybody, or this host is full: no claims) or `unreachable`.",
    ["kind"],
    registry=REGISTRY,
)
OUTAGES = Counter("watcher_outages", "Outages that began, by kind, as above.", ["kind"], registry=REGISTRY)
HUB_REQUESTS = Gauge(
    "watcher_hub_requests",
    "Requests that the Hub allows this token in its present window: the `limit`, and those `remaining`. Absent until it "
    "has said so.",
    ["budget"],
    registry=REGISTRY,
)


def stage(name: str) -> AbstractContextManager[object]:
    """Measure the body as one call of a stage."""
    return STAGES.labels(name).time()


def exposition() -> bytes:
    """Everything, in Prometheus's text format 0.0.4."""
    return generate_latest(REGISTRY)


# From the start at nought: a counter that appears at 1 has never increased, as far as Prometheus can see.
for _outcome in ("published", "deferred", "released", "lease_lost"):
    ATTEMPTS.labels(_outcome, "")
ATTEMPTS.labels("deferred", "unexpected")
for _code in CODES:
    ATTEMPTS.labels("failed", _code)
for _stage in ("wait", "look", "fetch", "upload", "commit", "complete"):
    STAGES.labels(_stage)
for _direction in ("fetched", "uploaded"):
    BYTES.labels(_direction)
for _result in ("renewed", "busy", "lost", "failed"):
    RENEWALS.labels(_result)
for _kind in ("refused", "unreachable"):
    OUTAGES.labels(_kind)
