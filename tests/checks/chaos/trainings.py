"""Trainings: switched on for a run, their budget watched while it goes on, and audited from outside at its end.

None of the daemon's code is used: what ran is what the Hub's jobs have logged, what it cost is what the Hub would bill.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from huggingface_hub.errors import HfHubHTTPError

from tests.acceptance.stage import Stage
from tests.checks.chaos.schedule import Schedule
from tests.checks.chaos.users import Register
from watcher.sandbox.hub.jobs.hardware import FLAVORS
from watcher.sandbox.hub.jobs.job import Job

_MINUTES = 5
_FLAVOR = "l40sx1"
_PER_MINUTE = float(FLAVORS[_FLAVOR]["unitCostUSD"])
_RESERVED = (_MINUTES + 10) * _PER_MINUTE
_ROUNDING = 1e-6
_PASSED = "the oldest job of this training"
"""What the script says once it has passed its first check."""
_WEIGHTS = "pytorch_lora_weights.safetensors"
_PICTURES = 4
_CODES = {
    "training_refused", "training_timed_out", "training_out_of_memory", "training_left_nothing",
    "training_base_refused", "training_failed",
}  # fmt: skip
_SAMPLES = "select coalesce(jsonb_agg(name), '[]') from storage.objects where bucket_id = 'identity-samples'"
_SETTLED = """
    select not exists (select from watcher.trainings where ended_at is null or spent_usd is null)
      and not exists (select from watcher.work
        where kind = 'train' and (next_at is null or next_at < date_trunc('day', now(), 'UTC') + interval '1 day'))
      and not exists (select from storage.objects o
        where o.bucket_id = 'identity-samples' and not exists (
          select from public.trained_identities t where starts_with(o.name, t.user_id || '/' || t.id || '/')))
"""
_COMMITTED = """
    select usd_a_day::float8, (select coalesce(sum(coalesce(spent_usd, reserved_usd)), 0)::float8 from watcher.trainings
      where started_at >= date_trunc('day', now(), 'UTC'))
    from watcher.training_settings
"""


@dataclass
class TrainingVerdict:
    """How the trainings of one run ended, and all findings."""

    ended: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    """Which the Hub has made."""
    waiting: int = 0
    """Trainings that wait for tomorrow's money."""
    doubled: list[str] = field(default_factory=list)
    without_weights: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    overspent: list[str] = field(default_factory=list)
    unerased: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def findings(self) -> dict[str, list[str]]:
        """All findings, by kind."""
        return {
            "job doubled": self.doubled,
            "ready without weights": self.without_weights,
            "training stuck": self.stuck,
            "overspent": self.overspent,
            "unerased": self.unerased,
            "wrong about a training": self.wrong,
        }


def switch_on(stage: Stage, schedule: Schedule) -> None:
    """Switch trainings on, with the budget of the schedule; jobs take a second."""
    assert stage.sandbox is not None
    stage.rpc(
        "watcher_set_training",
        settings={
            "enabled": True,
            "usd_a_day": schedule.usd_a_day,
            "minutes": _MINUTES,
            "flavor": _FLAVOR,
        },
    )
    stage.sql(
        "insert into watcher.limits (name, value) values ('trainings_per_day', %s)", schedule.trainings_a_day
    )
    stage.sandbox.hub.jobs.set_timing(scheduling=0.2, running=0.8)


def all_ended(stage: Stage) -> bool:
    """Whether no training goes on, and nothing is left to be paid or erased of one; what waits for tomorrow has ended."""
    [settled] = stage.sql(_SETTLED)
    assert stage.sandbox is not None
    return bool(settled) and all(job.ended for job in stage.sandbox.hub.jobs.all())


