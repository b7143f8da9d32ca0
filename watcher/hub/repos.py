"""Operations on a repo on the Hub: look, create, upload, commit, delete.

Each can safely be repeated, since a response can be lost, and a thread in which huggingface_hub blocks not be cancelled.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Outage, Refused, Transient
from watcher.hub.client import Client, at_once
from watcher.hub.errors import Conflict, NameTaken, reason_of
from watcher.hub.files import File
from watcher.hub.library import (
    Api,
    build_hf_headers,
    default_client_factory,
    hf_raise_for_status,
)
from watcher.hub.rights import Right, check_rights
from watcher.hub.threads import in_thread
from watcher.process.metrics import stage

_SHA = re.compile(r"[0-9a-f]{7,64}")
_INITIAL_FILES = frozenset({".gitattributes"})
"""What the Hub itself puts into a new repo."""
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,96}")


@dataclass(frozen=True, slots=True)
class RepoState:
    """What the Hub has under a name.

    `absent`: nothing. `empty`: a private repo with only its initial commit, whose id is `sha`. `ours`: already
    published for this row, in commit `sha`. `foreign`: anything else, never to be written to.
    """

    state: Literal["absent", "empty", "ours", "foreign"]
    sha: str = ""


def commit_description(identity_id: str) -> str:
    """Return the second paragraph of a row's commit message, by which `is_commit_of` recognizes the commit."""
    return f"Identity: {identity_id}"


def is_commit_of(identity_id: str, message: str) -> bool:
    """Whether a commit with this message is the one that published the row."""
    return commit_description(identity_id) in (line.rstrip() for line in message.split("\n"))


