"""The repo on the Hub: look, create, upload, commit, delete.

Each is safe to do twice, since huggingface_hub blocks, its threads cannot be cancelled, and an answer can be lost.
"""

import asyncio
import errno
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory, hf_request_event_hook, parse_ratelimit_headers

from watcher.errors import Misconfigured, Outage, Permanent, Transient, WatcherError
from watcher.publication import names_row

T = TypeVar("T")

# The Hub itself ends a request after 60 to 120 s.
_TIMEOUT = httpx2.Timeout(connect=10, read=130, write=60, pool=130)


@dataclass(frozen=True, slots=True)
class Look:
    """What the Hub has under a name.

    `absent`: nothing. `empty`: a private repo with its initial commit alone, whose id is `sha`. `ours`: published by
    this row, in commit `sha`. `foreign`: anything else; never to be written to.
    """

    state: Literal["absent", "empty", "ours", "foreign"]
    sha: str = ""


class NameTaken(Exception):
    """The Hub has a repo of that name already; whose it is, a look will tell."""


class Conflict(Exception):
    """The commit may have landed, or another one did: look before trying again."""


class Hub:
    """The Hub under one token. What blocks runs in a thread; see `_in_thread` about cancelling."""

    def __init__(self, *, endpoint: str, token: str, namespace: str | None) -> None:
        """Nothing is asked of the Hub before `first_look`, which settles the namespace if None is given."""
        self._endpoint = endpoint
        self._namespace = namespace
        self._client = _Client(
            httpx2.URL(endpoint).host,
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
            timeout=_TIMEOUT,
        )
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
        who = await _in_thread(self._whoami)
        role = who.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise Misconfigured("HF_TOKEN may only read: make a token with write access and set it.")
        if self._namespace is None:
            self._namespace = who["name"]
        elif self._namespace not in {who["name"], *(org["name"] for org in who.get("orgs", []))}:
            raise Misconfigured(
                f"HF_NAMESPACE is {self._namespace}, and the token belongs to {who['name']}, who is no member of it: "
                "set another namespace or another token."
            )

    def _whoami(self) -> dict[str, Any]:
        who = self._api.whoami()
        if not isinstance(who, dict) or "name" not in who:
            raise Transient("The Hub's answer about the token came in garbled.")
        return who

    async def look(self, repo_id: str, identity_id: str) -> Look:
        """Say what the Hub has under a name, from the point of view of one row."""
        return await _in_thread(partial(self._look, repo_id, identity_id))

    def _look(self, repo_id: str, identity_id: str) -> Look:
        try:
            # The newest first.
            commits = self._api.list_repo_commits(repo_id)
            if len(commits) > 1:
                ours = names_row(commits[-2].message, identity_id)
                return Look("ours", commits[-2].commit_id) if ours else Look("foreign")
            info = self._api.repo_info(repo_id)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return Look("absent")
            raise
        if not commits:
            return Look("absent")  # not to be seen yet
        return Look("empty", commits[0].commit_id) if info.private else Look("foreign")

    async def create(self, repo_id: str, *, check: Callable[[], None] = lambda: None) -> None:
        """Create a private repo; raises NameTaken, and what `check` raises when it is this creation's turn."""
        async with self._creating:
            check()
            await _in_thread(partial(self._create, repo_id))

    def _create(self, repo_id: str) -> None:
        try:
            self._api.create_repo(repo_id, private=True)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.CONFLICT:
                raise NameTaken from error
            raise

    async def upload(self, repo_id: str, operations: Sequence[CommitOperationAdd]) -> None:
        """Store the files' bytes, as far as they go by LFS; they belong to nothing before the commit."""
        await _in_thread(partial(self._api.preupload_lfs_files, repo_id, operations))

    async def commit(
        self,
        repo_id: str,
        operations: Sequence[CommitOperationAdd],
        *,
        message: str,
        description: str,
        parent: str,
    ) -> str:
        """Make the one commit on top of `parent`, and return its id; raises Conflict where only a look can tell."""
        return await _in_thread(partial(self._commit, repo_id, operations, message, description, parent))

    def _commit(
        self,
        repo_id: str,
        operations: Sequence[CommitOperationAdd],
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
                raise Conflict(_said(error)) from error
            raise

    async def delete(self, repo_id: str) -> None:
        """Delete a repo; one that is gone already is fine."""
        await _in_thread(partial(self._api.delete_repo, repo_id, missing_ok=True))

    def close(self) -> None:
        """Close the connections, also those that a thread still waits on, and give the library its own client back."""
        set_client_factory(default_client_factory)
        self._client.close_for_good()


class _Client(httpx2.Client):
    """The client that huggingface_hub 2.4.0 shares between all its threads, with four of its habits kept from it.

    Its http_backoff closes the shared client on a ConnectError, under every other thread: `close` does nothing.
    It sleeps through a 429, five times up to five minutes and deaf to cancelling: that answer is raised at once.
    Its create_repo asks again without a pause while another creation is under way: likewise.
    It tries again after a 5xx, up to 23 s for each of our own tries: likewise.
    """

    def __init__(self, hub: str, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        response = super().send(request, **options)
        if response.is_error and request.url.host != self._hub:
            # The store behind the Hub: a link that grew old or an upload that stalled, whatever the status.
            response.read()
            raise Transient(f"The Hub's store could not do it just now: HTTP {response.status_code}")
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            response.read()
            raise Transient(
                f"The Hub asks for patience: {_body(response)}", retry_after=_retry_after(response)
            )
        if response.status_code == httpx2.codes.CONFLICT:
            response.read()
            if "conflicting operation" in response.text:
                raise Transient("The Hub is creating another repo for this user.")
        if response.is_server_error:
            response.read()
            raise Transient(
                f"The Hub could not do it just now: {_body(response)} (HTTP {response.status_code})",
                retry_after=_retry_after(response),
            )
        return response

    def close(self) -> None:
        """Do nothing; see `close_for_good`."""

    def close_for_good(self) -> None:
        super().close()


async def _in_thread(operation: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own, with the Hub's errors translated.

    If the caller is cancelled, the thread goes on and nobody waits for it, at exit neither.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_result: Callable[[Any], None], value: object) -> None:
        if not done.done():
            set_result(value)

    def run() -> None:
        try:
            outcome = partial(settle, done.set_result, operation())
        except BaseException as error:  # noqa: BLE001  (it is raised again where it is awaited)
            outcome = partial(settle, done.set_exception, error)
        try:
            loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            return  # the loop is closed: the program is ending

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        return await done
    except Exception as error:
        translated = _translate(error)
        if translated is error:
            raise
        raise translated from None  # it may be a cause of what huggingface_hub made of it


def _translate(error: Exception) -> Exception:
    """Sort what huggingface_hub raises; the reason is often only in the cause of what it raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WatcherError | NameTaken | Conflict):
            return cause
        if isinstance(cause, HfHubHTTPError):
            return _sorted(cause)
        if isinstance(cause, httpx2.HTTPError | httpx2.StreamError | json.JSONDecodeError):
            return Transient(f"The Hub could not be reached: {str(cause) or type(cause).__name__}")
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Outage(f"This host has no room: {cause.strerror}.")
        cause = cause.__cause__
    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return Permanent("hub_refused", f"The Hub refuses the model card: {error}")
    if isinstance(error, ValueError | RuntimeError | OSError):
        return Transient(f"The upload failed: {error}")
    return error


def _sorted(error: HfHubHTTPError) -> WatcherError:
    status, said = error.response.status_code, _said(error)
    if status == httpx2.codes.UNAUTHORIZED:
        return Outage(f"The Hub refused the token: {said}. Set HF_TOKEN to one that is valid and may write.")
    if status in {httpx2.codes.PAYMENT_REQUIRED, httpx2.codes.FORBIDDEN}:
        return Outage(f"The Hub refuses to store anything for this token: {said}")
    if "LFS pointer pointed to a file that does not exist" in said:
        return Transient(f"The Hub has lost an uploaded image: {said}")
    if status in {
        httpx2.codes.BAD_REQUEST,
        httpx2.codes.CONTENT_TOO_LARGE,
        httpx2.codes.UNPROCESSABLE_CONTENT,
    }:
        return Permanent("hub_refused", f"The Hub refuses what was sent: {said}")
    return Transient(f"The Hub could not do it just now: {said}", retry_after=_retry_after(error.response))


def _said(error: HfHubHTTPError) -> str:
    return f"{error.server_message or _body(error.response)} (HTTP {error.response.status_code})"


def _body(response: httpx2.Response) -> str:
    return (response.text.strip() or response.reason_phrase)[:300]


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds; the budget's reset where that is what ran out, else the header as a number (a date is not read)."""
    budget = parse_ratelimit_headers(response.headers)
    if budget is not None and budget.remaining == 0:
        return float(budget.reset_in_seconds)
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
