"""The kind of work `publish`: puts one identity's photos in a private repo, in one commit. Fetches and uploads overlap.

The commit's parent is the repo's initial commit, so if two attempts race, one is refused and finds the other's commit.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from watcher.engine.fair import FairLimit
from watcher.engine.lease import Lease
from watcher.engine.retry import Retry
from watcher.engine.work import Done
from watcher.errors import Outage, Permanent, Refused, Transient
from watcher.hub.errors import Conflict
from watcher.hub.files import File, image_file, text_file
from watcher.hub.repos import Hub, RepoState, commit_description
from watcher.identity import Claim, Identity, Image, Publication, StoredObject
from watcher.photos.fetch import Photos
from watcher.photos.spool import Spool
from watcher.publishing.batching import Batches
from watcher.publishing.documents import commit_message, documents, image_path, training_config
from watcher.publishing.naming import RepoName
from watcher.supabase.verbs import Verbs

_PARALLEL_UPLOADS = 2
"""Batches of one row that are uploaded at the same time: while one requests its upload URLs, the other uses the link."""

_MOST_PARALLEL = 10
"""Images of one batch that are sent at the same time."""
_BYTES_UNDER_WAY = 2**24
"""Of one batch, beyond two images."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes rows."""

    announced: ClassVar[bool] = True
    routine: ClassVar[bool] = False

    verbs: Verbs
    hub: Hub
    photos: Photos
    spool: Spool
    retry: Retry
    creations: FairLimit = field(default_factory=lambda: FairLimit(1))
    """The Hub creates one repo at a time for each user, and refuses concurrent creations."""
    uploads: FairLimit = field(default_factory=lambda: FairLimit(_PARALLEL_UPLOADS))
    """Batches that are uploaded at the same time, over all rows."""

    def describe(self, claim: Claim) -> Mapping[str, object]:
        """Return how many images the row has; the repo's name has the person's in it."""
        return {"images": len(claim.details["image_paths"] or ())}

    async def carry(self, claim: Claim, lease: Lease) -> Done:
        """Publish the row; raises as `Work.carry` does."""
        publication = await self.publish(claim, lease)
        config = training_config(identity_of(claim))
        return Done(
            "published",
            {"commit": publication.commit_sha},
            partial(self.verbs.complete, claim.attempt, publication, config, answered=lease.answered),
        )

    async def publish(self, claim: Claim, lease: Lease) -> Publication:
        """Publish the row, or find that it is published, and return its publication; raises as `carry` does."""
        publish = _Publish(self, claim, lease)
        try:
            if claim.look_only:
                raise Permanent("attempts_exhausted", claim.exhausted or "Gave up.")
            return await publish()
        except Permanent:
            # Check the Hub before failing the row: it may be published. If not, its name is given up with it, and what is
            # behind the name is erased as work of its own: a deletion from here could land after a retry has published.
            publication = await publish.find()
            if publication is None:
                raise
            return publication


def identity_of(claim: Claim) -> Identity:
    """Return the row to publish."""
    details = claim.details
    return Identity(
        id=claim.identity_id,
        user_id=details["user_id"],
        name=details["identity_name"],
        # Any values: the row may have bypassed the table's checks.
        image_paths=tuple(map(str, details["image_paths"] or ())),
        created_at=details["created_at"],
        objects=tuple(map(_stored, details["objects"] or ())),
    )


def _stored(found: Sequence[Any]) -> StoredObject:
    """Return what the claim says of an object; values of unexpected types are left out, since Storage wrote them."""
    size, etag, version = found
    return StoredObject(
        size=size if isinstance(size, int) else None,
        etag=etag if isinstance(etag, str) else None,
        version=version if isinstance(version, str) else None,
    )


