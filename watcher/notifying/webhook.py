"""One notification as a request: its body, its signature, and what the answer means."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from watcher.errors import Transient
from watcher.process.text import quoted
from watcher.settings.types import webhook_key

_TIMEOUT = httpx.Timeout(10)

_SENTENCES = {
    "row.failed": "A row has failed.",
    "training.ready": "A training has ended, and its row is ready.",
    "training.failed": "A training has failed.",
    "erasure.overdue": "Something has been due to be erased for a day.",
    "outage.began": "An outage has begun.",
    "outage.ended": "An outage is over.",
}


@dataclass(frozen=True, slots=True)
class Notification:
    """Something that has happened; it names nobody."""

    id: str
    """By which the receiver knows a repetition."""
    event: str
    happened_at: str
    """UTC, for example 2025-10-26T12:00:00Z."""
    data: Mapping[str, object]


def body(notification: Notification) -> bytes:
    """Return the JSON that is sent. Its `text` is what chat services show."""
    sentence = _SENTENCES.get(notification.event, notification.event)
    said = " ".join(f"{name}: {value}" for name, value in notification.data.items())
    content = {
        "type": notification.event,
        "timestamp": notification.happened_at,
        "text": f"Watcher: {sentence} {said}".rstrip(),
        "data": dict(notification.data),
    }
    return json.dumps(content, ensure_ascii=False).encode()


def headers(notification: Notification, content: bytes, *, key: bytes | None, now: int) -> dict[str, str]:
    """Return the headers of Standard Webhooks; with the signature where there is a key. `now`: Unix seconds."""
    told = {
        "Content-Type": "application/json",
        "webhook-id": f"msg_{notification.id}",
        "webhook-timestamp": str(now),
    }
    if key is not None:
        signed = f"msg_{notification.id}.{now}.".encode() + content
        signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        told["webhook-signature"] = f"v1,{signature}"
    return told


class Receiver:
    """The operator's address."""

    def __init__(self, client: httpx.AsyncClient, *, url: str, secret: str | None) -> None:
        """`client` must be closed by the caller; `secret` as `webhook_key` reads it."""
        self._client = client
        self._url = url
        self._key = None if secret is None else webhook_key(secret)

    async def send(self, notification: Notification, *, now: int) -> None:
        """Send a notification once; raises Transient unless it is accepted."""
        content = body(notification)
        try:
            response = await self._client.post(
                self._url,
                content=content,
                headers=headers(notification, content, key=self._key, now=now),
                timeout=_TIMEOUT,
                follow_redirects=False,
            )
        except httpx.HTTPError as error:
            # Without the URL, which is a secret at many services.
            raise Transient(f"WATCHER_NOTIFY_URL could not be reached: {type(error).__name__}.") from error
        if not response.is_success:
            said = quoted(response.text[:1000], otherwise=response.reason_phrase)
            raise Transient(f"WATCHER_NOTIFY_URL answered HTTP {response.status_code}: {said}")
