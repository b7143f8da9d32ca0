"""The bytes of objects: one file for each version, which is never changed.

Files are read and written on the loop: for a chunk of a local file, a thread takes longer than the disk.
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
    """Metadata of an object's bytes after they were written."""

    size: int
    etag: str
    modified: datetime


class Bytes:
    """A folder of files, named by their version, which is a UUID."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, version: str) -> Path:
        """Return the path of a version's bytes, whether they exist or not."""
        return self._folder / Path(version).name

    async def write(self, version: str, chunks: AsyncIterable[bytes], limit: int | None) -> Stored:
        """Store `chunks`; leave nothing if that fails. More than `limit` bytes are refused; None is no limit."""
        path = self.path(version)
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        try:
            with self._open(version, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if limit is not None and size > limit:
                        raise too_large()
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Stored(size, f'"{digest.hexdigest()}"', modified(path))

    def adopt(self, version: str, file: Path) -> Stored:
        """Make a file the bytes of a version."""
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False))
        file.replace(self.path(version))
        return Stored(
            self.path(version).stat().st_size, f'"{digest.hexdigest()}"', modified(self.path(version))
        )

    def link(self, version: str, other: str) -> datetime:
        """Give the bytes of `version` to another version, too. Raises FileNotFoundError if they are missing."""
        os.link(self.path(version), self.path(other))
        return modified(self.path(other))

    async def read(self, version: str, start: int, size: int) -> AsyncIterator[bytes]:
        """Yield `size` bytes from `start` on."""
        with self._open(version, "rb") as file:
            file.seek(start)
            while size > 0 and (chunk := file.read(min(size, _CHUNK))):
                size -= len(chunk)
                yield chunk

    def delete(self, versions: Iterable[str | None]) -> None:
        """Delete the bytes of `versions`, where they exist."""
        for version in versions:
            if version:
                self.path(version).unlink(missing_ok=True)

    def _open(self, version: str, mode: Literal["rb", "wb"]) -> BinaryIO:
        return self.path(version).open(mode)


def modified(path: Path) -> datetime:
    """Return when a file was last written. Raises FileNotFoundError."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