class Purse:
    """Looks at the budget while a run goes on."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.most = 0.0
        """The most dollars beyond the budget that were ever spent or reserved."""

    def look(self) -> None:
        """Look once; nothing while Postgres is down."""
        with suppress(psycopg.Error), psycopg.connect(self._dsn, connect_timeout=2) as connection:
            budget, committed = connection.execute(_COMMITTED).fetchone() or (0.0, 0.0)
            self.most = max(self.most, committed - budget)


def audit_trainings(
    stage: Stage,
    register: Register,
    rows: Mapping[str, dict[str, Any]],
    removed: Sequence[Job],
    over_budget: float,
) -> TrainingVerdict:
    """Compare what users asked for with the jobs, the database, the repos and the bucket.

    `removed`: jobs that a person has deleted on the Hub. `over_budget`: by how many dollars the budget was ever exceeded.
    """
    assert stage.sandbox is not None
    verdict = TrainingVerdict()
    [trainings] = stage.sql(
        "select coalesce(jsonb_agg(to_jsonb(n) order by number), '[]') from watcher.trainings n"
    )
    [names] = stage.sql(_SAMPLES)
    samples = set(names)
    jobs = [*removed, *stage.sandbox.hub.jobs.all()]
    verdict.jobs = len(jobs)
    verdict.ended = Counter(one["outcome"] or "open" for one in trainings)
    _check_jobs(verdict, jobs, trainings)
    _check_money(verdict, stage, jobs, trainings, over_budget)
    for row in rows.values():
        _check_row(verdict, stage, row, trainings, samples)
    for name in samples:
        _, identity, _ = name.split("/", 2)
        if identity not in rows or register.rows[identity].deleted:
            verdict.unerased.append(f"{identity} has left the sample {name}")
    return verdict


def _check_jobs(
    verdict: TrainingVerdict, jobs: Sequence[Job], trainings: Sequence[Mapping[str, Any]]
) -> None:
    passed = Counter(_label(job) for job in jobs if any(_PASSED in line for _, line in job.logs))
    for label, times in passed.items():
        if times > 1:
            doubles = [f"{job.id} {job.stage} {job.message}" for job in jobs if _label(job) == label]
            verdict.doubled.append(f"training {label} went on in {times} jobs: {doubles}")
    labels = {one["label"] for one in trainings}
    verdict.stuck += [
        f"job {job.id} of training {_label(job)} is still {job.stage}" for job in jobs if not job.ended
    ]
    verdict.stuck += [f"job {job.id} belongs to no training" for job in jobs if _label(job) not in labels]
    for one in trainings:
        what = f"training {one['label']} of {one['identity_id']}"
        if one["ended_at"] is None:
            verdict.stuck.append(f"{what} has not ended: {one}")
        elif one["spent_usd"] is None:
            verdict.stuck.append(f"{what} is not settled: {one}")


def _check_money(
    verdict: TrainingVerdict,
    stage: Stage,
    jobs: Sequence[Job],
    trainings: Sequence[Mapping[str, Any]],
    over_budget: float,
) -> None:
    [budget, committed] = stage.sql(_COMMITTED)
    bill = sum(map(_bill, jobs))
    over = {
        "were spent or reserved at some time": over_budget,
        "are spent or reserved at the end": committed - budget,
        "are billed by the Hub": bill - budget,
    }
    verdict.overspent += [
        f"{dollars:.2f} dollars more than the budget of {budget} {what}"
        for what, dollars in over.items()
        if dollars > _ROUNDING
    ]
    if any(one["outcome"] == "not_started" and one["spent_usd"] for one in trainings):
        verdict.wrong.append("a training that has not started has cost something")


def _bill(job: Job) -> float:
    """In dollars: by the minute, for as long as it ran."""
    if job.started is None:
        return 0.0
    seconds = (job.finished or time.monotonic()) - job.started
    return math.ceil(seconds / 60) * float(FLAVORS[job.spec.flavor]["unitCostUSD"])


def _check_row(
    verdict: TrainingVerdict,
    stage: Stage,
    row: Mapping[str, Any],
    trainings: Sequence[Mapping[str, Any]],
    samples: set[str],
) -> None:
    identity = row["id"]
    match row["status"]:
        case "training":
            verdict.stuck.append(f"{identity} is still in training: {row}")
        case "published" | "ready" if row["train"]:
            _check_waiting(verdict, stage, row)
        case "ready":
            verdict.without_weights += [
                f"{identity} {wrong}" for wrong in _wrong_with_weights(stage, row, trainings, samples)
            ]
    if (code := row["training_error_code"]) and (code not in _CODES or not row["training_error_message"]):
        verdict.wrong.append(f"{identity} could not be trained because of {code}")


def _check_waiting(verdict: TrainingVerdict, stage: Stage, row: Mapping[str, Any]) -> None:
    """A training that is still asked for must wait for a limit that is reached."""
    [budget, committed] = stage.sql(_COMMITTED)
    [mine, limit] = stage.sql(
        "select (select coalesce(sum(trainings), 0) from watcher.usage where user_id = %s)::integer, value "
        "from watcher.limits where name = 'trainings_per_day'",
        row["user_id"],
    )
    if row["training_waits_until"] is None:
        verdict.stuck.append(f"{row['id']} is to be trained, and does not say until when it waits")
    elif committed + _RESERVED <= budget + _ROUNDING and mine < limit:
        verdict.stuck.append(
            f"{row['id']} waits until {row['training_waits_until']}, although {committed} of {budget} dollars are spent or "
            f"reserved, and {mine} of the user's {limit} trainings used"
        )
    else:
        verdict.waiting += 1


def _wrong_with_weights(
    stage: Stage, row: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]], samples: set[str]
) -> list[str]:
    repo, sha = row["model_id"], row["training_commit_sha"]
    labels = [
        one["label"] for one in trainings if one["identity_id"] == row["id"] and one["outcome"] == "ready"
    ]
    try:
        messages = {commit.commit_id: commit.message for commit in stage.api.list_repo_commits(repo)}
    except HfHubHTTPError:
        return []  # counted as published without a repo
    wrong = []
    if not any(f"Watcher training: {label}" in messages.get(sha, "") for label in labels):
        wrong.append(f"has weights in {sha}, which is no commit of its trainings {labels}")
    elif not stage.api.get_paths_info(repo, [_WEIGHTS], revision=sha):
        wrong.append(f"has no weights in {sha}")
    folder = f"{row['user_id']}/{row['id']}/"
    shown = row["sample_paths"] or []
    if len(shown) != _PICTURES or not all(path.startswith(folder) for path in shown):
        wrong.append(f"has the samples {shown}")
    wrong += [f"lacks the sample {path}" for path in shown if path not in samples]
    return wrong


def _label(job: Job) -> str:
    return job.spec.labels.get("training", "")
