"""The verbs of a training; see `verbs` for those that every kind of work has."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, cast

from watcher.supabase.answers import lost
from watcher.supabase.rpc import Rpc, malformed, read
from watcher.supabase.verbs import write_back

Obstacle = Literal["off", "never", "user", "budget"]
"""Why a training cannot start now: switched off, none are offered to the user, or the user's or everybody's day is full."""


@dataclass(frozen=True, slots=True)
class Start:
    """What became of the wish to start a training: its label, or the obstacle."""

    label: str = ""
    obstacle: Obstacle | None = None


class TrainingVerbs:
    """Calls the verbs of trainings. All raise Transient, Outage, or LeaseLost if the attempt holds no work."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    async def start(self, attempt: int, namespace: str, price: Decimal) -> Start:
        """Start a training whose job costs so many US dollars a minute: what it may cost is reserved from now on."""
        answer = await self._rpc.object(
            "watcher_training_start",
            p_attempt=attempt,
            p_namespace=namespace,
            p_usd_per_minute=str(price),
        )
        match answer.get("result"):
            case "started":
                return Start(label=read("watcher_training_start", lambda: str(answer["label"])))
            case "off" | "never" | "user" | "budget" as obstacle:
                return Start(obstacle=cast("Obstacle", obstacle))
            case "lost":
                raise lost(attempt)
            case _:
                raise malformed("watcher_training_start")

    async def postpone(self, attempt: int, because: Obstacle) -> None:
        """End the attempt, which does not count: the training waits until tomorrow, or until it is switched on."""
        await self._write_back("watcher_training_postpone", attempt, p_because=because)

    async def intend(self, attempt: int) -> None:
        """Record that the job is about to be requested again."""
        await self._write_back("watcher_training_intend", attempt)

    async def undo(self, attempt: int) -> None:
        """Record that the training has not started: the Hub takes nobody's job."""
        await self._write_back("watcher_training_undo", attempt)

    async def job(self, attempt: int, job: str, url: str, stage: str, *, doubled: bool = False) -> None:
        """Record the training's job, and what the Hub said of it; `doubled`: it is not the only one with its label."""
        await self._write_back(
            "watcher_training_job", attempt, p_job=job, p_url=url, p_stage=stage, p_doubled=doubled
        )

    async def ended(self, attempt: int, stage: str, *, billed: float | None, running: float) -> None:
        """Record that the job has ended; both durations in seconds, `billed` None where the Hub does not say."""
        await self._write_back(
            "watcher_training_ended",
            attempt,
            p_stage=stage,
            p_billed_seconds=billed,
            p_running_seconds=running,
        )

    async def trained(self, attempt: int, commit: str, samples: Sequence[str], *, answered: bool) -> None:
        """End the attempt; the row is ready."""
        await self._write_back(
            "watcher_trained",
            attempt,
            p_commit_sha=commit,
            p_sample_paths=list(samples),
            p_answered=answered,
        )

    async def followed(self, attempt: int, running: Sequence[dict[str, str]]) -> list[str]:
        """End the attempt, after a list of the jobs that run, each with `label`, `job` and `stage`.

        Returns those that belong to no open training.
        """
        answer = await self._rpc.object("watcher_followed", p_attempt=attempt, p_running=list(running))
        if answer.get("result") == "lost":
            raise lost(attempt)
        return read("watcher_followed", lambda: [str(job) for job in answer["cancel"]])

    async def _write_back(self, verb: str, attempt: int, **arguments: object) -> None:
        await write_back(self._rpc, verb, attempt, **arguments)
