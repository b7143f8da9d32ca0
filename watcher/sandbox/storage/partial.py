"""Uploads in progress: what was declared, and the bytes so far. They survive a restart of the sandbox."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID


class Refusal(Exception):
    """A refusal of the TUS server itself; its texts end with a line break."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """What was declared when an upload was created."""

    version: str
    bucket: str
    key: str
    length: int
    metadata: dict[str, str]
    header: str
    """`Upload-Metadata` as it was sent."""

    @property
    def id(self) -> str:
        """The last segment of its URL."""
        return (
            base64.urlsafe_b64encode(f"{self.bucket}/{self.key}/{self.version}".encode()).decode().rstrip("=")
        )


class Uploads:
    """A folder of uploads in progress: for each, what was declared and the bytes so far."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._appending: dict[str, object] = {}

    def create(self, upload: Upload) -> None:
        """Begin an upload, without bytes."""
        self.path(upload).touch()
        self.path(upload).with_suffix(".json").write_text(json.dumps(asdict(upload)))

    def find(self, identifier: str) -> Upload:
        """Return the upload of a URL. An unknown one is refused."""
        with suppress(OSError, ValueError):
            version = base64.urlsafe_b64decode(identifier + "===").decode().rpartition("/")[2]
            known = Upload(**json.loads((self._folder / f"{UUID(version)}.json").read_text()))
            if known.id == identifier:
                return known
        raise Refusal(404, "The file for this url was not found\n")

    def path(self, upload: Upload) -> Path:
        """Return the file of the bytes so far, which is gone when the upload is complete."""
        return self._folder / upload.version

    def offset(self, upload: Upload) -> int:
        """Return how many bytes are here."""
        path = self.path(upload)
        return path.stat().st_size if path.exists() else upload.length

    def interrupt(self, upload: Upload) -> None:
        """End a request that still appends, as the real server's lock does: its client has lost the connection."""
        self._appending.pop(upload.version, None)

    async def append(self, upload: Upload, chunks: AsyncIterator[bytes]) -> None:
        """Append bytes as they come, and keep them if the connection breaks. A later request ends an earlier one."""
        mine = self._appending[upload.version] = object()
        with self.path(upload).open("ab", buffering=0) as file:
            async for chunk in chunks:
                if self._appending.get(upload.version) is not mine:
                    raise Refusal(409, "Upload-Offset conflict\n")
                if file.tell() + len(chunk) > upload.length:
                    raise Refusal(413, "upload's size exceeded\n")
                file.write(chunk)
