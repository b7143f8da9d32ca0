"""Links and codes that are mailed: to confirm an address, and to set a new password.

A link is for a browser, which it leads back to the app: with the session in the URL, or in the PKCE flow with a code that
is exchanged for it. PKCE's challenges are kept in memory, the rest in auth.users.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from psycopg import sql

from watcher.sandbox.auth.mailbox import Mail, Mailbox
from watcher.sandbox.auth.users import AuthError, User, as_admin
from watcher.sandbox.database import Database

SITE_URL = "http://localhost:3000"
"""Where a link leads that was asked for without `redirect_to`."""

_SECONDS = 3600
_PKCE = "pkce_"
_CHALLENGE = re.compile(r"[a-zA-Z._~0-9-]+")


@dataclass(frozen=True)
class _Kind:
    """A kind of mail, and the columns that remember it."""

    token: str
    sent: str
    subject: str


_KINDS = {
    "signup": _Kind("confirmation_token", "confirmation_sent_at", "Confirm your sign-up"),
    "recovery": _Kind("recovery_token", "recovery_sent_at", "Reset your password"),
}


@dataclass(frozen=True)
class Challenge:
    """What the client of the PKCE flow will prove that it knows."""

    text: str
    method: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Challenge | None":
        """Return the challenge in a request; raises `AuthError`."""
        text, method = body.get("code_challenge") or "", body.get("code_challenge_method") or ""
        if bool(text) != bool(method):
            message = "PKCE flow requires code_challenge_method and code_challenge"
            raise AuthError(400, "validation_failed", message)
        if not text:
            return None
        if not 43 <= len(text) <= 128:
            message = "code challenge has to be between 43 and 128 characters"
            raise AuthError(400, "validation_failed", message)
        if not _CHALLENGE.fullmatch(text):
            message = "code challenge can only contain alphanumeric characters, hyphens, periods, underscores"
            raise AuthError(400, "validation_failed", f"{message} and tildes")
        return cls(text, method.lower())

    def met_by(self, verifier: str) -> bool:
        """Return whether this is the challenge of `verifier`."""
        if self.method == "plain":
            return secrets.compare_digest(self.text, verifier)
        digest = hashlib.sha256(verifier.encode()).digest()
        return secrets.compare_digest(self.text, base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


class Confirmations:
    """The mailed links of one project."""

    def __init__(self, database: Database, mailbox: Mailbox) -> None:
        self._database = database
        self._mailbox = mailbox
        self._challenges: dict[str, Challenge] = {}
        self._codes: dict[str, tuple[str, Challenge]] = {}

    async def send(
        self, kind: str, user: User, issuer: str, redirect: str | None, challenge: Challenge | None
    ) -> None:
        """Mail a link and a code of this kind (`signup`, `recovery`) to a user; earlier ones become invalid."""
        columns, code = _KINDS[kind], f"{secrets.randbelow(1_000_000):06}"
        token = (_PKCE if challenge else "") + _hash(user["email"], code)
        statement = sql.SQL("update auth.users set {} = %s, {} = now() where id = %s").format(
            sql.Identifier(columns.token), sql.Identifier(columns.sent)
        )
        async with as_admin(self._database, "updating user") as cursor:
            await cursor.execute(statement, [token, user["id"]])
        if challenge is not None:
            self._challenges[token] = challenge
        query = urlencode({"token": token, "type": kind, "redirect_to": redirect or SITE_URL})
        self._mailbox.send(Mail(user["email"], columns.subject, f"{issuer}/verify?{query}", code))

    async def confirm(
        self,
        kind: str,
        token: str,
        *,
        email: str | None = None,
        refusal: str = "Token has expired or is invalid",
    ) -> str:
        """Return the id of the user to whom this token was mailed, or with `email` this code.

        It is valid once, and for an hour. The address is confirmed then. Raises `AuthError`.
        """
        if kind not in {*_KINDS, "email"}:
            raise AuthError(400, "validation_failed", "Unsupported verification type")
        hashes = (
            [token] if email is None else [_hash(email.lower(), token), _PKCE + _hash(email.lower(), token)]
        )
        for columns in _KINDS.values() if kind == "email" else [_KINDS[kind]]:
            user = await self._take(columns, hashes)
            if user is not None:
                return user
        raise AuthError(403, "otp_expired", refusal)

    def code_for(self, token: str, user: str) -> str | None:
        """Return the code with which the PKCE flow of this token ends; None if there was none."""
        challenge = self._challenges.pop(token, None)
        if challenge is None:
            return None
        code = str(uuid4())
        self._codes[code] = (user, challenge)
        return code

    def exchange(self, code: str | None, verifier: str | None) -> str:
        """Return the id of the user for whom a code was issued; raises `AuthError`."""
        if not code or not verifier:
            message = "invalid request: both auth code and code verifier should be non-empty"
            raise AuthError(400, "validation_failed", message)
        if code not in self._codes:
            message = "invalid flow state, no valid flow state found"
            raise AuthError(404, "flow_state_not_found", message)
        user, challenge = self._codes[code]
        if not challenge.met_by(verifier):
            message = "code challenge does not match previously saved code verifier"
            raise AuthError(400, "bad_code_verifier", message)
        del self._codes[code]
        return user

    async def _take(self, columns: _Kind, hashes: list[str]) -> str | None:
        """Use up a token, confirm the address, and return the user's id; None if there is no such token."""
        statement = sql.SQL("""
            update auth.users set {token} = '', email_confirmed_at = coalesce(email_confirmed_at, now())
            where {token} = any(%s) and {sent} > now() - make_interval(secs => %s) returning id::text
        """).format(token=sql.Identifier(columns.token), sent=sql.Identifier(columns.sent))
        verified = """
            update auth.identities set identity_data = identity_data || '{"email_verified": true}'
            where user_id = %s and provider = 'email'
        """
        async with as_admin(self._database, "updating user") as cursor:
            await cursor.execute(statement, [hashes, _SECONDS])
            row = await cursor.fetchone()
            if row is None:
                return None
            await cursor.execute(verified, [row[0]])
            return str(row[0])


def _hash(email: str, code: str) -> str:
    return hashlib.sha224(f"{email}{code}".encode()).hexdigest()
