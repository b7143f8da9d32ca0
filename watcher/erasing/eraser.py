"""The kind of work `erase`: what is listed is deleted on the Hub and in the buckets, and seen to be gone.

Jobs are cancelled first: a repo is not deleted while one may commit to it.

The database lists what has to go, and when to look once more; see migrations/20261122100250_erasing.sql.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Literal

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Misconfigured, Outage, Permanent, Refused, Transient, WatcherError
from watcher.hub.jobs import Jobs
from watcher.hub.repos import Hub, RepoState
from watcher.identity import Claim
from watcher.supabase.storage import BUCKET, SAMPLES, Storage
from watcher.supabase.verbs import Verbs

_ENOUGH = 3
"""Repos that could not be erased, after which the rest waits, too: the Hub may be down."""
Line = Mapping[str, Any]
"""One thing that has to go: `id`, `what` (repo, photo, sample or job) and `name`.

Of a repo also `ours`, whether it was found to be ours to delete, and `kept`, whether its row is still there.
"""


@dataclass(frozen=True, slots=True)
class Eraser:
    """What an erasure needs."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = False

    verbs: Verbs
    hub: Hub
    jobs: Jobs
    storage: Storage
    retry: Retry

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many repos, photos, samples and jobs are to go."""
        return {
            "repos": len(_lines(claim, "repo")),
            "photos": len(_lines(claim, "photo")),
            "samples": len(_lines(claim, "sample")),
            "jobs": len(_lines(claim, "job")),
        }

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Erase what the claim lists, and look whether it is gone.

        Raises at the end why a part of it cannot be: what can be is erased first.
        """
        repos, jobs = _lines(claim, "repo"), _lines(claim, "job")
        objects = {bucket: _lines(claim, what) for bucket, what in ((BUCKET, "photo"), (SAMPLES, "sample"))}
        problems: list[WatcherError] = []
        foreign: list[int] = []
        for bucket, lines in objects.items():
            try:
                await self._erase_objects(claim, bucket, lines, lease)
            except (Transient, Refused, Outage) as error:
                problems.append(error)
        unended = await self._end_jobs(jobs)
        problems += unended or await self._erase_repos(claim, repos, lease, foreign)
        if problems:
            raise min(problems, key=_urgency)
        gone = _ids(claim.details["lines"])
        return Done(
            "erased",
            {
                "repos": len(repos) - len(foreign),
                "photos": len(objects[BUCKET]),
                "samples": len(objects[SAMPLES]),
                "jobs": len(jobs),
            },
            partial(self.verbs.erased, claim.attempt, gone, answered=lease.answered, foreign=foreign),
        )

    async def _erase_objects(self, claim: Claim, bucket: str, lines: Sequence[Line], lease: Lease) -> None:
        async def remove() -> None:
            lease.check()
            with lease.step("remove"), lease.mutating():
                await self.storage.remove([line["name"] for line in lines], bucket=bucket)

        if not lines:
            return
        await self.retry(remove)
        # Storage passes over what it does not find, and what it says is no proof.
        if left := await self.retry(self.verbs.erase_left, claim.attempt, _ids(lines)):
            raise Transient(
                f"Supabase Storage still has {left} of {len(lines)} pictures that it was told to delete."
            )

    async def _end_jobs(self, lines: Sequence[Line]) -> list[WatcherError]:
        """Cancel the jobs of trainings; returns why some of them have to be waited for."""
        problems: list[WatcherError] = []
        for line in lines:
            try:
                await self._end_job(line)
            except (Transient, Refused) as error:
                problems.append(error)
            except Outage as error:
                # Of jobs alone: other things can be erased.
                problems.append(Transient(str(error)))
        return problems

    async def _end_job(self, line: Line) -> None:
        namespace, _, label = str(line["name"]).partition("/")
        if namespace != self.hub.namespace:
            raise Transient(
                f"A training's job is to be cancelled in the namespace {namespace}: set HF_NAMESPACE to it, or close the "
                "erasure with `watcher erasures --close`."
            )
        listed = await self.retry(self.jobs.list_jobs, {"training": label})
        running = [job for job in listed if not job.ended]
        for job in running:
            await self.retry(self.jobs.cancel, job.id)
        if running:
            raise Transient("The job of a training was told to end, and has not ended yet.")

    async def _erase_repos(
        self, claim: Claim, lines: Sequence[Line], lease: Lease, foreign: list[int]
    ) -> list[WatcherError]:
        """Erase the repos, and add to `foreign` those that are not ours; returns why some of them have to wait."""
        problems: list[WatcherError] = []
        for namespace, repos in groupby(sorted(lines, key=_namespace), key=_namespace):
            try:
                await self._check_token(namespace)
            except Transient as error:
                problems.append(error)
                continue
            for line in repos:
                if len(problems) >= _ENOUGH:
                    break
                try:
                    if await self._erase_repo(claim, line, lease) == "foreign":
                        foreign.append(line["id"])
                except (Transient, Refused, Permanent) as error:
                    problems.append(error)
        return problems

    async def _check_token(self, namespace: str) -> None:
        """Without a token that is valid there, a repo looks gone that is not."""
        if namespace == self.hub.namespace:
            await self.retry(self.hub.check_token)
            return
        try:
            await self.retry(self.hub.check_token, namespace)
        except Misconfigured as error:
            raise Transient(
                f"A repo to be erased is in the namespace {namespace}, which HF_TOKEN cannot write to: give it access, or "
                "close the erasure with `watcher erasures --close`."
            ) from error

    async def _erase_repo(self, claim: Claim, line: Line, lease: Lease) -> Literal["gone", "foreign"]:
        """Delete the repo that was made for a row, if there is one; what is somebody else's stays as it is."""
        repo_id = line["name"]
        if line["kept"]:
            raise Transient(
                "A repo is to be erased whose row is still there: something, such as a trigger of your own, has cancelled "
                "the row's deletion. Delete the row, or close the erasure with `watcher erasures --close`."
            )
        found = await self.retry(self._look, repo_id, claim.identity_id, lease)
        if found.state == "absent":
            return "gone"
        if found.state == "foreign" and not line["ours"]:
            return "foreign"
        if not line["ours"]:
            await self.retry(self.verbs.settle_repo, claim.attempt, line["id"])
        # A repo's large files may outlive it by a day and a half, unless they are deleted first.
        await self.retry(self._mutate, "delete_files", self.hub.delete_lfs_files, repo_id, lease)
        await self.retry(self._mutate, "delete", self.hub.delete, repo_id, lease)
        found = await self.retry(self._look, repo_id, claim.identity_id, lease)
        if found.state != "absent":
            raise Transient("The Hub still shows a repo that it was told to delete.")
        return "gone"

    async def _look(self, repo_id: str, identity_id: str, lease: Lease) -> RepoState:
        with lease.step("look"):
            return await self.hub.look(repo_id, identity_id)

    async def _mutate(self, step: str, change: Any, repo_id: str, lease: Lease) -> None:
        lease.check()
        with lease.step(step), lease.mutating():
            await change(repo_id)


def _urgency(problem: WatcherError) -> int:
    """Sort first what concerns all, or may."""
    return next((n for n, kind in enumerate((Outage, Refused)) if isinstance(problem, kind)), 2)


def _namespace(line: Line) -> str:
    return str(line["name"]).partition("/")[0]


def _lines(claim: Claim, what: str) -> list[Line]:
    """Return the things of one sort that are to go."""
    return [line for line in claim.details["lines"] if line["what"] == what]


def _ids(lines: Sequence[Line]) -> list[int]:
    return [line["id"] for line in lines]
