"""The bytes that the Hub holds: a folder for each repo, so that none sees anything of another.

Every method may be called from any thread; `put_blob` and `Upload.write` block for as long as the disk does.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from watcher.sandbox.hub.git import File, blob_oid


class RepoGoneError(Exception):
    """The repo was deleted while something was on its way to it."""


class Upload:
    """Bytes on their way in: written to a file beside the others and hashed as they come."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - close() and keep() end it
        self._hash = hashlib.sha256()
        self.path = Path(self._file.name)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def close(self) -> str:
        """No more bytes come; their sha256."""
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Leave nothing behind, unless it was kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Bytes:
    """Regular files by their blob's name, LFS objects by their sha256, both by the repo's id."""

    def __init__(self, folder: Path) -> None:
        self._repos = folder / "repos"
        self._incoming = folder / "incoming"
        for place in (self._repos, self._incoming):
            place.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()

    def make_place(self, repo: str) -> None:
        """Make room for a new repo."""
        for place in ("blobs", "objects"):
            (self._repos / repo / place).mkdir(parents=True)

    def delete(self, repo: str) -> None:
        """Delete all of a repo."""
        shutil.rmtree(self._repos / repo)

    def put_blob(self, repo: str, path: str, content: bytes) -> File:
        """Keep a regular file's content; raises RepoGoneError."""
        file = File(path, blob_oid(content), len(content), None)
        upload = self.upload()
        try:
            upload.write(content)
            upload.close()
            upload.path.replace(self.content(repo, file))
        except FileNotFoundError as error:
            raise RepoGoneError from error
        finally:
            upload.discard()
        return file

    def upload(self) -> Upload:
        """A place for bytes that are coming."""
        return Upload(self._incoming)

    def keep(self, repo: str, upload: Upload, sha256: str) -> None:
        """Make a closed upload an LFS object of the repo; raises RepoGoneError."""
        try:
            upload.path.replace(self.object(repo, sha256))
        except FileNotFoundError as error:
            raise RepoGoneError from error

    def has_object(self, repo: str, sha256: str, size: int) -> bool:
        """Whether the repo has this LFS object."""
        path = self.object(repo, sha256)
        return path.exists() and path.stat().st_size == size

    def used(self, repo: str) -> int:
        """The size of all LFS objects of the repo."""
        return sum(path.stat().st_size for path in (self._repos / repo / "objects").iterdir())

    def content(self, repo: str, file: File) -> Path:
        """Where the file's bytes are."""
        return self.object(repo, file.sha256) if file.sha256 else self._repos / repo / "blobs" / file.oid

    def object(self, repo: str, sha256: str) -> Path:
        """Where an LFS object's bytes are."""
        return self._repos / repo / "objects" / sha256
