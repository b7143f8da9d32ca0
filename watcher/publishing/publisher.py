"""The kind of work `publish`: one identity's photos become a private repo. Look, fetch and upload overlapped, commit once.

The commit is made on top of the repo's initial one, so of two that race one is refused and finds the other's.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Outage, Permanent, Transient
from watcher.hub.errors import Conflict
from watcher.hub.repos import File, Hub, RepoState, commit_description, image_file, text_file
from watcher.identity import Claim, Identity, Image, Publication
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.publishing.batching import Batches
from watcher.publishing.documents import commit_message, documents, image_path, training_config
from watcher.publishing.naming import RepoName
from watcher.supabase.verbs import Verbs

_UPLOADS_AT_ONCE = 2
"""Batches of one row on their way up: while the one asks where to, the other fills the link."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """What a publication needs."""

    verbs: Verbs
    hub: Hub
    photos: Photos
    spool: Spool
    retry: Retry

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many images the row has, and the repo's name where one is reserved."""
        return {"images": len(claim.details["image_paths"] or ()), "repo": claim.details["model_id"]}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Publish the row, and say how that is written back."""
        publication = await self.publish(claim, lease)
        config = training_config(identity_of(claim))
        return Done(
            "published",
            {"url": publication.url, "commit": publication.commit_sha},
            partial(self.verbs.complete, claim.attempt, publication, config),
        )

    async def publish(self, claim: Claim, lease: Lease) -> Publication:
        """Return the row's publication, once there is one; raises as `carry` does."""
        publish = _Publish(self, claim, lease)
        try:
            if claim.look_only:
                raise Permanent("attempts_exhausted", claim.exhausted or "Gave up.")
            return await publish()
        except Permanent:
            # A row that fails for good leaves no repo, and is failed only by somebody who has looked.
            publication = await publish.abandon()
            if publication is None:
                raise
            return publication


def identity_of(claim: Claim) -> Identity:
    """Return the row that is to be published."""
    details = claim.details
    return Identity(
        id=claim.identity_id,
        user_id=details["user_id"],
        name=details["identity_name"],
        # Whatever it holds: the table's checks may not have seen the row.
        image_paths=tuple(map(str, details["image_paths"] or ())),
        created_at=details["created_at"],
    )


class _Publish:
    """One attempt to publish, and what it knows between its steps."""

    def __init__(self, tools: Publisher, claim: Claim, lease: Lease) -> None:
        self._tools = tools
        self._hub = tools.hub
        self._retry = tools.retry
        self._identity = identity_of(claim)
        self._lease = lease
        self._uploaded = 0
        self._name = RepoName(
            self._identity,
            claim.details["model_id"],
            lease,
            verbs=tools.verbs,
            hub=tools.hub,
            retry=tools.retry,
        )

    async def __call__(self) -> Publication:
        found = None
        if self._name.is_elsewhere:
            # Begin anew in the new namespace. The token may have no rights in the old one any more.
            with suppress(Outage):
                publication = await self.abandon()
                if publication is not None:
                    return publication
            self._name.forget()
        elif self._name.reserved is not None:
            found = await self._retry(self._name.look)
            if found.state == "ours":
                return self._publication(found.sha)
        self._tools.photos.check(self._identity)
        try:
            with self._tools.spool.folder(self._lease.attempt) as folder:
                async with asyncio.TaskGroup() as group:
                    repo = group.create_task(self._name.open_repo(found))
                    files = await self._fetch_and_upload(group, repo, folder)
                return await self._commit(files, parent=repo.result())
        except BaseExceptionGroup as several:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Before Python 3.13 a group loses a cancellation that meets an error inside.
                raise asyncio.CancelledError from several
            raise several.exceptions[0] from several

    async def abandon(self) -> Publication | None:
        """Give the name up; return the publication if it turns out to be there after all."""
        sha = await self._name.abandon()
        return None if sha is None else self._publication(sha)

    async def _fetch_and_upload(
        self, group: asyncio.TaskGroup, repo: asyncio.Task[RepoState], folder: Path
    ) -> list[File]:
        count = len(self._identity.image_paths)
        batches = Batches(count)
        for number in range(1, count + 1):
            group.create_task(self._fetch(number, folder, batches))
        uploads = [group.create_task(self._upload(repo, batches)) for _ in range(_UPLOADS_AT_ONCE)]
        files = [file for upload in uploads for file in await upload]
        return sorted(files, key=lambda file: file.path_in_repo)

    async def _fetch(self, number: int, folder: Path, batches: Batches) -> None:
        await batches.put(await self._tools.photos.fetch(self._identity, number, folder))

    async def _upload(self, repo: asyncio.Task[RepoState], batches: Batches) -> list[File]:
        """Upload one batch after the other."""
        await asyncio.wait([repo])
        if repo.cancelled() or repo.exception():
            return []  # the group is being ended by that
        done: list[File] = []
        while batch := await batches.take():
            files = [image_file(image_path(image), image.file, image.sha256) for image in batch]
            await self._retry(self._hub.upload, self._name.repo_id, files)
            done += files
            self._uploaded += len(batch)
            self._lease.progress["images_published"] = self._uploaded
            # They are not read again, and to delete large files takes its time.
            await asyncio.to_thread(_delete, batch)
        return done

    async def _commit(self, files: list[File], parent: RepoState) -> Publication:
        tried = False
        repo_id = self._name.repo_id
        files += [text_file(path, content) for path, content in documents(self._identity, repo_id).items()]

        async def commit() -> Publication:
            nonlocal tried
            if tried:
                # It may have landed, though we were not told.
                found = await self._name.look()
                if found.state == "ours":
                    return self._publication(found.sha)
                if found != parent:
                    raise Transient(f"Somebody else has written to {repo_id}.")
            self._lease.check()
            tried = True
            try:
                sha = await self._hub.commit(
                    repo_id,
                    files,
                    message=commit_message(self._identity),
                    description=commit_description(self._identity.id),
                    parent=parent.sha,
                )
            except Conflict as conflict:
                raise Transient(f"The Hub has seen another commit: {conflict}") from conflict
            return self._publication(sha)

        return await self._retry(commit)

    def _publication(self, sha: str) -> Publication:
        return Publication(url=self._hub.url(self._name.repo_id), commit_sha=sha)


def _delete(images: Sequence[Image]) -> None:
    for image in images:
        image.file.unlink(missing_ok=True)
