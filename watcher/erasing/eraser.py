"""The kind of work `erase`: what is listed is deleted on the Hub, and seen to be gone.

The database lists what has to go, and when to look once more; see migrations/20261122100250_erasing.sql.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Transient
from watcher.hub.repos import Hub
from watcher.identity import Claim
from watcher.supabase.verbs import Verbs


@dataclass(frozen=True, slots=True)
class Eraser:
    """What an erasure needs."""

    announced: ClassVar[bool] = False

    verbs: Verbs
    hub: Hub
    retry: Retry

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many things are to go."""
        return {"things": len(claim.details["lines"])}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Erase what the claim lists, and look whether it is gone."""
        # Without a valid token a repo looks gone that is not.
        await self.retry(self.hub.check_token)
        lines = claim.details["lines"]
        # Those of the current namespace first: the others raise.
        for line in sorted(lines, key=lambda line: self._is_elsewhere(line["name"])):
            await self._erase(claim.identity_id, line["name"], lease)
        gone = [line["id"] for line in lines]
        return Done(
            "erased",
            {"things": len(gone)},
            partial(self.verbs.erased, claim.attempt, gone, answered=lease.answered),
        )

    def _is_elsewhere(self, repo_id: str) -> bool:
        return not repo_id.startswith(f"{self.hub.namespace}/")

    async def _erase(self, identity_id: str, repo_id: str, lease: Lease) -> None:
        """Delete the repo that was made for a row, if there is one; what is somebody else's stays as it is."""
        if self._is_elsewhere(repo_id):
            raise Transient(
                f"A repo to be erased is in another namespace than {self.hub.namespace}: run a watcher with HF_NAMESPACE="
                f"{repo_id.partition('/')[0]}."
            )
        found = await self.retry(self.hub.look, repo_id, identity_id)
        if found.state in {"absent", "foreign"}:
            return
        await self.retry(self._delete, repo_id, lease)
        found = await self.retry(self.hub.look, repo_id, identity_id)
        if found.state != "absent":
            raise Transient("The Hub still shows a repo that it was told to delete.")

    async def _delete(self, repo_id: str, lease: Lease) -> None:
        lease.check()
        with lease.mutating():
            await self.hub.delete(repo_id)
