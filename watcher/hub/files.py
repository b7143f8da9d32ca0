"""The files of a commit, as huggingface_hub takes them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import CommitOperationAdd

from watcher.hub.library import with_upload_mode

File = CommitOperationAdd
"""A file to be committed."""


class _Image(CommitOperationAdd):
    """An image, which says when its content has been uploaded: the library tells only of a whole batch."""

    on_uploaded: Callable[[], object]

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:  # noqa: FBT001, FBT002  (the library's signature)
        """Open the file for its upload; it is left without an error once the answer to that is there."""
        with super().as_file(with_tqdm) as file:
            yield file
        self.on_uploaded()


def image_file(path: str, file: Path, sha256: str, *, on_uploaded: Callable[[], object]) -> File:
    """Return a file to be committed as LFS. Its SHA-256 is given, so that the file is read only for its upload.

    `on_uploaded` is called in a thread of the library's, unless the Hub has the content already; more than once if the
    upload is repeated.
    """
    operation = _Image(path, str(file))
    operation.on_uploaded = on_uploaded
    operation.upload_info.sha256 = bytes.fromhex(sha256)
    return with_upload_mode(operation, "lfs")


def text_file(path: str, content: bytes) -> File:
    """Return a small file whose content is sent in the commit request."""
    return with_upload_mode(CommitOperationAdd(path, content), "regular")
