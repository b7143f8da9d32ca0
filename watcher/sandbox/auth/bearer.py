"""Who sends a request: the bearer token's claims, and the user and the session that they name."""

from collections.abc import Mapping
from typing import Any

import jwt
from starlette.requests import Request

from watcher.sandbox.auth.parse import user_id
from watcher.sandbox.auth.sessions import Sessions
from watcher.sandbox.auth.users import AuthError, User, Users
from watcher.sandbox.keys import Keys

_ADMINS = {"service_role", "supabase_admin"}


class Bearer:
    """The bearers of tokens."""

    def __init__(self, keys: Keys, users: Users, sessions: Sessions) -> None:
        self._keys = keys
        self._users = users
        self._sessions = sessions

    def claims(self, request: Request) -> Mapping[str, Any]:
        """Return the token's claims; raises AuthError if there is no valid one."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        unverified = "invalid JWT: unable to parse or verify signature, "
        try:
            return self._keys.verify(token)
        except jwt.ExpiredSignatureError as error:
            raise AuthError(
                403, "bad_jwt", unverified + "token has invalid claims: token is expired"
            ) from error
        except jwt.InvalidSignatureError as error:
            invalid = "token signature is invalid: signature is invalid"
            raise AuthError(403, "bad_jwt", unverified + invalid) from error
        except jwt.PyJWTError as error:
            malformed = "token is malformed: token contains an invalid number of segments"
            raise AuthError(403, "bad_jwt", unverified + malformed) from error

    def require_admin(self, request: Request) -> None:
        """Raise AuthError unless the token is an admin's, such as the secret key's."""
        if self.claims(request).get("role") not in _ADMINS:
            raise AuthError(403, "not_admin", "User not allowed")

    async def signed_in(self, request: Request) -> tuple[User, Mapping[str, Any]]:
        """Return the user whose token it is, and its claims; raises AuthError if the session is closed."""
        claims = self.claims(request)
        subject = claims.get("sub")
        if not subject:
            raise AuthError(403, "bad_jwt", "invalid claim: missing sub claim")
        user = await self._users.find(user_id(str(subject)))
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        session = claims.get("session_id")
        if session and not await self._sessions.is_open(session):
            gone = "Session from session_id claim in JWT does not exist"
            raise AuthError(403, "session_not_found", gone)
        return user, claims
