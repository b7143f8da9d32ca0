"""One identity's way to its repo: look, fetch and upload overlapped, commit once.

The repo's name is reserved before the Hub hears of it, so whoever holds the row next finds what was begun here. The
commit is made on top of the repo's initial one, so of two that race one is refused and finds the other's.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from huggingface_hub import CommitOperationAdd

from watcher.batches import Batches
from watcher.errors import Conflict, NameTaken, Outage, Permanent, Transient
from watcher.hub import Hub, Look, image_file, text_file
from watcher.identity import Claim, Image, Publication
from watcher.images import Images
from watcher.lease import Lease
from watcher.publication import commit_description, commit_message, documents, image_path, slug
from watcher.retry import Retry
from watcher.rows import Rows
from watcher.spool import Spool

log = structlog.get_logger(__name__)

_UPLOADS_AT_ONCE = 2
"""Batches of one row on their way up: while the one asks where to, the other fills the link."""
_NAMES_AT_ONCE = 5
"""Names that one attempt tries; a Hub that calls every new repo somebody else's must not get one each second."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """What a publication needs."""

    rows: Rows
    hub: Hub
    images: Images
    spool: Spool
    retry: Retry

    async def publish(self, claim: Claim, lease: Lease) -> Publication:
        """Carry a claim to its publication; raises what ends it otherwise."""
        way = _Way(self, claim, lease)
        try:
            if claim.look_only:
                raise Permanent("attempts_exhausted", claim.exhausted or "Gave up.")
            return await way.publish()
        except Permanent:
            # A row that fails for good leaves no repo, and is failed only by somebody who has looked.
            publication = await way.tidy()
            if publication is None:
                raise
            return publication


class _NotShown(Transient):
    """The Hub does not show a repo that it has, or may have."""


