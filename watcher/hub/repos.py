"""The repo on the Hub: look, create, upload, commit, delete.

Each is safe to do twice, since huggingface_hub blocks, its threads cannot be cancelled, and an answer can be lost.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Misconfigured, Transient
from watcher.hub.client import Client
from watcher.hub.errors import Conflict, NameTaken, reason_of
from watcher.hub.library import default_client_factory, with_upload_mode
from watcher.hub.threads import in_thread
from watcher.process.metrics import stage

File = CommitOperationAdd
"""A file of a commit to come."""


@dataclass(frozen=True, slots=True)
class RepoState:
    """What the Hub has under a name.

    `absent`: nothing. `empty`: a private repo with its initial commit alone, whose id is `sha`. `ours`: published by
    this row, in commit `sha`. `foreign`: anything else; never to be written to.
    """

    state: Literal["absent", "empty", "ours", "foreign"]
    sha: str = ""


def commit_description(identity_id: str) -> str:
    """Return the second paragraph of a row's commit, by which `is_commit_of` knows it again."""
    return f"Identity: {identity_id}"


def is_commit_of(identity_id: str, description: str) -> bool:
    """Whether a commit with this description is the one that published the row."""
    return commit_description(identity_id) in (line.rstrip() for line in description.split("\n"))


def image_file(path: str, file: Path, sha256: str) -> File:
    """Return a file for a commit that goes by LFS, with its digest known, so that only its upload reads it."""
    operation = CommitOperationAdd(path, str(file))
    operation.upload_info.sha256 = bytes.fromhex(sha256)
    return with_upload_mode(operation, "lfs")


def text_file(path: str, content: bytes) -> File:
    """Return a small file for a commit that goes inside it."""
    return with_upload_mode(CommitOperationAdd(path, content), "regular")


class Hub:
    """The Hub under one token. What blocks runs in a thread; see `in_thread` about cancelling."""

    def __init__(self, *, endpoint: str, token: str, namespace: str | None) -> None:
        """Nothing is asked of the Hub before `first_look`, which settles the namespace if None is given."""
        self._endpoint = endpoint
        self._namespace = namespace
        self._client = Client(endpoint)
        self.rate_limit = self._client.rate_limit
        set_client_factory(lambda: self._client)
        self._api = HfApi(endpoint=endpoint, token=token)
        # The Hub creates one repo at a time for each user, and refuses the others.
        self._creating = asyncio.Lock()

    @property
    def namespace(self) -> str:
        """Who owns the repos. Known after `first_look`."""
        assert self._namespace is not None, "first_look() comes before everything else"
        return self._namespace

    def url(self, repo_id: str) -> str:
        """Where a person finds the repo."""
        return f"{self._endpoint}/{repo_id}"

    async def first_look(self) -> None:
        """Check the token, and learn whose it is; raises Misconfigured, or Outage or Transient from the Hub."""
        who = await in_thread(self._whoami)
        if self._namespace is None:
            self._namespace = who["name"]
        _check_rights(who, self.namespace)

    def _whoami(self) -> dict[str, Any]:
        who = self._api.whoami()
        if not isinstance(who, dict) or "name" not in who:
            raise Transient("The Hub's answer about the token is malformed.")
        return who

    async def look(self, repo_id: str, identity_id: str) -> RepoState:
        """Say what the Hub has under a name, from the point of view of one row."""
        with stage("look"):
            return await in_thread(partial(self._look, repo_id, identity_id))

    def _look(self, repo_id: str, identity_id: str) -> RepoState:
        try:
            # The newest first.
            commits = self._api.list_repo_commits(repo_id)
            if len(commits) > 1:
                ours = is_commit_of(identity_id, commits[-2].message)
                return RepoState("ours", commits[-2].commit_id) if ours else RepoState("foreign")
            info = self._api.repo_info(repo_id)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return RepoState("absent")
            raise
        if not commits:
            return RepoState("absent")  # not to be seen yet
        return RepoState("empty", commits[0].commit_id) if info.private else RepoState("foreign")

    async def create(self, repo_id: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Create a private repo; raises NameTaken, and what `check` raises when it is this creation's turn."""
        async with self._creating:
            check()
            await in_thread(partial(self._create, repo_id))

    def _create(self, repo_id: str) -> None:
        try:
            self._api.create_repo(repo_id, private=True)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.CONFLICT:
                raise NameTaken from error
            raise

    async def upload(self, repo_id: str, operations: Sequence[File]) -> None:
        """Store the images' bytes; they belong to nothing before the commit, which needs the files no more."""
        with stage("upload"):
            await in_thread(partial(self._api.preupload_lfs_files, repo_id, operations))

    async def commit(
        self,
        repo_id: str,
        operations: Sequence[File],
        *,
        message: str,
        description: str,
        parent: str,
    ) -> str:
        """Make the one commit on top of `parent`, and return its id; raises Conflict where only a look can tell."""
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
            return self._api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                commit_description=description,
                parent_commit=parent,
            ).oid
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.PRECONDITION_FAILED:
                raise Conflict(reason_of(error)) from error
            raise

    async def delete(self, repo_id: str) -> None:
        """Delete a repo; one that is gone already is fine."""
        await in_thread(partial(self._api.delete_repo, repo_id, missing_ok=True))

    def close(self) -> None:
        """Close the connections, also those that a thread still waits on, and give the library its own client back."""
        set_client_factory(default_client_factory)
        self._client.close_for_good()


def _check_rights(who: dict[str, Any], namespace: str) -> None:
    """Raise Misconfigured if the token cannot write there, as far as it says so itself."""
    token = who.get("auth", {}).get("accessToken", {})
    roles = {org["name"]: org.get("roleInOrg") for org in who.get("orgs", [])}
    if token.get("role") == "read":
        raise Misconfigured("HF_TOKEN may only read: make a token with write access and set it.")
    if namespace not in {who["name"], *roles}:
        raise Misconfigured(
            f"HF_NAMESPACE is {namespace}, and the token belongs to {who['name']}, who is no member of it: "
            "set another namespace or another token."
        )
    if roles.get(namespace) == "read":
        raise Misconfigured(
            f"{who['name']} may only read in {namespace}: have the organization give a role that may write, or set "
            "another HF_NAMESPACE."
        )
    if token.get("role") == "fineGrained":
        rights = token.get("fineGrained", {})
        given = [
            permission
            for scope in rights.get("scoped", [])
            if scope.get("entity", {}).get("name") == namespace
            for permission in scope.get("permissions", [])
        ]
        if "repo.write" not in {*given, *rights.get("global", [])}:
            raise Misconfigured(
                f"HF_TOKEN may not write to the repos of {namespace}: edit the token and allow write access to all "
                f"repos under {namespace}."
            )
