"""Sessions: signing in, and the access and refresh tokens of a session."""

import secrets
from typing import Any

from psycopg import sql

from watcher.sandbox.auth.knobs import Knobs
from watcher.sandbox.auth.users import AuthError, as_admin, matches, user_of
from watcher.sandbox.database import Cursor, Database
from watcher.sandbox.keys import Keys

_REUSE_SECONDS = 10


_CHOSEN = {
    "local": sql.SQL("id = %(session)s"),
    "others": sql.SQL("id is distinct from %(session)s"),
    "global": sql.SQL("true"),
}


class Sessions:
    """The sessions of one project's users; `issuer` is the URL that goes into tokens."""

    def __init__(self, database: Database, keys: Keys, knobs: Knobs) -> None:
        self._database = database
        self._keys = keys
        self._knobs = knobs

    async def sign_in(self, email: str | None, password: str | None, issuer: str) -> dict[str, Any]:
        """Open a session. Raises `AuthError`."""
        wrong = AuthError(400, "invalid_credentials", "Invalid login credentials")
        if email is None or password is None:
            raise wrong
        async with as_admin(self._database, "finding user") as cursor:
            await cursor.execute(
                "select id::text, encrypted_password, email_confirmed_at from auth.users where email = %s",
                [email.lower()],
            )
            row = await cursor.fetchone()
        if row is None or not matches(password, row[1]):
            raise wrong
        if row[2] is None:
            raise AuthError(400, "email_not_confirmed", "Email not confirmed")
        return await self.open(row[0], issuer)

    async def open(self, user_id: str, issuer: str, method: str = "password") -> dict[str, Any]:
        """Open a session for a user who signed in by this method, and return GoTrue's answer."""
        async with as_admin(self._database, "granting user") as cursor:
            await cursor.execute("update auth.users set last_sign_in_at = now() where id = %s", [user_id])
            await cursor.execute(
                """
                insert into auth.sessions (id, user_id, created_at, updated_at)
                values (gen_random_uuid(), %s, now(), now()) returning id::text
                """,
                [user_id],
            )
            row = await cursor.fetchone()
            assert row is not None
            return await self._session(cursor, user_id, row[0], None, issuer, method=method)

    async def refresh(self, token: str | None, issuer: str) -> dict[str, Any]:
        """Exchange a refresh token for the session's next one.

        The token before the current one, and any within 10 s of its use, is accepted, since two tabs may refresh at the
        same time. An older one may have been stolen: it revokes all refresh tokens of the session, which itself lasts
        until its access token expires. Raises `AuthError`.
        """
        async with as_admin(self._database, "refreshing token") as cursor:
            await cursor.execute(
                """
                select user_id, session_id::text, revoked,
                       updated_at > now() - make_interval(secs => %s),
                       (select current.token from auth.refresh_tokens current
                         where current.session_id = used.session_id and not current.revoked
                           and current.parent = used.token)
                from auth.refresh_tokens used where token = %s for update
                """,
                [_REUSE_SECONDS, token],
            )
            row = await cursor.fetchone()
            if row is None:
                raise AuthError(
                    400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found"
                )
            user_id, session, revoked, recent, successor = row
            if not revoked:
                await cursor.execute(
                    "update auth.refresh_tokens set revoked = true, updated_at = now() where token = %s",
                    [token],
                )
                return await self._session(cursor, user_id, session, token, issuer)
            if successor or recent:
                return await self._session(cursor, user_id, session, token, issuer, current=successor)
            await cursor.execute(
                """
                update auth.refresh_tokens set revoked = true, updated_at = now()
                where session_id = %s and not revoked
                """,
                [session],
            )
        raise AuthError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")

    async def close(self, user_id: str, session: str | None, scope: str) -> None:
        """End sessions of a user: this one (`local`), the `others`, or all (`global`)."""
        query = sql.SQL("delete from auth.sessions where user_id = %(user)s and {}").format(_CHOSEN[scope])
        async with as_admin(self._database, "closing session") as cursor:
            await cursor.execute(query, {"user": user_id, "session": session})

    async def is_open(self, session: str) -> bool:
        """Return whether a session exists."""
        async with as_admin(self._database, "finding session") as cursor:
            await cursor.execute("select 1 from auth.sessions where id = %s", [session])
            return cursor.rowcount == 1

    async def _session(
        self,
        cursor: Cursor,
        user_id: str,
        session: str,
        parent: str | None,
        issuer: str,
        *,
        current: str | None = None,
        method: str = "password",
    ) -> dict[str, Any]:
        """Return GoTrue's answer for a session, with the refresh token `current` or else a new one."""
        token = current or secrets.token_hex(6)
        if current is None:
            await cursor.execute(
                """
                insert into auth.refresh_tokens
                    (token, user_id, revoked, parent, session_id, created_at, updated_at)
                values (%s, %s, false, %s, %s, now(), now())
                """,
                [token, user_id, parent, session],
            )
        await cursor.execute("update auth.sessions set refreshed_at = now() where id = %s", [session])
        await cursor.execute("select floor(extract(epoch from now()))::bigint")
        row = await cursor.fetchone()
        assert row is not None
        user, now, seconds = await user_of(cursor, user_id), int(row[0]), self._knobs.session_seconds
        claims = {
            "iss": issuer,
            "sub": user_id,
            "aud": user["aud"],
            "exp": now + seconds,
            "iat": now,
            "email": user["email"],
            "phone": user["phone"],
            "app_metadata": user["app_metadata"],
            "user_metadata": user["user_metadata"],
            "role": user["role"],
            "aal": "aal1",
            "amr": [{"method": method, "timestamp": now}],
            "session_id": session,
            "is_anonymous": False,
        }
        return {
            "access_token": self._keys.sign(claims),
            "token_type": "bearer",
            "expires_in": seconds,
            "expires_at": now + seconds,
            "refresh_token": token,
            "user": user,
        }
