"""A channel's token: its claims, or Realtime's messages for one that it refuses."""

import time
from typing import Any

import jwt

from watcher.sandbox.keys import Keys


class TokenError(Exception):
    """The token is refused; the message is that of a system frame."""

    def __init__(self, message: str, *, handshake: str, code: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.handshake = handshake
        """The message in the answer to a handshake."""
        self.reason = f"{code}: {reason or message}"
        """The reason in the reply to a join."""


def verify(keys: Keys, token: str) -> dict[str, Any]:
    """Return the claims of `token`. Raises `TokenError`."""
    try:
        claims = keys.verify(token)
    except jwt.ExpiredSignatureError as error:
        left = seconds_left(jwt.decode(token, options={"verify_signature": False}))
        message = f"Token has expired {int(-left)} seconds ago"
        raise TokenError(message, handshake="Token has expired", code="InvalidJWTToken") from error
    except jwt.InvalidSignatureError as error:
        text = "Failed to validate JWT signature"
        raise TokenError(":signature_error", handshake=text, code="JwtSignatureError", reason=text) from error
    except jwt.PyJWTError as error:
        message = "The token provided is not a valid JWT"
        raise TokenError(message, handshake=message, code="MalformedJWT") from error
    if not {"role", "exp"} <= claims.keys():
        message = "Fields `role` and `exp` are required in JWT"
        raise TokenError(message, handshake=message, code="InvalidJWTToken")
    return claims


def seconds_left(claims: dict[str, Any]) -> float:
    """Return how long the token with these claims is still good; 0 or less once it has expired."""
    return float(claims["exp"]) - time.time()  # noqa: TID251 - an expiry is a time of day