class Hub:
    """The Hub, used with one token.

    Requests run in threads; see `in_thread` about cancellation. They raise Permanent, Outage or Transient.
    """

    def __init__(self, *, endpoint: str, token: str, namespace: str | None) -> None:
        """Sends no request. `namespace` None: `check_token` sets it to the token's user."""
        self._endpoint = endpoint
        self._namespace = namespace
        self._token = token
        self._client = Client(endpoint)
        self.rate_limit = self._client.rate_limit
        set_client_factory(lambda: self._client)
        self.api = Api(endpoint=endpoint, token=token)

    @property
    def namespace(self) -> str:
        """The user or organization that owns the repos; known after `check_token`."""
        assert self._namespace is not None, "call check_token() first"
        return self._namespace

    def url(self, repo_id: str) -> str:
        """Return the URL of the repo's page."""
        return f"{self._endpoint}/{repo_id}"

    def get(self, path: str) -> httpx2.Response:
        """Request a path of the Hub, in the calling thread."""
        return self._client.get(f"{self._endpoint}/{path}", headers=build_hf_headers(token=self._token))

    async def check_token(self, namespace: str | None = None, *, right: Right = "repo.write") -> None:
        """Check that the token has a right in the namespace, or another one; raises Misconfigured, Outage or Transient."""
        try:
            who = await in_thread(self.api.whoami)
        except Refused as refusal:
            raise Outage(refusal.everybody, lasting=refusal.lasting) from refusal
        try:
            user = who["name"]
            valid = _NAMESPACE.fullmatch(user) is not None
            if valid:
                check_rights(who, namespace or self._namespace or user, right)
        except (AttributeError, LookupError, TypeError):
            valid = False
        if not valid:
            raise Transient("The Hub's response about the token is malformed.")
        self._namespace = self._namespace or user

    async def turn(self) -> None:
        """Wait until the rate limit allows a request.

        To be called before the lease is checked for a request that changes something: `create`, `commit` and the deletions
        send theirs at once.
        """
        await in_thread(self._client.wait_for_turn)

    async def look(self, repo_id: str, identity_id: str, *, is_new: bool = False) -> RepoState:
        """Return what the Hub has under a name, and whether that is this row's.

        `is_new`: the repo was created a moment ago, so that one request is enough if there is nothing in it.
        """
        with stage("look"):
            return await in_thread(partial(self._look, repo_id, identity_id, is_new=is_new))

    def _look(self, repo_id: str, identity_id: str, *, is_new: bool) -> RepoState:
        try:
            if is_new:
                info = self.api.model_info(repo_id)
                files = None if info.siblings is None else {file.rfilename for file in info.siblings}
                if files is not None and files <= _INITIAL_FILES:
                    return _empty(info, info.sha)
            # Newest first.
            commits = self.api.list_repo_commits(repo_id)
            if len(commits) > 1:
                ours = is_commit_of(identity_id, commits[-2].message)
                return RepoState("ours", _sha(commits[-2].commit_id)) if ours else RepoState("foreign")
            info = self.api.model_info(repo_id)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return RepoState("absent")
            raise
        if not commits:
            # There is a repo, so it is not absent: nobody may take it for deleted.
            raise Transient("The Hub shows a repo, but not its initial commit yet.")
        return _empty(info, commits[0].commit_id)

    async def create(self, repo_id: str) -> None:
        """Create a private repo; raises NameTaken. To be called once at a time."""
        await in_thread(partial(self._create, repo_id))

    def _create(self, repo_id: str) -> None:
        try:
            with at_once():
                self.api.create_repo(repo_id, private=True)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.CONFLICT:
                raise NameTaken from error
            raise

    async def upload(self, repo_id: str, operations: Sequence[File], *, parallel: int = 5) -> None:
        """Upload the images' content, before the commit that adds them to the repo, which does not read the files.

        `parallel`: the images that are sent at the same time.
        """
        with stage("upload"):
            await in_thread(partial(self.api.preupload_lfs_files, repo_id, operations, num_threads=parallel))

    async def can_upload(self, repo_id: str) -> bool:
        """Ask for the right to upload a byte, and upload none; returns False if there is no such repo, or raises Refused."""
        return await in_thread(partial(self._can_upload, repo_id))

    def _can_upload(self, repo_id: str) -> bool:
        media_type = "application/vnd.git-lfs+json"
        response = self._client.post(
            f"{self._endpoint}/{repo_id}.git/info/lfs/objects/batch",
            headers=build_hf_headers(token=self._token) | {"Accept": media_type, "Content-Type": media_type},
            content=json.dumps(
                {
                    "operation": "upload",
                    "transfers": ["basic"],
                    "objects": [{"oid": secrets.token_hex(32), "size": 1}],
                    "hash_algo": "sha256",
                }
            ),
        )
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return False
            raise
        return True

    async def commit(
        self,
        repo_id: str,
        operations: Sequence[File],
        *,
        message: str,
        description: str,
        parent: str,
    ) -> str:
        """Commit on top of `parent` and return the commit's id; raises Conflict if the repo has a newer commit."""
        with stage("commit"):
            return await in_thread(partial(self._commit, repo_id, operations, message, description, parent))

    def _commit(
        self,
        repo_id: str,
        operations: Sequence[File],
        message: str,
        description: str,
        parent: str,
    ) -> str:
        try:
            with at_once():
                made = self.api.create_commit(
                    repo_id,
                    operations,
                    commit_message=message,
                    commit_description=description,
                    parent_commit=parent,
                )
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.PRECONDITION_FAILED:
                raise Conflict(reason_of(error)) from error
            raise
        return _sha(made.oid)

    async def delete(self, repo_id: str) -> None:
        """Delete a repo, if it exists."""
        await in_thread(partial(self._delete, repo_id))

    def _delete(self, repo_id: str) -> None:
        with at_once():
            self.api.delete_repo(repo_id, missing_ok=True)

    async def delete_lfs_files(self, repo_id: str) -> None:
        """Delete the content of the repo's large files, in all of its history; nothing if the repo has none or is gone."""
        await in_thread(partial(self._delete_lfs_files, repo_id))

    def _delete_lfs_files(self, repo_id: str) -> None:
        try:
            with at_once():
                # All pages first: deleting would move what is on the next one.
                self.api.permanently_delete_lfs_files(repo_id, list(self.api.list_lfs_files(repo_id)))
        except HfHubHTTPError as error:
            if error.response.status_code != httpx2.codes.NOT_FOUND:
                raise

    def close(self) -> None:
        """Close all connections, also those that a thread waits on, and restore the library's own client."""
        set_client_factory(default_client_factory)
        self._client.close_for_good()


def _empty(info: Any, commit_id: object) -> RepoState:
    """Return the state of a repo with only its initial commit."""
    return RepoState("empty", _sha(commit_id)) if info.private else RepoState("foreign")


def _sha(commit_id: object) -> str:
    """Return a commit's id as the Hub sent it; raises Transient for what can be none."""
    if not isinstance(commit_id, str) or not _SHA.fullmatch(commit_id):
        raise Transient("The Hub's response has no valid commit id.")
    return commit_id
