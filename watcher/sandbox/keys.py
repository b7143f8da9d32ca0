"""A project's keys: who signs tokens, what the API keys stand for, and who a token says is calling."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Self

import jwt

# What the Supabase CLI signs with on every developer's machine: known to all, and so never a secret.
LOCAL_JWT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - public by design
_EXPIRES = 1983812996  # as in the CLI's own keys: the year 2032


@dataclass(frozen=True)
class Caller:
    """In whose name a request runs: a Postgres role and all claims of the token."""

    role: str = "anon"
    claims: Mapping[str, Any] = field(default_factory=lambda: {"role": "anon"})

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Name the caller that `claims` speak of; without a role it is anon."""
        role = str(claims.get("role") or "anon")
        return cls(role, {**claims, "role": role})


SERVICE = Caller.of({"role": "service_role"})


@dataclass(frozen=True)
class Keys:
    """All keys of a project follow from its JWT secret, so the same secret always means the same keys."""

    jwt_secret: str = field(default=LOCAL_JWT_SECRET, repr=False)

    @cached_property
    def publishable(self) -> str:
        """The key a frontend may hold."""
        return self._opaque("sb_publishable_")

    @cached_property
    def secret(self) -> str:
        """The key only a server may hold."""
        return self._opaque("sb_secret_")

    @cached_property
    def anon_jwt(self) -> str:
        """The publishable key's older form."""
        return self.sign({"iss": "supabase-demo", "role": "anon", "exp": _EXPIRES})

    @cached_property
    def service_role_jwt(self) -> str:
        """The secret key's older form."""
        return self.sign({"iss": "supabase-demo", "role": "service_role", "exp": _EXPIRES})

    def resolve(self, token: str) -> str:
        """Return the JWT that an opaque key stands for; anything else comes back as it is."""
        return {self.publishable: self.anon_jwt, self.secret: self.service_role_jwt}.get(token, token)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return `claims` as a JWT of this project."""
        return jwt.encode(dict(claims), self.jwt_secret, algorithm="HS256")

    def verify(self, token: str, *, leeway: int = 0) -> dict[str, Any]:
        """Return the claims of `token`; its times may be off by `leeway` seconds. Raises `jwt.PyJWTError`."""
        claims = _decode(token, self.jwt_secret, leeway)
        if "exp" in claims and int(claims["exp"]) <= time.time() - leeway:  # noqa: TID251 - a time of day
            claims = _decode.__wrapped__(token, self.jwt_secret, leeway)  # which says so
        return dict(claims)

    def _opaque(self, prefix: str) -> str:
        """Return a key as Supabase writes them: prefix, 22 characters, and 8 to tell a typing error by."""
        digest = hmac.digest(self.jwt_secret.encode(), prefix.encode(), hashlib.sha256)
        text = base64.urlsafe_b64encode(digest).decode()
        return f"{prefix}{text[:22]}_{text[22:30]}"


@lru_cache(maxsize=1000)
def _decode(token: str, secret: str, leeway: int) -> dict[str, Any]:
    """Return the claims of a token, remembered once it was good: from then on only `exp` can make it bad."""
    claims: dict[str, Any] = jwt.decode(
        token,
        secret,
        algorithms=["HS256"],
        leeway=leeway,
        options={"verify_aud": False, "verify_sub": False, "verify_jti": False},
    )
    return claims
