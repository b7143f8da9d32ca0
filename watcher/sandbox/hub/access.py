"""The Hub's tokens, users and organisations, and what each may do."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from starlette.requests import Request

from watcher.sandbox.hub.errors import HubError
from watcher.sandbox.hub.store import Repo


@dataclass(frozen=True)
class User:
    """The user of a token, and what the token may do. A user can have several tokens."""

    name: str
    role: Literal["read", "write", "fineGrained"] = "write"
    permissions: tuple[str, ...] = ()
    """Those of a fine-grained token, such as `repo.write`, for the user and all organisations of the user."""
    orgs: Mapping[str, Literal["admin", "write", "contributor", "read"]] = field(default_factory=dict)
    """The user's role in each organisation."""

    def may_read(self, repo: Repo) -> bool:
        """Return whether a private repo is visible."""
        scoped = self.role != "fineGrained" or bool(
            {"repo.content.read", "repo.write"} & set(self.permissions)
        )
        return scoped and (repo.namespace == self.name or repo.namespace in self.orgs)

    def may_write(self, namespace: str) -> bool:
        """Return whether repos in the namespace may be created, changed and deleted."""
        return self._may_change(namespace, "repo.write")

    def may_run_jobs(self, namespace: str) -> bool:
        """Return whether jobs in the namespace may be run and cancelled."""
        return self._may_change(namespace, "job.write")

    def may_see_jobs(self, namespace: str) -> bool:
        """Return whether jobs in the namespace, with their environment and logs, are visible."""
        scoped = self.role != "fineGrained" or "job.write" in self.permissions
        return scoped and (namespace == self.name or namespace in self.orgs)

    def _may_change(self, namespace: str, permission: str) -> bool:
        if self.role == "read" or (self.role == "fineGrained" and permission not in self.permissions):
            return False
        return namespace == self.name or self.orgs.get(namespace, "read") != "read"


class Access:
    """The valid tokens; safe from any thread."""

    def __init__(self, users: Mapping[str, User]) -> None:
        """Take the users by token."""
        self._lock = threading.Lock()
        self._users = dict(users)
        self._restricted: dict[str, User | None] = {}
        self._gated: set[str] = set()

    def add(self, token: str, user: User) -> None:
        """Accept one more token, of a user who may have others."""
        with self._lock:
            self._users[token] = user

    def revoke(self, token: str) -> None:
        """Refuse the token from now on; LookupError for an unknown one."""
        with self._lock:
            self._known(token)
            self._restricted[token] = None

    def take_writing(self, token: str) -> None:
        """Make the token read-only from now on; LookupError for an unknown one."""
        with self._lock:
            self._restricted[token] = replace(self._known(token), role="read")

    def gate(self, repo: str) -> None:
        """Close the files of a repo to everybody but its owner, who has not accepted its conditions."""
        with self._lock:
            self._gated.add(repo.lower())

    def is_gated(self, repo: str) -> bool:
        """Return whether the files of a repo are closed."""
        with self._lock:
            return repo.lower() in self._gated

    def restore(self, token: str) -> None:
        """Restore a revoked or read-only token; LookupError for an unknown one."""
        with self._lock:
            self._known(token)
            self._restricted.pop(token, None)

    def reset(self) -> None:
        """Restore all tokens, and open all repos."""
        with self._lock:
            self._restricted.clear()
            self._gated.clear()

    @property
    def owner(self) -> User:
        """The user of the first token, as whom the pages for a browser are shown."""
        return next(iter(self._users.values()))

    def is_namespace(self, name: str) -> bool:
        """Return whether there is a user or an organisation of that name."""
        with self._lock:
            return any(name == user.name or name in user.orgs for user in self._users.values())

    def user(self, request: Request) -> User | None:
        """Return the caller; None without a token. An invalid token is refused, even where none is needed."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return None
        with self._lock:
            user = self._restricted.get(token, self._users.get(token))
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def _known(self, token: str) -> User:
        if token not in self._users:
            raise LookupError("no such token")
        return self._users[token]


def id_of(name: str) -> str:
    """Return the id of a user or an organisation, in the form that the Hub's have."""
    return f"{name.encode().hex():0>24.24}"


def whoami(user: User) -> dict[str, Any]:
    """Return the answer of /api/whoami-v2."""
    token: dict[str, Any] = {
        "displayName": "sandbox",
        "role": user.role,
        "createdAt": "2025-01-01T00:00:00.000Z",
    }
    if user.role == "fineGrained":
        entities = [("user", user.name), *(("org", org) for org in user.orgs)]
        token["fineGrained"] = {
            "canReadGatedRepos": False,
            "global": [],
            "scoped": [
                {
                    "entity": {"_id": id_of(name), "type": kind, "name": name},
                    "permissions": list(user.permissions),
                }
                for kind, name in entities
            ],
        }
    return {
        "type": "user",
        "id": id_of(user.name),
        "name": user.name,
        "fullname": user.name,
        "isPro": False,
        "canPay": False,
        "periodEnd": None,
        "emailVerified": True,
        "avatarUrl": "",
        "orgs": [
            {
                "type": "org",
                "id": id_of(org),
                "name": org,
                "fullname": org,
                "roleInOrg": role,
            }
            for org, role in user.orgs.items()
        ],
        "auth": {"type": "access_token", "accessToken": token},
    }
