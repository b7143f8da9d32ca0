"""Where an instance's images lie while they are on their way: private, and empty between attempts."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from watcher.errors import Misconfigured, Outage

# Room for one more image of the largest size, and a little for everything else on the disk.
_LEAST_FREE = 64 * 2**20


class Spool:
    """The folder of one instance. Whoever has its lock knows that no other run of this instance is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the instance's lock, with a spool cleared of what a predecessor left; raises Misconfigured."""
        try:
            lock = self._open_lock()
        except OSError as error:
            raise Misconfigured(
                f"The spool folder {self._folder} cannot be written to ({error.strerror}): set WATCHER_SPOOL to a "
                "folder of this user's own."
            ) from error
        try:
            try:
                _take(lock)
            except OSError as error:
                raise Misconfigured(
                    f"Another watcher runs as instance {self._folder.name} with the spool folder {self._folder}: stop "
                    "it, or give this one a name of its own with WATCHER_INSTANCE."
                ) from error
            for left in self._folder.glob("attempt-*"):
                _remove(left)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        """Open the lock in a folder that is made, or is ours alone already; raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By the folder itself, for what others can write to may hold a link in its place.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it belongs to another user")
            os.fchmod(folder, 0o700)
            return os.open(
                "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
            )
        finally:
            os.close(folder)

    @property
    def taken(self) -> bool:
        """Whether a run of this instance is alive on this host."""
        try:
            lock = os.open(self._folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    @contextmanager
    def folder(self, attempt: int) -> Iterator[Path]:
        """A folder for one attempt, gone afterwards; raises Outage where there is no room."""
        self.check_room()
        folder = self._folder / f"attempt-{attempt}"
        _remove(folder)  # the number is new, so what is there is not ours
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise Outage(
                f"The spool folder {self._folder} cannot be written to: {error.strerror}."
            ) from error
        try:
            yield folder
        finally:
            _remove(folder)

    def check_room(self) -> None:
        """Raise Outage unless an image fits."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            raise Outage(f"The spool folder {self._folder} is gone: {error.strerror}.") from error
        if free < _LEAST_FREE:
            raise Outage(
                f"The disk of the spool folder {self._folder} is full: free some room, or move it with WATCHER_SPOOL."
            )


def _remove(folder: Path) -> None:
    """Remove what lies there, as far as that can be done; of a link the link, and nothing that it leads to."""
    if folder.is_symlink() or folder.is_file():
        with suppress(OSError):
            folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _take(lock: int) -> None:
    """Take a lock; raises OSError where it is another's. Whoever only looks whether it is taken has it for an instant."""
    for _ in range(4):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
