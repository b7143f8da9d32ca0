"""The kind of work `erase`: what is listed is deleted on the Hub and in the bucket, and seen to be gone.

The database lists what has to go, and when to look once more; see migrations/20261122100250_erasing.sql.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, ClassVar

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Misconfigured, Outage, Transient
from watcher.hub.repos import Hub
from watcher.identity import Claim
from watcher.process.text import private_reason
from watcher.supabase.storage import Storage
from watcher.supabase.verbs import Verbs

_ENOUGH = 3
"""Repos that could not be erased, after which the rest waits, too: the Hub may be down."""
Line = Mapping[str, Any]
"""One thing that has to go: `id`, `what` (repo or photo), `name`, and `ours` if a repo was found to be ours to delete."""


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

        Raises Transient at the end if a part of it cannot be reached: what can be is erased first.
        """
        try:
            return await self._erase(claim, lease)
        except Transient as error:
            # It is tried without end: a reason that stays is worth one warning, not one an hour.
            known = private_reason(str(error)) == claim.details["last_reason"]
            raise Transient(str(error), retry_after=error.retry_after, known=known) from error

    async def _erase(self, claim: Claim, lease: Lease) -> Done:
        repos, photos = _sorted(claim)
        if photos:
            await self._erase_photos(claim, [line["name"] for line in photos], lease)
        problem = await self._erase_repos(claim, repos, lease)
        if problem is not None:
            raise problem
        gone = [line["id"] for line in (*repos, *photos)]
        return Done(
            "erased",
            {"repos": len(repos), "photos": len(photos)},
            partial(self.verbs.erased, claim.attempt, gone, answered=lease.answered),
        )

    async def _erase_photos(self, claim: Claim, keys: Sequence[str], lease: Lease) -> None:
        async def remove() -> None:
            lease.check()
            await self.storage.remove(keys)

        await self.retry(remove)
        # Storage passes over what it does not find, and what it says is no proof.
        if left := await self.retry(self.verbs.erase_left, claim.attempt):
            raise Transient(
                f"Supabase Storage still has {left} of {len(keys)} photos that it was told to delete."
            )

    async def _erase_repos(self, claim: Claim, lines: Sequence[Line], lease: Lease) -> Transient | None:
        """Erase the repos; returns why one of them has to wait, if one has to."""
        problems: list[Transient] = []
        for namespace, repos in groupby(sorted(lines, key=_namespace), key=_namespace):
            try:
                await self._check_token(namespace)
            except Transient as error:
                problems.append(error)
                continue
            for line in repos:
                try:
                    await self._erase_repo(claim, line, lease)
                except Transient as error:
                    problems.append(error)
                except Outage as error:
                    if error.certain:
                        raise
                    # About this repo alone: the token is valid for its namespace.
                    problems.append(Transient(f"The Hub refuses to delete a repo: {error}"))
                if len(problems) >= _ENOUGH:
                    return problems[-1]
        return problems[-1] if problems else None

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

    async def _erase_repo(self, claim: Claim, line: Line, lease: Lease) -> None:
        """Delete the repo that was made for a row, if there is one; what is somebody else's stays as it is."""
        repo_id = line["name"]
        found = await self.retry(self.hub.look, repo_id, claim.identity_id)
        if found.state == "absent" or (found.state == "foreign" and not line["ours"]):
            return
        if not line["ours"]:
            await self.retry(self.verbs.settle_repo, claim.attempt, line["id"])
        # A repo's large files may outlive it by a day and a half, unless they are deleted first.
        await self.retry(self._mutate, self.hub.delete_lfs_files, repo_id, lease)
        await self.retry(self._mutate, self.hub.delete, repo_id, lease)
        found = await self.retry(self.hub.look, repo_id, claim.identity_id)
        if found.state != "absent":
            raise Transient("The Hub still shows a repo that it was told to delete.")

    async def _mutate(self, change: Any, repo_id: str, lease: Lease) -> None:
        lease.check()
        with lease.mutating():
            await change(repo_id)


def _namespace(line: Line) -> str:
    return str(line["name"]).partition("/")[0]


def _sorted(claim: Claim) -> tuple[list[Line], list[Line]]:
    """Return the repos and the photos that are to go."""
    lines: Sequence[Line] = claim.details["lines"]
    return [line for line in lines if line["what"] == "repo"], [
        line for line in lines if line["what"] == "photo"
    ]
