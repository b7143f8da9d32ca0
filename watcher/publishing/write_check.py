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
        """Return False if there is no such repo of another row; raises Outage if the newest two refuse, and Transient."""
        refused = None
        for repo_id in await self.verbs.newest_repos(self.hub.namespace, other_than=row):
            try:
                if await self.hub.can_upload(repo_id):
                    return True
            except Refused as refusal:
                # One repo may be disabled, and its row published all the same.
                refused = refusal
        if refused is not None:
            raise Outage(refused.everybody) from refused
        return False
