"""The kind of work `train`: a LoRA is trained on a published repo, by a job on the Hub, and its first pictures are copied.

No lease is held while the job runs: an attempt starts it, or looks at it, and ends with a wait. The database makes a
training due when its job is no longer listed as running; see `follower`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import structlog

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Outage, Permanent, Transient, Wait
from watcher.hub.jobs import Job, Jobs, JobSpec
from watcher.hub.weights import Weights
from watcher.identity import Claim
from watcher.supabase.storage import Storage
from watcher.supabase.training_verbs import TrainingVerbs
from watcher.training.one_job import next_step
from watcher.training.outcomes import exit_code, failure
from watcher.training.prices import Prices
from watcher.training.recipe import Training, job_spec, labels
from watcher.training.script import Exit

log = structlog.get_logger(__name__)

_NEXT_LOOK = 3600.0
"""Seconds to a look that nothing has asked for."""
_QUEUE_LIMIT = 6 * 3600.0
"""Seconds that a job may wait for a machine."""
_GRACE = 600.0
"""Seconds beyond its time-out that a job may run."""
_COMMIT_WITHIN = 60.0
"""Seconds from the end of a job within which its commit is shown."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a training needs."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = False

    verbs: TrainingVerbs
    jobs: Jobs
    prices: Prices
    weights: Weights
    storage: Storage
    retry: Retry
    project: str
    """A digest of the project, by which its jobs are found."""
    token: str
    """Of the job."""

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return the training's label and job, once it has them."""
        training = claim.details["training"] or {}
        return {"training": training.get("label"), "job": training.get("job")}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Start the training, or look how far it is; raises as `Work.carry` does."""
        return await _Attempt(self, claim, lease).carry()


class _Attempt:
    """One look at a training."""

    def __init__(self, trainer: Trainer, claim: Claim, lease: Lease) -> None:
        self._trainer = trainer
        self._verbs = trainer.verbs
        self._jobs = trainer.jobs
        self._retry = trainer.retry
        self._claim = claim
        self._lease = lease
        self._details = claim.details
        self._training: Mapping[str, Any] = claim.details["training"] or {}
        self._seconds = 60.0 * claim.details["minutes"]

    async def carry(self) -> Done:
        if not self._training:
            return await self._start()
        if self._training["job"] is None:
            raise await self._find_job(self._training["label"], self._training["intent_age_seconds"])
        job = await self._retry(self._jobs.inspect, self._training["job"])
        if job is None or job.ended:
            code = None if job is None else await self._exit_code(job)
            if job is not None and code == Exit.DOUBLED:
                raise await self._follow_older(job)
            return await self._finish(job, code)
        await self._record(job)
        self._check_deadlines(job)
        raise self._look_again(job, _NEXT_LOOK)

    async def _start(self) -> Done:
        price = await self._trainer.prices.per_minute(self._details["flavor"])
        revision = await self._revision()
        await self._jobs.turn()
        started = await self._retry(self._verbs.start, self._claim.attempt, self._jobs.namespace, price)
        if started.obstacle == "never":
            raise Permanent("training_refused", "No trainings are offered to you at present.")
        if started.obstacle is not None:
            return Done(
                "training_postponed",
                {"because": started.obstacle},
                partial(self._verbs.postpone, self._claim.attempt, started.obstacle),
            )
        job = await self._request(self._spec(started.label, revision))
        raise self._look_again(job, self._details["first_look_seconds"])

    async def _find_job(self, label: str, intent_age: float) -> Wait:
        """Adopt the training's job, or request it again; returns the wait for it."""
        listed = await self._retry(self._jobs.list_jobs, self._labels(label))
        settled_after = self._details["settled_after_seconds"]
        match next_step(jobs=len(listed), intent_age=intent_age, settled_after=settled_after):
            case "adopt":
                job, doubled = listed[0], len(listed) > 1
                if doubled:
                    self._tell_doubled(listed)
                await self._record(job, doubled=doubled)
            case "request":
                if self._claim.look_only:
                    raise Permanent("training_failed", self._claim.exhausted or "Gave up.")
                # Nothing that can take long stands between the intent and its request.
                spec = self._spec(label, await self._revision())
                await self._jobs.turn()
                await self._retry(self._verbs.intend, self._claim.attempt)
                job = await self._request(spec)
            case "wait":
                return self._waiting(
                    "A request for the job was not answered; it may still land.",
                    settled_after - intent_age + 1,
                )
        return self._look_again(job, self._details["first_look_seconds"])

    async def _request(self, spec: JobSpec) -> Job:
        self._lease.check()
        try:
            with self._lease.mutating():
                job = await self._jobs.run_job(spec)
        except Outage:
            # It is nobody's now: what was reserved is free again.
            await self._retry(self._verbs.undo, self._claim.attempt)
            raise
        await self._record(job)
        return job

    async def _revision(self) -> str:
        """Return the commit that the job trains on, and commits on top of; raises Permanent."""
        head = self._trainer.weights.head
        revision = await self._retry(head, self._details["model_id"], self._details["commit_sha"])
        if revision is None:
            sentence = "The repo is gone, or was changed by somebody else since the photos were published."
            raise Permanent("training_refused", sentence)
        return revision

    def _spec(self, label: str, revision: str) -> JobSpec:
        details = self._details
        training = Training(
            label=label,
            project=self._trainer.project,
            namespace=self._jobs.namespace,
            repo_id=details["model_id"],
            revision=revision,
            base=details["base"],
            flavor=details["flavor"],
            minutes=details["minutes"],
            trigger=details["trigger_word"],
            prompts=details["prompts"],
            steps=details["steps"],
            learning_rate=details["learning_rate"],
        )
        try:
            return job_spec(training, self._trainer.token)
        except ValueError as error:
            raise Permanent("training_base_refused", str(error)) from error

    def _labels(self, label: str) -> dict[str, str]:
        return labels(self._trainer.project, label)

    def _tell_doubled(self, listed: Sequence[Job]) -> None:
        log.error("jobs_doubled", jobs=[job.id for job in listed])

    async def _record(self, job: Job, *, doubled: bool = False) -> None:
        await self._retry(
            partial(self._verbs.job, self._claim.attempt, job.id, job.url, job.stage, doubled=doubled)
        )

    def _check_deadlines(self, job: Job) -> None:
        """Raise Permanent if the job has gone on for too long; it is cancelled as work of its own."""
        if job.seconds is None and self._training["age_seconds"] > _QUEUE_LIMIT:
            raise Permanent(
                "training_timed_out",
                "No machine was free for the training within 6 hours; please ask for it again later.",
            )
        if (job.seconds or 0) > self._seconds + _GRACE:
            raise Permanent("training_timed_out", "The training took longer than it may.")

    def _look_again(self, job: Job, seconds: float) -> Wait:
        if job.seconds is None:
            return self._waiting("The job waits for a machine.", seconds)
        return self._waiting("The job runs.", min(seconds, self._seconds + _GRACE - job.seconds + 1))

    def _waiting(self, sentence: str, seconds: float) -> Wait:
        return Wait(
            sentence,
            seconds=max(seconds, 1),
            within=_QUEUE_LIMIT + self._seconds + _NEXT_LOOK,
            code="training_timed_out",
            last_words="The training has not ended in time.",
        )

    async def _exit_code(self, job: Job) -> int | None:
        """Return what the job's command exited with, if the Hub tells it."""
        code = exit_code(job.message)
        if job.stage == "ERROR" and code is None:
            # What the Hub says of an error is not documented; the script says it, too, as its last line.
            code = exit_code(" ".join(await self._retry(self._jobs.last_lines, job.id, 3)))
        return code

    async def _finish(self, job: Job | None, code: int | None) -> Done:
        """Look whether the job that has ended, or is gone, has left weights; raise Permanent if not."""
        stage = "DELETED" if job is None else job.stage
        running = 0.0 if job is None or job.seconds is None else float(job.seconds)
        await self._retry(
            partial(
                self._verbs.ended,
                self._claim.attempt,
                stage,
                billed=await self._billed(job),
                running=running,
            )
        )
        repo_id, label = self._details["model_id"], self._training["label"]
        commit = await self._retry(self._trainer.weights.commit_of, repo_id, label)
        if commit is None:
            raise self._without_weights(job, stage, code)
        samples = await self._copy_samples(repo_id, commit, label)
        return Done(
            "trained",
            {"commit": commit, "seconds_run": running, "samples": len(samples)},
            partial(self._verbs.trained, self._claim.attempt, commit, samples, answered=self._lease.answered),
        )

    def _without_weights(self, job: Job | None, stage: str, code: int | None) -> Permanent | Transient:
        ago = self._training["job_ended_seconds_ago"]
        if stage == "COMPLETED" and (ago is None or ago < _COMMIT_WITHIN) and not self._claim.look_only:
            return Transient("The job has ended, and the repo does not show its commit yet.", retry_after=10)
        failed = failure(stage, code, "" if job is None else job.message)
        return Permanent(failed.code, failed.sentence)

    async def _billed(self, job: Job | None) -> float | None:
        """Return the seconds that are paid for, of all jobs if there were several; None if the Hub does not say."""
        if not self._training["doubled"]:
            return None if job is None else float(job.seconds or 0)
        listed = await self._retry(self._jobs.list_jobs, self._labels(self._training["label"]))
        return sum(60.0 * math.ceil((one.seconds or 0) / 60) for one in listed)

    async def _follow_older(self, job: Job) -> Transient:
        """The job gave way to an older one with the same label: that is the training's."""
        listed = await self._retry(self._jobs.list_jobs, self._labels(self._training["label"]))
        if listed and listed[0].id != job.id:
            self._tell_doubled(listed)
            await self._record(listed[0], doubled=True)
            return Transient("The training's job gave way to an older one, which is followed from now on.")
        return Transient("The training's job gave way to an older one, which the Hub does not list.")

    async def _copy_samples(self, repo_id: str, commit: str, label: str) -> list[str]:
        """Copy the pictures of the repo to where the user may see them; return their keys."""
        folder = f"{self._details['user_id']}/{self._claim.identity_id}/{label}"
        keys = []
        for sample in await self._retry(self._trainer.weights.samples, repo_id, commit):
            key = f"{folder}/{sample.name}"
            self._lease.check()
            with self._lease.step("samples"), self._lease.mutating():
                await self._retry(
                    partial(
                        self._trainer.storage.put_sample, key, sample.content, media_type=sample.media_type
                    )
                )
            keys.append(key)
        return keys
