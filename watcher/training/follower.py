"""The kind of work `follow`: one list of the Hub's tells which jobs still run, for all trainings at once.

The database makes a training due whose job is not among them, and names the jobs that belong to no open training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import structlog

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import WatcherError
from watcher.hub.jobs import Jobs
from watcher.identity import Claim
from watcher.supabase.training_verbs import TrainingVerbs
from watcher.training.recipe import project_label

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Follower:
    """What following needs."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = True

    verbs: TrainingVerbs
    jobs: Jobs
    retry: Retry
    project: str

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many jobs are followed."""
        return {"jobs": claim.details["jobs"]}

    async def carry(self, claim: Claim, _lease: Lease) -> Done:
        """List the jobs that run; raises Transient or Outage."""
        running = [
            {"label": job.labels.get("training", ""), "job": job.id, "stage": job.stage}
            for job in await self.retry(self.jobs.list_running, project_label(self.project))
        ]
        return Done("followed", {"running": len(running)}, partial(self._end, claim.attempt, running))

    async def _end(self, attempt: int, running: list[dict[str, str]]) -> None:
        for job in await self.verbs.followed(attempt, running):
            log.warning("job_cancelled", job=job, reason="It belongs to no training that is open.")
            try:
                await self.jobs.cancel(job)
            except WatcherError as error:
                log.warning("job_not_cancelled", job=job, reason=str(error))