class _Way:
    """One attempt's way, and what it knows between its steps."""

    def __init__(self, tools: Publisher, claim: Claim, lease: Lease) -> None:
        self._tools = tools
        self._hub = tools.hub
        self._retry = tools.retry
        self._attempt = claim.attempt
        self._identity = claim.identity
        self._lease = lease
        self._repo_id = claim.model_id
        self._creations: list[asyncio.Future[None]] = []
        """Of the repo under the present name, each of which may have made it."""

    async def publish(self) -> Publication:
        look = None
        if self._repo_id is not None:
            if self._repo_id.startswith(f"{self._hub.namespace}/"):
                look = await self._retry(self._look)
                if look.state == "ours":
                    return self._publication(look.sha)
            else:
                # Reserved under another namespace, which the settings have left: begin anew in the new one. The token
                # may have no rights in the old one any more; the name stays recorded.
                with suppress(Outage):
                    publication = await self.tidy()
                    if publication is not None:
                        return publication
                self._repo_id = None
        self._tools.images.check(self._identity)
        try:
            with self._tools.spool.folder(self._attempt) as folder:
                async with asyncio.TaskGroup() as group:
                    repo = group.create_task(self._open_repo(look))
                    operations = await self._fetch_and_upload(group, repo, folder)
                return await self._commit(operations, parent=repo.result())
        except BaseExceptionGroup as several:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Before Python 3.13 a group loses a cancellation that meets an error inside.
                raise asyncio.CancelledError from several
            raise several.exceptions[0] from several

    async def tidy(self) -> Publication | None:
        """Delete our repo if it holds nothing; return the publication if it turns out to be there after all."""
        if self._repo_id is None:
            return None
        look = await self._look_behind(self._creations)
        if look.state == "ours":
            return self._publication(look.sha)
        if look.state == "empty":
            self._lease.check()
            await self._retry(self._hub.delete, self._repo_id)
            log.info("repo_deleted", repo=self._repo_id)
        return None

    async def _look_behind(self, creations: Sequence[asyncio.Future[None]]) -> Look:
        """Look when all creations are over, and do not believe at once that they came to nothing."""
        if not creations:
            return await self._retry(self._look)
        # They cannot be called back, and a look that comes before them would see nothing.
        await asyncio.wait(creations)
        came_to = [creation.exception() for creation in creations]
        made = any(error is None or isinstance(error, NameTaken) for error in came_to)
        if not made and not any(isinstance(error, Transient) for error in came_to):
            return await self._retry(self._look)
        try:
            return await self._retry(self._look_at_new)
        except _NotShown:
            if not made:
                return Look("absent")
            raise  # it is there: who fails the row now leaves it behind

    async def _look_at_new(self) -> Look:
        look = await self._look()
        if look.state == "absent":
            raise _NotShown(f"The Hub does not show {self._repo_id} yet.")
        return look

    async def _open_repo(self, look: Look | None) -> Look:
        """Return a look at the private repo of this row that holds its initial commit alone."""
        names_tried = 0
        while look is None or look.state in {"absent", "foreign"}:
            names_tried += 1
            if names_tried > _NAMES_AT_ONCE:
                raise Transient(
                    f"The Hub has something of somebody else's under {self._repo_id} and the names before."
                )
            if look is None or look.state == "foreign":
                self._repo_id = await self._retry(
                    self._tools.rows.reserve,
                    self._attempt,
                    self._hub.namespace,
                    slug(self._identity.name),
                    self._repo_id,
                )
                self._creations = []
            look = await self._retry(self._create_and_look)
        if look.state == "ours":
            raise Transient("Another attempt has just published this row.")
        return look

    async def _create_and_look(self) -> Look:
        assert self._repo_id is not None
        self._lease.check()
        creation = asyncio.ensure_future(self._hub.create(self._repo_id, check=self._lease.check))
        creation.add_done_callback(lambda creation: creation.cancelled() or creation.exception())
        self._creations.append(creation)
        with suppress(NameTaken):
            await asyncio.shield(creation)
        return await self._look_at_new()

    async def _fetch_and_upload(
        self, group: asyncio.TaskGroup, repo: asyncio.Task[Look], folder: Path
    ) -> list[CommitOperationAdd]:
        count = len(self._identity.image_paths)
        batches = Batches(count)
        for number in range(1, count + 1):
            group.create_task(self._fetch(number, folder, batches))
        uploads = [group.create_task(self._upload(repo, batches)) for _ in range(_UPLOADS_AT_ONCE)]
        operations = [operation for upload in uploads for operation in await upload]
        return sorted(operations, key=lambda operation: operation.path_in_repo)

    async def _fetch(self, number: int, folder: Path, batches: Batches) -> None:
        await batches.put(await self._tools.images.fetch(self._identity, number, folder))

    async def _upload(self, repo: asyncio.Task[Look], batches: Batches) -> list[CommitOperationAdd]:
        """Upload one batch after the other."""
        await asyncio.wait([repo])
        if repo.cancelled() or repo.exception():
            return []  # the group is being ended by that
        assert self._repo_id is not None
        done: list[CommitOperationAdd] = []
        while batch := await batches.take():
            operations = [image_file(image_path(image), image.file, image.sha256) for image in batch]
            await self._retry(self._hub.upload, self._repo_id, operations)
            self._lease.images_published += len(batch)
            # They are not read again, and to delete large files takes its time.
            await asyncio.to_thread(_delete, batch)
            done += operations
        return done

    async def _commit(self, operations: list[CommitOperationAdd], parent: Look) -> Publication:
        tried = False
        assert self._repo_id is not None
        papers = documents(self._identity, self._repo_id)
        operations += [text_file(path, content) for path, content in papers.items()]

        async def commit() -> Publication:
            nonlocal tried
            assert self._repo_id is not None
            if tried:
                # It may have landed, though we were not told.
                look = await self._look()
                if look.state == "ours":
                    return self._publication(look.sha)
                if look != parent:
                    raise Transient(f"Somebody else has written to {self._repo_id}.")
            self._lease.check()
            tried = True
            try:
                sha = await self._hub.commit(
                    self._repo_id,
                    operations,
                    message=commit_message(self._identity),
                    description=commit_description(self._identity.id),
                    parent=parent.sha,
                )
            except Conflict as conflict:
                raise Transient(f"The Hub has seen another commit: {conflict}") from conflict
            return self._publication(sha)

        return await self._retry(commit)

    async def _look(self) -> Look:
        assert self._repo_id is not None
        return await self._hub.look(self._repo_id, self._identity.id)

    def _publication(self, sha: str) -> Publication:
        assert self._repo_id is not None
        return Publication(url=self._hub.url(self._repo_id), commit_sha=sha)


def _delete(images: Sequence[Image]) -> None:
    for image in images:
        image.file.unlink(missing_ok=True)
