"""Whether the token may write to the repos of other rows than the one that was refused."""

from dataclasses import dataclass

from watcher.errors import Outage, Refused
from watcher.hub.repos import Hub
from watcher.supabase.verbs import Verbs


@dataclass(frozen=True, slots=True)
class WriteCheck:
    """Asks the Hub for the right to upload to the repos of published rows. Nothing is uploaded."""

    verbs: Verbs
    hub: Hub

    async def __call__(self, row: str) -> bool:
        """Return False if that shows nothing: there is no such repo of another row, or one is gone and the other refused.

        Raises Outage if all that were asked refuse, at most two, and Transient.
        """
        refusals: list[Refused] = []
        repos = await self.verbs.newest_repos(self.hub.namespace, other_than=row)
        for repo_id in repos:
            try:
                if await self.hub.can_upload(repo_id):
                    return True
            except Refused as refusal:
                # One repo may be disabled, and its row published all the same.
                refusals.append(refusal)
        if refusals and len(refusals) == len(repos):
            raise Outage(refusals[0].everybody) from refusals[0]
        return False
