"""A project's JWT secret and API keys, and the caller that a token names."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Self

import jwt

# The Supabase CLI's secret on every developer's machine, which is public.
LOCAL_JWT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105 - public by design
_EXPIRES = 1983812996  # as in the CLI's own keys: the year 2032


@dataclass(frozen=True)
class Caller:
    """The Postgres role in which a request runs, and the claims of its token."""

    role: str = "anon"
    claims: Mapping[str, Any] = field(default_factory=lambda: {"role": "anon"})

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Return the caller that `claims` name; without a role it is anon."""
        role = str(claims.get("role") or "anon")
        return cls(role, {**claims, "role": role})


@dataclass(frozen=True)
class Keys:
    """The keys of a project, all derived from its JWT secret."""

    jwt_secret: str = field(default=LOCAL_JWT_SECRET, repr=False)

    @cached_property
    def publishable(self) -> str:
        """The key for frontends."""
        return self._opaque("sb_publishable_")

    @cached_property
    def secret(self) -> str:
        """The key for servers only."""
        return self._opaque("sb_secret_")

    @cached_property
    def anon_jwt(self) -> str:
        """The legacy form of the publishable key."""
        return self.sign({"iss": "supabase-demo", "role": "anon", "exp": _EXPIRES})

    @cached_property
    def service_role_jwt(self) -> str:
        """The legacy form of the secret key."""
        return self.sign({"iss": "supabase-demo", "role": "service_role", "exp": _EXPIRES})

    def resolve(self, token: str) -> str:
        """Return the JWT for an opaque key; anything else is returned unchanged."""
        return {self.publishable: self.anon_jwt, self.secret: self.service_role_jwt}.get(token, token)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return `claims` as a JWT of this project."""
        return jwt.encode(dict(claims), self.jwt_secret, algorithm="HS256")

    def verify(self, token: str, *, leeway: int = 0) -> dict[str, Any]:
        """Return the claims of `token`, with a tolerance of `leeway` seconds. Raises `jwt.PyJWTError`."""
        claims = _decode(token, self.jwt_secret, leeway)
        if "exp" in claims and int(claims["exp"]) <= time.time() - leeway:  # noqa: TID251 - a time of day
            claims = _decode.__wrapped__(token, self.jwt_secret, leeway)  # raises
        return dict(claims)

    def _opaque(self, prefix: str) -> str:
        """Return a key in Supabase's format: the prefix, 22 characters, and a checksum of 8."""
        digest = hmac.digest(self.jwt_secret.encode(), prefix.encode(), hashlib.sha256)
        text = base64.urlsafe_b64encode(digest).decode()
        return f"{prefix}{text[:22]}_{text[22:30]}"


@lru_cache(maxsize=1000)
def _decode(token: str, secret: str, leeway: int) -> dict[str, Any]:
    """Return the claims of a token. Only valid ones are cached, and of those only `exp` has to be checked again."""
    claims: dict[str, Any] = jwt.decode(
        token,
        secret,
        algorithms=["HS256"],
        leeway=leeway,
        options={"verify_aud": False, "verify_sub": False, "verify_jti": False},
    )
    return claims
