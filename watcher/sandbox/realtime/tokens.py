"""A channel's token: whose it is, and what Realtime says of one that it does not take."""

import time
from typing import Any

import jwt

from watcher.sandbox.keys import Keys


class TokenError(Exception):
    """The token is refused; the message is that of a system frame."""

    def __init__(self, message: str, *, handshake: str, code: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.handshake = handshake
        """What the answer to a handshake says."""
        self.reason = f"{code}: {reason or message}"
        """What the answer to a join says."""


def verify(keys: Keys, token: str) -> dict[str, Any]:
    """Return the claims of `token`. Raises `TokenError`."""
    try:
        claims = keys.verify(token)
    except jwt.ExpiredSignatureError as error:
        late = -seconds_left(jwt.decode(token, options={"verify_signature": False}))
        message = f"Token has expired {late} seconds ago"
        raise TokenError(message, handshake="Token has expired", code="InvalidJWTToken") from error
    except jwt.InvalidSignatureError as error:
        said = "Failed to validate JWT signature"
        raise TokenError(":signature_error", handshake=said, code="JwtSignatureError", reason=said) from error
    except jwt.PyJWTError as error:
        message = "The token provided is not a valid JWT"
        raise TokenError(message, handshake=message, code="MalformedJWT") from error
    if not {"role", "exp"} <= claims.keys():
        message = "Fields `role` and `exp` are required in JWT"
        raise TokenError(message, handshake=message, code="InvalidJWTToken")
    return claims


def seconds_left(claims: dict[str, Any]) -> int:
    """Return for how long the token of these claims is still good; less than 0 when it is not."""
    return int(claims["exp"]) - int(time.time())  # noqa: TID251 - an expiry is a time of day
