"""The bytes of objects: one file per version, written once, never changed.

Read and written on the loop: for one chunk of a local file a thread would take longer than the disk.
"""

import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from watcher.sandbox.storage.errors import too_large

_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Stored:
    """What is known of an object's bytes once they are on the disk."""

    size: int
    etag: str
    modified: datetime


class Bytes:
    """A folder of files by the name of their version, which is a UUID."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, version: str) -> Path:
        """Return where the bytes of a version are, or would be."""
        return self._folder / Path(version).name

    async def write(self, version: str, chunks: AsyncIterable[bytes], limit: int) -> Stored:
        """Store `chunks`; nothing is left if they end early or exceed `limit` bytes (which is refused)."""
        path = self.path(version)
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        try:
            with self._open(version, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise too_large()
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Stored(size, f'"{digest.hexdigest()}"', modified(path))

    def link(self, version: str, twin: str) -> datetime:
        """Give the bytes of `version` a second name. Raises FileNotFoundError if they are gone."""
        os.link(self.path(version), self.path(twin))
        return modified(self.path(twin))

    async def read(self, version: str, start: int, size: int) -> AsyncIterator[bytes]:
        """Yield `size` bytes from `start` on."""
        with self._open(version, "rb") as file:
            file.seek(start)
            while size > 0 and (chunk := file.read(min(size, _CHUNK))):
                size -= len(chunk)
                yield chunk

    def delete(self, versions: Iterable[str | None]) -> None:
        """Delete what is there of `versions`."""
        for version in versions:
            if version:
                self.path(version).unlink(missing_ok=True)

    def _open(self, version: str, mode: Literal["rb", "wb"]) -> BinaryIO:
        return self.path(version).open(mode)


def modified(path: Path) -> datetime:
    """Return when a file was last written. Raises FileNotFoundError."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
