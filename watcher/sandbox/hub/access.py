"""Who may do what on the Hub: tokens, users, organisations; and what a caller without the right is told."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from starlette.requests import Request

from watcher.sandbox.hub.errors import HubError
from watcher.sandbox.hub.store import Repo


@dataclass(frozen=True)
class User:
    """Whose a token is, and what the token may. One user may have several tokens."""

    name: str
    role: Literal["read", "write", "fineGrained"] = "write"
    permissions: tuple[str, ...] = ()
    """Of a fine-grained token, for example `repo.write`; they hold for the user and all orgs of the user."""
    orgs: Mapping[str, Literal["admin", "write", "contributor", "read"]] = field(default_factory=dict)
    """The user's role in each organisation."""

    def may_read(self, repo: Repo) -> bool:
        """Whether a private repo shows itself."""
        scoped = self.role != "fineGrained" or bool(
            {"repo.content.read", "repo.write"} & set(self.permissions)
        )
        return scoped and (repo.namespace == self.name or repo.namespace in self.orgs)

    def may_write(self, namespace: str) -> bool:
        """Whether repos there may be created, changed and deleted."""
        if self.role == "read" or (self.role == "fineGrained" and "repo.write" not in self.permissions):
            return False
        return namespace == self.name or self.orgs.get(namespace, "read") != "read"


class Access:
    """The tokens that are valid now; safe from any thread."""

    def __init__(self, users: Mapping[str, User]) -> None:
        """Takes the users by token."""
        self._lock = threading.Lock()
        self._users = dict(users)
        self._lessened: dict[str, User | None] = {}

    def revoke(self, token: str) -> None:
        """Refuse the token from now on; LookupError if there is none such."""
        with self._lock:
            self._known(token)
            self._lessened[token] = None

    def take_writing(self, token: str) -> None:
        """Let the token only read from now on; LookupError if there is none such."""
        with self._lock:
            self._lessened[token] = replace(self._known(token), role="read")

    def restore(self, token: str) -> None:
        """Give the token back what it could; LookupError if there is none such."""
        with self._lock:
            self._known(token)
            self._lessened.pop(token, None)

    def reset(self) -> None:
        """Give all tokens back what they could."""
        with self._lock:
            self._lessened.clear()

    def user(self, request: Request) -> User | None:
        """Who asks; None without a token. A token that is not valid is refused, even where none is needed."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return None
        with self._lock:
            user = self._lessened.get(token, self._users.get(token))
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def _known(self, token: str) -> User:
        if token not in self._users:
            raise LookupError("no such token")
        return self._users[token]


def whoami(user: User) -> dict[str, Any]:
    """What /api/whoami-v2 says."""
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
                    "entity": {"_id": f"{name.encode().hex():0>24.24}", "type": kind, "name": name},
                    "permissions": list(user.permissions),
                }
                for kind, name in entities
            ],
        }
    return {
        "type": "user",
        "id": f"{user.name.encode().hex():0>24.24}",
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
                "id": f"{org.encode().hex():0>24.24}",
                "name": org,
                "fullname": org,
                "roleInOrg": role,
            }
            for org, role in user.orgs.items()
        ],
        "auth": {"type": "access_token", "accessToken": token},
    }
