"""The bytes of the Hub's files, in one folder for each repo: repos share nothing.

Every method can be called from any thread; `put_blob` and `Upload.write` block on the disk.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from watcher.sandbox.hub.git import File, blob_oid

_DELETED = ".deleted"


class RepoGoneError(Exception):
    """The repo was deleted during a request to it."""


class Upload:
    """An upload: written to a temporary file, and hashed as the bytes come."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - close() closes it
        self._hash = hashlib.sha256()
        self.path = Path(self._file.name)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def close(self) -> str:
        """Close the file, and return the sha256 of its bytes."""
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Delete the file, unless it was kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Bytes:
    """Regular files, named by blob id, and LFS objects, named by sha256, in a folder for each repo id."""

    def __init__(self, folder: Path) -> None:
        self._repos = folder / "repos"
        self._incoming = folder / "incoming"
        self._uncollected = folder / "uncollected"
        for path in (self._repos, self._incoming, self._uncollected):
            path.mkdir(parents=True, exist_ok=True)
        for unfinished in self._incoming.iterdir():
            unfinished.unlink()
        for unfinished in self._repos.glob(f"*{_DELETED}"):
            shutil.rmtree(unfinished)

    def make_folders(self, repo: str) -> None:
        """Make the folders of a new repo."""
        for kind in ("blobs", "objects"):
            (self._repos / repo / kind).mkdir(parents=True)

    def delete(self, repo: str) -> None:
        """Delete the folders of a repo. Its LFS objects remain until the Hub collects them, which the sandbox never does."""
        # Renamed first: a request that still writes to the repo finds it gone, and cannot add a file behind the deletion.
        deleted = (self._repos / repo).rename(self._repos / f"{repo}{_DELETED}")
        if any((deleted / "objects").iterdir()):
            (deleted / "objects").rename(self._uncollected / repo)
        shutil.rmtree(deleted)

    def uncollected(self) -> list[str]:
        """Return the sha256 of LFS objects that have outlived their repo."""
        return sorted(path.name for path in self._uncollected.glob("*/*"))

    def collect(self) -> None:
        """Delete the LFS objects that have outlived their repo."""
        for folder in self._uncollected.iterdir():
            shutil.rmtree(folder)

    def put_blob(self, repo: str, path: str, content: bytes) -> File:
        """Store the content of a regular file; raises RepoGoneError."""
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
        """Begin an upload."""
        return Upload(self._incoming)

    def keep(self, repo: str, upload: Upload, sha256: str) -> None:
        """Make a closed upload an LFS object of the repo; raises RepoGoneError."""
        try:
            upload.path.replace(self.object(repo, sha256))
        except FileNotFoundError as error:
            raise RepoGoneError from error

    def has_object(self, repo: str, sha256: str, size: int) -> bool:
        """Return whether the repo has this LFS object."""
        path = self.object(repo, sha256)
        return path.exists() and path.stat().st_size == size

    def objects(self, repo: str) -> list[Path]:
        """Return the LFS objects of the repo, by sha256."""
        return sorted((self._repos / repo / "objects").iterdir())

    def object_size(self, repo: str, sha256: str) -> int:
        """Return the bytes of an LFS object of the repo; 0 if it has none."""
        path = self.object(repo, sha256)
        return path.stat().st_size if path.exists() else 0

    def used(self, repo: str) -> int:
        """Return the bytes of all LFS objects of the repo."""
        return sum(path.stat().st_size for path in (self._repos / repo / "objects").iterdir())

    def content(self, repo: str, file: File) -> Path:
        """Return the path of a file's bytes."""
        return self.object(repo, file.sha256) if file.sha256 else self._repos / repo / "blobs" / file.oid

    def object(self, repo: str, sha256: str) -> Path:
        """Return the path of an LFS object's bytes."""
        return self._repos / repo / "objects" / sha256
