"""The kind of work `erase`: what is listed is deleted on the Hub and in the bucket, and seen to be gone.

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
from watcher.hub.repos import Hub, RepoState
from watcher.identity import Claim
from watcher.supabase.storage import Storage
from watcher.supabase.verbs import Verbs

_ENOUGH = 3
"""Repos that could not be erased, after which the rest waits, too: the Hub may be down."""
Line = Mapping[str, Any]
"""One thing that has to go: `id`, `what` (repo or photo) and `name`.

Of a repo also `ours`, whether it was found to be ours to delete, and `kept`, whether its row is still there.
"""


@dataclass(frozen=True, slots=True)
class Eraser:
    """What an erasure needs."""

    announced: ClassVar[bool] = False
    routine: ClassVar[bool] = False

    verbs: Verbs
    hub: Hub
    storage: Storage
    retry: Retry

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many repos and photos are to go."""
        repos, photos = _sorted(claim)
        return {"repos": len(repos), "photos": len(photos)}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Erase what the claim lists, and look whether it is gone.

        Raises at the end why a part of it cannot be: what can be is erased first.
        """
        repos, photos = _sorted(claim)
        problems: list[WatcherError] = []
        foreign: list[int] = []
        if photos:
            try:
                await self._erase_photos(claim, photos, lease)
            except (Transient, Refused, Outage) as error:
                problems.append(error)
        problems += await self._erase_repos(claim, repos, lease, foreign)
        if problems:
            raise min(problems, key=_urgency)
        gone = [line["id"] for line in (*repos, *photos)]
        return Done(
            "erased",
            {"repos": len(repos) - len(foreign), "photos": len(photos)},
            partial(self.verbs.erased, claim.attempt, gone, answered=lease.answered, foreign=foreign),
        )

    async def _erase_photos(self, claim: Claim, lines: Sequence[Line], lease: Lease) -> None:
        async def remove() -> None:
            lease.check()
            with lease.step("remove"), lease.mutating():
                await self.storage.remove([line["name"] for line in lines])

        await self.retry(remove)
        # Storage passes over what it does not find, and what it says is no proof.
        if left := await self.retry(self.verbs.erase_left, claim.attempt, [line["id"] for line in lines]):
            raise Transient(
                f"Supabase Storage still has {left} of {len(lines)} photos that it was told to delete."
            )

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
        await self.hub.turn()
        lease.check()
        with lease.step(step), lease.mutating():
            await change(repo_id)


def _urgency(problem: WatcherError) -> int:
    """Sort first what concerns all, or may."""
    return next((n for n, kind in enumerate((Outage, Refused)) if isinstance(problem, kind)), 2)


def _namespace(line: Line) -> str:
    return str(line["name"]).partition("/")[0]


def _sorted(claim: Claim) -> tuple[list[Line], list[Line]]:
    """Return the repos and the photos that are to go."""
    lines: Sequence[Line] = claim.details["lines"]
    return [line for line in lines if line["what"] == "repo"], [
        line for line in lines if line["what"] == "photo"
    ]