class _Publish:
    """One attempt to publish, and its state between steps."""

    def __init__(self, publisher: Publisher, claim: Claim, lease: Lease) -> None:
        self._hub = publisher.hub
        self._photos = publisher.photos
        self._spool = publisher.spool
        self._retry = publisher.retry
        self._uploads = publisher.uploads
        self._identity = identity_of(claim)
        self._lease = lease
        # Its images may be unfit again: nothing is uploaded before all of them have been judged.
        self._judge_first = bool(claim.details["failed_by_image"])
        self._uploaded: set[int] = set()
        self._name = RepoName(
            self._identity,
            claim.details["model_id"],
            lease,
            verbs=publisher.verbs,
            hub=publisher.hub,
            creations=publisher.creations,
            retry=publisher.retry,
        )

    async def __call__(self) -> Publication:
        found = None
        if self._name.in_other_namespace:
            # Start again in the new namespace. The token may no longer have access to the old one.
            with suppress(Outage, Refused):
                publication = await self.find()
                if publication is not None:
                    return publication
            self._name.discard()
        elif self._name.reserved is not None:
            found = await self._retry(self._name.look)
            if found.state == "ours":
                return self._publication(found.sha)
        self._photos.check(self._identity)
        try:
            with self._spool.folder(self._lease.attempt) as folder:
                async with asyncio.TaskGroup() as group:
                    files, repo = await self._fetch_and_upload(group, found, folder)
                return await self._commit(files, parent=repo.result())
        except BaseExceptionGroup as group_error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Before Python 3.13, a TaskGroup loses a cancellation that coincides with an error inside it.
                raise asyncio.CancelledError from group_error
            raise group_error.exceptions[0] from group_error

    async def find(self) -> Publication | None:
        """Return the row's publication if the Hub turns out to have it."""
        sha = await self._name.published_commit()
        return None if sha is None else self._publication(sha)

    async def _fetch_and_upload(
        self, group: asyncio.TaskGroup, found: RepoState | None, folder: Path
    ) -> tuple[list[File], asyncio.Task[RepoState]]:
        """Fetch all images and upload them to the repo; returns them, and the task that opened it."""
        count = len(self._identity.image_paths)
        batches = Batches(count)
        fetches = [group.create_task(self._fetch(number, folder, batches)) for number in range(1, count + 1)]
        if self._judge_first:
            await asyncio.wait(fetches)
        repo = group.create_task(self._name.open_repo(found))
        uploads = [group.create_task(self._upload(repo, batches)) for _ in range(_PARALLEL_UPLOADS)]
        files = [file for upload in uploads for file in await upload]
        return sorted(files, key=lambda file: file.path_in_repo), repo

    async def _fetch(self, number: int, folder: Path, batches: Batches) -> None:
        with self._lease.step("fetch"):
            image = await self._photos.fetch(self._identity, number, folder)
        await batches.put(image)

    async def _upload(self, repo: asyncio.Task[RepoState], batches: Batches) -> list[File]:
        """Upload one batch after the other, once the repo exists."""
        await asyncio.wait([repo])
        if repo.cancelled() or repo.exception():
            return []  # which cancels the whole group
        uploaded: list[File] = []
        while batch := await batches.take():
            files = [self._file(image) for image in batch]
            with self._lease.step("upload"):
                await self._retry(self._upload_batch, files, _parallel(batch))
            uploaded += files
            for image in batch:
                self._note_uploaded(image.number)  # also those that the Hub had already
            # They are not read again. In a thread, since deleting large files takes time.
            await asyncio.to_thread(_delete, batch)
        return uploaded

    def _file(self, image: Image) -> File:
        uploaded = partial(self._note_uploaded, image.number)
        return image_file(image_path(image), image.file, image.sha256, on_uploaded=uploaded)

    def _note_uploaded(self, number: int) -> None:
        """Count an image as uploaded, once; called from any thread."""
        self._uploaded.add(number)
        self._lease.progress["images_published"] = len(self._uploaded)

    async def _upload_batch(self, files: list[File], parallel: int) -> None:
        async with self._uploads.held(self._identity.user_id, self._identity.id):
            await self._hub.upload(self._name.repo_id, files, parallel=parallel)

    async def _commit(self, files: list[File], parent: RepoState) -> Publication:
        tried = False
        repo_id = self._name.repo_id
        files += [text_file(path, content) for path, content in self._documents(repo_id).items()]

        async def commit() -> Publication:
            nonlocal tried
            if tried:
                # The last try may have succeeded although its response was lost.
                found = await self._name.look()
                if found.state == "ours":
                    return self._publication(found.sha)
                if found != parent:
                    raise Transient(f"The repo {repo_id} was changed by someone else.")
            await self._hub.turn()
            self._lease.check()
            tried = True
            try:
                with self._lease.step("commit"), self._lease.mutating(Conflict):
                    sha = await self._hub.commit(
                        repo_id,
                        files,
                        message=commit_message(self._identity),
                        description=commit_description(self._identity.id),
                        parent=parent.sha,
                    )
            except Conflict as conflict:
                raise Transient(f"The Hub refused the commit to {repo_id}: {conflict}") from conflict
            return self._publication(sha)

        return await self._retry(commit)

    def _documents(self, repo_id: str) -> dict[str, bytes]:
        return documents(self._identity, repo_id, cleaned=self._photos.clean)

    def _publication(self, sha: str) -> Publication:
        return Publication(url=self._hub.url(self._name.repo_id), commit_sha=sha)


def _parallel(batch: Sequence[Image]) -> int:
    """Return how many of a batch are sent at the same time: many small ones, and few large ones, which fill the link."""
    mean = sum(image.size for image in batch) / len(batch)
    return min(_MOST_PARALLEL, 2 + int(_BYTES_UNDER_WAY // max(mean, 1)))


def _delete(images: Sequence[Image]) -> None:
    for image in images:
        image.file.unlink(missing_ok=True)
