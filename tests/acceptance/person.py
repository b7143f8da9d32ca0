"""Somebody with an account: uploads, inserts, looks, as the frontend does it for them."""

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.acceptance.stage import Stage, unique
from tests.support.pictures import jpeg
from tests.support.waiting import PATIENCE

BUCKET = "identity-images"
_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}

Row = dict[str, Any]


class Person:
    """A user, signed in with the public key."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.email, self.password = f"{unique('acceptance')}@example.com", secrets.token_urlsafe(12)
        new = {"email": self.email, "password": self.password, "email_confirm": True}
        self.id = stage.admin.auth.admin.create_user(new).user.id  # type: ignore[arg-type]  # a TypedDict that lacks nothing
        stage.users.append(self.id)
        self.client = stage.client(stage.public_key)
        self.client.auth.sign_in_with_password({"email": self.email, "password": self.password})

    @property
    def table(self) -> Any:
        return self.client.table("trained_identities")

    def upload(self, content: bytes, name: str = "photo.jpg", media_type: str | None = None) -> str:
        """Upload one file under a folder of its own, and return its path."""
        path = f"{self.id}/{secrets.token_hex(6)}/{name}"
        declared = media_type or _TYPES[Path(name).suffix]
        self.client.storage.from_(BUCKET).upload(path, content, {"content-type": declared})
        self._stage.objects.append(path)
        return path

    def photos(self, count: int = 3) -> list[str]:
        return [self.upload(jpeg(seed=number)) for number in range(count)]

    def insert(self, name: str = "Ada", paths: Sequence[Any] | None = None, **more: Any) -> str:
        """Insert a row, with three photos unless told otherwise, and return its id."""
        given = self.photos() if paths is None else paths
        [row] = self.table.insert({"identity_name": name, "image_paths": given, **more}).execute().data
        self._stage.rows.append(row["id"])
        return str(row["id"])

    def retry(self, identity: str) -> list[Row]:
        """Set a row back to pending; the rows that were."""
        changed: list[Row] = self.table.update({"status": "pending"}).eq("id", identity).execute().data
        return changed

    def delete(self, identity: str) -> list[Row]:
        """Delete a row; the rows that were."""
        gone: list[Row] = self.table.delete().eq("id", identity).execute().data
        return gone

    def rows(self) -> list[Row]:
        rows: list[Row] = self.table.select("*").execute().data
        return rows

    def row(self, identity: str) -> Row:
        [row] = self.table.select("*").eq("id", identity).execute().data
        assert isinstance(row, dict)
        return row

    def wait_until(self, identity: str, fits: Callable[[Row], bool], within: float = PATIENCE) -> Row:
        """Look at a row until it fits."""
        deadline = time.monotonic() + within
        while not fits(row := self.row(identity)):
            assert time.monotonic() < deadline, f"After {within} s the row is still {row}"
            time.sleep(0.05)
        return row

    def wait_for(self, identity: str, status: str, within: float = PATIENCE) -> Row:
        """Look at a row until it has a status."""
        return self.wait_until(identity, lambda row: row["status"] == status, within)
