"""Users and their passwords, in GoTrue's schema `auth`."""

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import sql

from watcher.sandbox.database import Cursor, Database

_log = logging.getLogger(__name__)
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_EMAIL = re.compile(rf"[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*")  # as in HTML
_UTC = sql.Literal('YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
_USER = sql.SQL("""
select json_strip_nulls(json_build_object(
    'id', id, 'aud', aud, 'role', role, 'email', email,
    'email_confirmed_at', to_char(email_confirmed_at at time zone 'utc', {utc}),
    'confirmation_sent_at', to_char(confirmation_sent_at at time zone 'utc', {utc}),
    'recovery_sent_at', to_char(recovery_sent_at at time zone 'utc', {utc}),
    'phone', coalesce(phone, ''),
    'confirmed_at', to_char(confirmed_at at time zone 'utc', {utc}),
    'last_sign_in_at', to_char(last_sign_in_at at time zone 'utc', {utc}),
    'app_metadata', raw_app_meta_data,
    'user_metadata', raw_user_meta_data,
    'identities', coalesce((
        select json_agg(json_build_object(
            'identity_id', i.id, 'id', i.provider_id, 'user_id', i.user_id, 'identity_data', i.identity_data,
            'provider', i.provider, 'email', i.email,
            'last_sign_in_at', to_char(i.last_sign_in_at at time zone 'utc', {utc}),
            'created_at', to_char(i.created_at at time zone 'utc', {utc}),
            'updated_at', to_char(i.updated_at at time zone 'utc', {utc})))
        from auth.identities i where i.user_id = users.id), '[]'),
    'created_at', to_char(created_at at time zone 'utc', {utc}),
    'updated_at', to_char(updated_at at time zone 'utc', {utc}),
    'is_anonymous', is_anonymous))
from auth.users
""").format(utc=_UTC)

_FORGET = """
update auth.users set email = encode(sha256((id::text || email)::bytea), 'base64'), encrypted_password = null,
    confirmation_token = '', recovery_token = '', raw_user_meta_data = '{}', raw_app_meta_data = '{}',
    deleted_at = coalesce(deleted_at, now())
where id = %(id)s
"""
_FORGET_IDENTITIES = """
update auth.identities set identity_data = '{}', provider_id = encode(sha256(provider_id::bytea), 'base64')
where user_id = %(id)s
"""

User = dict[str, Any]


class AuthError(Exception):
    """A refusal: the HTTP status, GoTrue's error code, the message, and further fields of the body."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.more = more


def _hash(password: str, salt: str) -> str:
    """Return a hash; it blocks the loop for 10 ms, which is short enough."""
    return hashlib.scrypt(password.encode(), salt=salt.encode(), n=4096, r=8, p=1, dklen=32).hex()


def _hashed(password: str) -> str:
    salt = secrets.token_hex(8)
    return f"$scrypt${salt}${_hash(password, salt)}"


def matches(password: str, hashed: str | None) -> bool:
    """Return whether `hashed` is a hash of `password`."""
    if not hashed or not hashed.startswith("$scrypt$"):
        return False
    _, _, salt, digest = hashed.split("$")
    return hmac.compare_digest(digest, _hash(password, salt))


def checked(email: str | None) -> str:
    """Return an address in lower case; raises `AuthError` for what is none."""
    if not email:
        raise AuthError(400, "validation_failed", "An email address is required")
    if not _EMAIL.fullmatch(email):
        raise AuthError(400, "validation_failed", "Unable to validate email address: invalid format")
    return email.lower()


def _strong(password: str) -> str:
    if len(password) < 6:
        reasons = {"reasons": ["length"]}
        raise AuthError(
            422, "weak_password", "Password should be at least 6 characters.", weak_password=reasons
        )
    return password


@asynccontextmanager
async def as_admin(database: Database, doing: str) -> AsyncIterator[Cursor]:
    """Open a transaction as GoTrue's own role; triggers on auth.users run with its rights.

    Raises `AuthError` without Postgres's message, which is only logged, as in GoTrue.
    """
    try:
        async with database.admin() as cursor:
            await cursor.execute("set local role supabase_auth_admin; set local search_path = auth")
            yield cursor
    except psycopg.Error as error:
        _log.warning("error %s: %s", doing, error)
        raise AuthError(500, "unexpected_failure", f"Database error {doing}") from error


async def user_of(cursor: Cursor, user_id: str) -> User:
    """Return a user that exists."""
    await cursor.execute(_USER + sql.SQL("where id = %s"), [user_id])
    row = await cursor.fetchone()
    assert row is not None
    user: User = row[0]
    return user


class Users:
    """The users of one project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        email: str | None,
        password: str | None,
        *,
        confirmed: bool,
        user_metadata: Mapping[str, Any] | None = None,
        app_metadata: Mapping[str, Any] | None = None,
        user_id: str | None = None,
    ) -> User:
        """Create a user. Raises `AuthError`; `user_already_exists` if the address is taken."""
        address = checked(email)
        values = {
            "id": user_id,
            "email": address,
            "password": _hashed(_strong(password)) if password else "",
            "confirmed": confirmed,
            "user_metadata": json.dumps(user_metadata or {}),
            "app_metadata": json.dumps({"provider": "email", "providers": ["email"], **(app_metadata or {})}),
        }
        async with as_admin(self._database, "saving new user") as cursor:
            await cursor.execute("select 1 from auth.users where email = %s", [address])
            if cursor.rowcount:
                raise AuthError(422, "user_already_exists", "User already registered")
            await cursor.execute(
                """
                insert into auth.users (instance_id, id, aud, role, email, encrypted_password,
                    email_confirmed_at, raw_app_meta_data, raw_user_meta_data, created_at, updated_at)
                values ('00000000-0000-0000-0000-000000000000', coalesce(%(id)s, gen_random_uuid()),
                    'authenticated', 'authenticated', %(email)s, %(password)s,
                    case when %(confirmed)s then now() end, %(app_metadata)s, %(user_metadata)s, now(), now())
                returning id
                """,
                values,
            )
            row = await cursor.fetchone()
            assert row is not None
            user_id = str(row[0])
            identity = {
                "sub": user_id,
                "email": address,
                "email_verified": confirmed,
                "phone_verified": False,
            }
            await cursor.execute(
                """
                insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at,
                    created_at, updated_at)
                values (%(id)s::uuid::text, %(id)s::uuid, %(data)s, 'email', now(), now(), now())
                """,
                {"id": user_id, "data": json.dumps(identity)},
            )
            return await user_of(cursor, user_id)

    async def find(self, user_id: str) -> User | None:
        """Return a user, or None."""
        async with as_admin(self._database, "finding user") as cursor:
            await cursor.execute(_USER + sql.SQL("where id = %s"), [user_id])
            row = await cursor.fetchone()
            return row[0] if row else None

    async def find_by_email(self, email: str) -> User | None:
        """Return the user with an address, or None."""
        async with as_admin(self._database, "finding user") as cursor:
            await cursor.execute(_USER + sql.SQL("where email = %s"), [email.lower()])
            row = await cursor.fetchone()
            return row[0] if row else None

    async def page(self, page: int, per_page: int) -> tuple[list[User], int]:
        """Return one page of the users, newest first, and how many there are."""
        async with as_admin(self._database, "finding users") as cursor:
            await cursor.execute("select count(*) from auth.users")
            count = await cursor.fetchone()
            assert count is not None
            query = _USER + sql.SQL("order by created_at desc limit %s offset %s")
            await cursor.execute(query, [per_page, (page - 1) * per_page])
            return [row[0] for row in await cursor.fetchall()], int(count[0])

    async def update(
        self, user_id: str, *, password: str | None, email: str | None, metadata: Mapping[str, Any] | None
    ) -> User:
        """Change what is not None. Raises `AuthError`."""
        async with as_admin(self._database, "updating user") as cursor:
            if password is not None:
                await cursor.execute("select encrypted_password from auth.users where id = %s", [user_id])
                row = await cursor.fetchone()
                if row and matches(password, row[0]):
                    raise AuthError(
                        422, "same_password", "New password should be different from the old password."
                    )
                await cursor.execute(
                    "update auth.users set encrypted_password = %s where id = %s",
                    [_hashed(_strong(password)), user_id],
                )
            if email is not None:
                address = checked(email)
                await cursor.execute(
                    "select 1 from auth.users where email = %s and id <> %s", [address, user_id]
                )
                if cursor.rowcount:
                    taken = "A user with this email address has already been registered"
                    raise AuthError(422, "email_exists", taken)
                await cursor.execute("update auth.users set email = %s where id = %s", [address, user_id])
            await cursor.execute(
                """
                update auth.users set raw_user_meta_data = jsonb_strip_nulls(raw_user_meta_data || %s),
                    updated_at = now() where id = %s
                """,
                [json.dumps(metadata or {}), user_id],
            )
            return await user_of(cursor, user_id)

    async def soft_delete(self, user_id: str) -> bool:
        """Make a user unknown and keep the row, and what refers to it; return False if there is none."""
        async with as_admin(self._database, "soft deleting user") as cursor:
            await cursor.execute(_FORGET, {"id": user_id})
            found = cursor.rowcount == 1
            await cursor.execute(_FORGET_IDENTITIES, {"id": user_id})
            await cursor.execute("delete from auth.sessions where user_id = %s", [user_id])
            return found

    async def delete(self, user_id: str) -> bool:
        """Delete a user, and what refers to it; return False if there is none."""
        async with as_admin(self._database, "deleting user") as cursor:
            await cursor.execute("delete from auth.users where id = %s", [user_id])
            return cursor.rowcount == 1
