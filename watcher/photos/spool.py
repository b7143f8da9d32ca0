"""The folder on disk that holds an instance's images between fetch and upload.

It is accessible to this user only; each attempt's subfolder is deleted when the attempt ends.
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from watcher.errors import Misconfigured, Outage

# Space for one more image of the largest size, and some for everything else on the disk.
_MIN_FREE = 64 * 2**20


class Spool:
    """The folder of one instance. Its lock keeps the runs of other projects out that use the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock, and delete what an earlier run left in the folder; raises Misconfigured."""
        try:
            lock = self._open_lock()
        except OSError as error:
            raise Misconfigured(
                f"The spool folder {self._folder} cannot be written to ({error.strerror}): set WATCHER_SPOOL to a "
                "folder that this user owns."
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Misconfigured(
                    f"Another watcher runs as instance {self._folder.name} with the spool folder {self._folder}: stop "
                    "it, or set WATCHER_INSTANCE to another name for this one."
                ) from error
            for leftover in self._folder.glob("attempt-*"):
                _remove(leftover)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        """Open the lock, creating the folder with access for this user only; raises OSError if another user owns it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Through a descriptor of the folder: if others can write to its parent, they could replace it by a link.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it belongs to another user")
            os.fchmod(folder, 0o700)
            return _open_file("lock", folder)
        finally:
            os.close(folder)

    @contextmanager
    def folder(self, attempt: int) -> Iterator[Path]:
        """Make a folder for one attempt, and delete it after the body; raises Outage if the disk is full."""
        self.check_space()
        folder = self._folder / f"attempt-{attempt}"
        _remove(folder)  # attempt numbers are unique, so anything there is a leftover
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise Outage(
                f"The spool folder {self._folder} cannot be written to ({error.strerror}): check its permissions, or "
                "move it with WATCHER_SPOOL."
            ) from error
        try:
            yield folder
        finally:
            _remove(folder)

    def check_space(self) -> None:
        """Raise Outage unless there is space for an image."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise Outage(
                f"The spool folder {self._folder} cannot be accessed ({error.strerror}): restart the daemon, which "
                "creates it."
            ) from error
        if free < _MIN_FREE:
            raise Outage(
                f"The disk of the spool folder {self._folder} is full: free some space, or move it with WATCHER_SPOOL."
            )


def _open_file(name: str, folder: int) -> int:
    """Open or create a file in a folder; raises OSError if a link, a pipe or something else is there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.open(name, flags, 0o600, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{name} is not a file")
    return file


def _remove(folder: Path) -> None:
    """Remove what is at this path, ignoring errors; if it is a link, only the link and not its target."""
    if folder.is_symlink() or folder.is_file():
        with suppress(OSError):
            folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
