"""What the Hub's routes share: its state, the repo of a path with the caller's rights, revisions and pages."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.requests import Request

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.hub.access import Access, User
from watcher.sandbox.hub.bases import base
from watcher.sandbox.hub.errors import (
    HubError,
    bad_request,
    gated_repo,
    repo_not_found,
    revision_not_found,
)
from watcher.sandbox.hub.features import not_served
from watcher.sandbox.hub.jobs import Jobs
from watcher.sandbox.hub.knobs import Knobs
from watcher.sandbox.hub.store import Commit, Kind, Repo, Store

NO_WRITE = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"


@dataclass(frozen=True)
class State:
    """The parts of a Hub."""

    store: Store
    access: Access
    knobs: Knobs
    jobs: Jobs
    secret: bytes
    """Signs the URLs of LFS objects."""
    page_size: int
    committing: asyncio.Lock = field(default_factory=asyncio.Lock)


def state(request: Request) -> State:
    """Return the state of the Hub that got the request."""
    return cast("State", request.app.state.hub)


def readable(request: Request) -> Repo:
    """Return the repo of the path, if it is visible to the caller."""
    return _find(request)[1]


def writable(request: Request, refusal: str = NO_WRITE) -> tuple[User, Repo]:
    """Return the caller and the repo of the path. `refusal` is the message of the 403 for a caller without the right."""
    user, repo = _find(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if request.query_params.get("create_pr"):  # there, whoever can read a repo can open one
        raise HubError(STATUS, Absent.HUB_PULL_REQUESTS.sentence)
    if not user.may_write(repo.namespace):
        raise HubError(403, refusal)
    return user, repo


def find(request: Request, user: User | None, kind: Kind, name: str) -> Repo:
    """Return the repo of that name, if it is visible to the user."""
    hub = state(request)
    repo = hub.store.repo(kind, name) or base(hub.store, kind, name)
    visible = repo is not None and (not repo.private or (user is not None and user.may_read(repo)))
    if repo is None or not visible or hub.knobs.hidden(repo.id):
        raise repo_not_found(anonymous=user is None)
    return repo


def opened(request: Request) -> Repo:
    """Return the repo of the path, if its files are open to the caller: a gated repo is visible, and its files are not."""
    user, repo = _find(request)
    if state(request).access.is_gated(repo.name) and (user is None or user.name != repo.namespace):
        raise gated_repo(repo.name)
    return repo


def commit_of(request: Request, repo: Repo) -> Commit:
    """Return the commit of the revision in the path, or else the head."""
    revision = request.path_params.get("revision", "main")
    commit = state(request).store.find_commit(repo, revision)
    if commit is None:
        raise revision_not_found(revision)
    return commit


def only_main(request: Request) -> None:
    """Refuse other branches."""
    if request.path_params["revision"] not in {"main", "refs/heads/main"}:
        raise revision_not_found(request.path_params["revision"])


def repo_url(request: Request, repo: Repo) -> str:
    """Return the URL of the repo's page."""
    return f"{str(request.base_url).rstrip('/')}/{'datasets/' if repo.kind == 'datasets' else ''}{repo.name}"


def page(request: Request, items: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    """Return one page of the items, and the Link header with the next page."""
    try:
        size = min(int(request.query_params.get("limit", "1000")), state(request).page_size)
        start = int(request.query_params.get("cursor", "0"))
    except ValueError as error:
        raise bad_request("limit and cursor must be numbers") from error
    if start + size >= len(items):
        return items[start:], {}
    following = request.url.include_query_params(cursor=start + size)
    return items[start : start + size], {"Link": f'<{following}>; rel="next"'}


def _find(request: Request) -> tuple[User | None, Repo]:
    kind = request.path_params.get("kind", "models")
    if kind not in {"models", "datasets"}:
        raise not_served(request)
    user = state(request).access.user(request)
    return user, find(request, user, kind, "{namespace}/{name}".format_map(request.path_params))
