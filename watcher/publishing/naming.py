"""The repo's name: reserved before the Hub hears of it, looked behind before anything is repeated, and abandoned at the end.

Each step can be done twice, and by another attempt: whoever holds the row next finds what was begun here.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.errors import Transient
from watcher.hub.errors import NameTaken
from watcher.hub.repos import Hub, RepoState
from watcher.identity import Identity
from watcher.publishing.documents import slug
from watcher.supabase.verbs import Verbs

log = structlog.get_logger(__name__)

_NAMES_AT_ONCE = 5
"""Names that one attempt tries; a Hub that calls every new repo somebody else's must not get one each second."""


class _NotShown(Transient):
    """The Hub does not show a repo that it has, or may have."""


class RepoName:
    """The name of one row's repo, and what this attempt has done under it."""

    def __init__(
        self, identity: Identity, reserved: str | None, lease: Lease, *, verbs: Verbs, hub: Hub, retry: Retry
    ) -> None:
        """`reserved`: the name that an earlier attempt reserved."""
        self._identity = identity
        self._reserved = reserved
        self._lease = lease
        self._verbs = verbs
        self._hub = hub
        self._retry = retry
        self._creations: list[asyncio.Future[None]] = []
        """Of the repo under the present name, each of which may have made it."""

    @property
    def repo_id(self) -> str:
        """The reserved name."""
        assert self._reserved is not None, "a name is reserved before anything is done under it"
        return self._reserved

    @property
    def reserved(self) -> str | None:
        """The name, None while there is none."""
        return self._reserved

    @property
    def is_elsewhere(self) -> bool:
        """Whether the name is in another namespace, which the settings have left."""
        return self._reserved is not None and not self._reserved.startswith(f"{self._hub.namespace}/")

    def forget(self) -> None:
        """Reserve anew at the next occasion; the database keeps the name on record."""
        self._reserved = None

    async def look(self) -> RepoState:
        """Ask the Hub once what it has under the name."""
        return await self._hub.look(self.repo_id, self._identity.id)

    async def open_repo(self, found: RepoState | None) -> RepoState:
        """Return the state of the row's private repo, which holds its initial commit alone.

        `found`: what an earlier look found under the name; None where there is no name yet.
        """
        names_tried = 0
        while found is None or found.state in {"absent", "foreign"}:
            names_tried += 1
            if names_tried > _NAMES_AT_ONCE:
                raise Transient(
                    f"The Hub has something of somebody else's under {self._reserved} and the names before."
                )
            if found is None or found.state == "foreign":
                self._reserved = await self._retry(
                    self._verbs.reserve,
                    self._lease.attempt,
                    self._hub.namespace,
                    slug(self._identity.name),
                    self._reserved,
                )
                self._creations = []
            found = await self._retry(self._create_and_look)
        if found.state == "ours":
            raise Transient("Another attempt has just published this row.")
        return found

    async def _create_and_look(self) -> RepoState:
        self._lease.check()
        creation = asyncio.ensure_future(self._hub.create(self.repo_id, check=self._lease.check))
        creation.add_done_callback(lambda creation: creation.cancelled() or creation.exception())
        self._creations.append(creation)
        with suppress(NameTaken):
            await asyncio.shield(creation)
        return await self._look_at_new()

    async def _look_at_new(self) -> RepoState:
        found = await self.look()
        if found.state == "absent":
            raise _NotShown(f"The Hub does not show {self._reserved} yet.")
        return found

    async def abandon(self) -> str | None:
        """Delete the repo if it holds nothing; return the id of the row's commit if that turns out to be there after all."""
        if self._reserved is None:
            return None
        found = await self._look_behind(self._creations)
        if found.state == "ours":
            return found.sha
        if found.state == "empty":
            self._lease.check()
            await self._retry(self._hub.delete, self._reserved)
            log.info("repo_deleted", repo=self._reserved)
        return None

    async def _look_behind(self, creations: Sequence[asyncio.Future[None]]) -> RepoState:
        """Look when all creations are over, and do not believe at once that they came to nothing."""
        if not creations:
            return await self._retry(self.look)
        # They cannot be called back, and a look that comes before them would see nothing.
        await asyncio.wait(creations)
        came_to = [creation.exception() for creation in creations]
        made = any(error is None or isinstance(error, NameTaken) for error in came_to)
        if not made and not any(isinstance(error, Transient) for error in came_to):
            return await self._retry(self.look)
        try:
            return await self._retry(self._look_at_new)
        except _NotShown:
            if not made:
                return RepoState("absent")
            raise  # it is there: who fails the row now leaves it behind
