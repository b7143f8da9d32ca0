"""The repo's name: reserved before the Hub is sent it, checked before a step is repeated, abandoned if the row fails.

Each step can be repeated, also by another attempt: the next one that holds the row continues from what this one did.
"""

from contextlib import suppress

from watcher.engine.fair import FairLimit
from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.errors import Transient
from watcher.hub.errors import NameTaken
from watcher.hub.repos import Hub, RepoState
from watcher.identity import Identity
from watcher.publishing.documents import slug
from watcher.supabase.verbs import Verbs

_MAX_NAMES = 5
"""Names that one attempt tries, in case the Hub reports every new repo as foreign: each name creates a repo."""


class RepoName:
    """The name of one row's repo, and the repo's creation under it."""

    def __init__(
        self,
        identity: Identity,
        reserved: str | None,
        lease: Lease,
        *,
        verbs: Verbs,
        hub: Hub,
        creations: FairLimit,
        retry: Retry,
    ) -> None:
        """`reserved`: the name that an earlier attempt reserved."""
        self._identity = identity
        self._reserved = reserved
        self._lease = lease
        self._verbs = verbs
        self._hub = hub
        self._creations = creations
        self._retry = retry

    @property
    def repo_id(self) -> str:
        """The reserved name."""
        assert self._reserved is not None, "a name must be reserved first"
        return self._reserved

    @property
    def reserved(self) -> str | None:
        """The reserved name, None if there is none."""
        return self._reserved

    @property
    def in_other_namespace(self) -> bool:
        """Whether the name is in another namespace than the settings' current one."""
        return self._reserved is not None and not self._reserved.startswith(f"{self._hub.namespace}/")

    def discard(self) -> None:
        """Reserve another name next time; the database keeps a record of this one."""
        self._reserved = None

    async def look(self, *, is_new: bool = False) -> RepoState:
        """Return what the Hub has under the name, in one try; `is_new` as in `Hub.look`."""
        with self._lease.step("look"):
            return await self._hub.look(self.repo_id, self._identity.id, is_new=is_new)

    async def open_repo(self, found: RepoState | None) -> RepoState:
        """Return the state of the row's private repo with only its initial commit, creating it if necessary.

        `found`: what the Hub has under the reserved name; None if none is reserved. Raises Transient if the row turns
        out to be published, or if no free name is found.
        """
        names_tried = 0
        while found is None or found.state in {"absent", "foreign"}:
            names_tried += 1
            if names_tried > _MAX_NAMES:
                raise Transient(
                    f"Other repos exist on the Hub under {self._reserved} and the names before it."
                )
            if found is None or found.state == "foreign":
                self._reserved = await self._retry(
                    self._verbs.reserve,
                    self._lease.attempt,
                    self._hub.namespace,
                    slug(self._identity.name),
                    self._reserved,
                )
            found = await self._retry(self._create_and_look)
        if found.state == "ours":
            raise Transient("Another attempt has just published this row.")
        return found

    async def _create_and_look(self) -> RepoState:
        async with self._creations.held(self._identity.user_id, self._identity.id):
            await self._hub.turn()
            self._lease.check()
            is_new = False
            with suppress(NameTaken), self._lease.step("create"), self._lease.mutating(NameTaken):
                await self._hub.create(self.repo_id)
                is_new = True
        found = await self.look(is_new=is_new)
        if found.state == "absent":
            raise Transient(f"The Hub does not show {self._reserved} yet.")
        return found

    async def published_commit(self) -> str | None:
        """Return the id of the row's commit if the repo turns out to hold it, None otherwise.

        To be asked before a row fails, which gives its name up: the repo behind it is erased as work of its own.
        """
        if self._reserved is None:
            return None
        found = await self._retry(self.look)
        return found.sha if found.state == "ours" else None
