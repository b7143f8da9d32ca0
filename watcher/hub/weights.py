"""What a training has left in a repo: its commit, and the pictures in that."""

from dataclasses import dataclass
from functools import partial

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from watcher.hub.library import hf_raise_for_status
from watcher.hub.repos import Hub
from watcher.hub.threads import in_thread

WEIGHTS = "pytorch_lora_weights.safetensors"
_TRAINING = "Watcher training: "
_MOST = 8
"""Pictures that are fetched."""
_LARGEST = 10 * 2**20
"""Bytes of a picture that is fetched."""
_MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture that a training has made."""

    name: str
    """Of its file, without a folder."""
    content: bytes
    media_type: str


def training_description(label: str) -> str:
    """Return the second paragraph of a training's commit message, by which its commit is recognized."""
    return f"{_TRAINING}{label}"


class Weights:
    """Looks at what trainings have committed; raises Permanent, Refused, Outage or Transient."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def commit_of(self, repo_id: str, label: str) -> str | None:
        """Return the commit with which a training has added its weights; None if there is none."""
        return await in_thread(partial(self._commit_of, repo_id, label))

    def _commit_of(self, repo_id: str, label: str) -> str | None:
        wanted = training_description(label)
        try:
            for commit in self._hub.api.list_repo_commits(repo_id):
                if wanted in (line.strip() for line in commit.message.split("\n")):
                    found = self._hub.api.get_paths_info(repo_id, [WEIGHTS], revision=commit.commit_id)
                    return commit.commit_id if found else None
        except HfHubHTTPError as error:
            if error.response.status_code != httpx2.codes.NOT_FOUND:
                raise
        return None

    async def head(self, repo_id: str, published: str) -> str | None:
        """Return what a training starts from: the published commit, or the newest of the trainings' on top of it.

        None if the repo is gone, or has commits on top of the published one that are no trainings'.
        """
        return await in_thread(partial(self._head, repo_id, published))

    def _head(self, repo_id: str, published: str) -> str | None:
        try:
            commits = self._hub.api.list_repo_commits(repo_id)
        except HfHubHTTPError as error:
            if error.response.status_code != httpx2.codes.NOT_FOUND:
                raise
            return None
        for commit in commits:
            if commit.commit_id == published:
                return commits[0].commit_id
            if _TRAINING not in commit.message:
                return None
        return None

    async def samples(self, repo_id: str, commit: str) -> list[Sample]:
        """Return the pictures of a commit, in order; those too large, or of another type than JPEG or PNG, are left out."""
        return await in_thread(partial(self._samples, repo_id, commit))

    def _samples(self, repo_id: str, commit: str) -> list[Sample]:
        try:
            entries = list(self._hub.api.list_repo_tree(repo_id, "samples", revision=commit))
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return []
            raise
        files = [
            (entry.path, media_type)
            for entry in entries
            if isinstance(entry, RepoFile)
            and entry.size <= _LARGEST
            and (media_type := _MEDIA_TYPES.get(entry.path.rpartition(".")[2]))
        ]
        return [
            Sample(path.rpartition("/")[2], self._content(repo_id, commit, path), media_type)
            for path, media_type in sorted(files)[:_MOST]
        ]

    def _content(self, repo_id: str, commit: str, path: str) -> bytes:
        response = self._hub.get(f"{repo_id}/resolve/{commit}/{path}")
        hf_raise_for_status(response)
        return response.content
