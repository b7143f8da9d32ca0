"""The machine that this daemon runs on, and the lock of its name there.

Touches a socket, or a file where there are no abstract sockets.
"""

import errno
import fcntl
import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from watcher.errors import Misconfigured

_ABSTRACT = sys.platform == "linux"
"""Whether there are abstract sockets."""
# Where there are none. Not /tmp, which is emptied of old files while they are in use.
_FOLDER = Path("/var/tmp")  # noqa: S108  (the file is empty, and opened without following links)


def machine() -> str:
    """Return a name of this machine that no other has; containers with a network of their own count as machines.

    16 hexadecimal digits that tell nothing about the machine.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/net").stat().st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class InstanceLock:
    """The lock of one name in one project on this machine. Whoever has it knows that no other run of that name is alive.

    On Linux it is a name in the abstract socket namespace: it goes with the process that bound it, and needs no folder that
    two users or two sandboxes of systemd's could both write to. Each network namespace has names of its own.
    """

    def __init__(self, instance: str, project: str) -> None:
        """`project`: Supabase's URL."""
        self._instance = instance
        self._name = f"watcher-{hashlib.sha256(f'{project} {instance}'.encode()).hexdigest()[:32]}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock while the body runs; raises Misconfigured if another process has it, or if it cannot be taken."""
        try:
            release = self._bind() if _ABSTRACT else self._lock_file(tries=5)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EWOULDBLOCK}:
                raise Misconfigured(
                    f"Another watcher runs on this host as instance {self._instance}: stop it, or give this one a name of "
                    "its own with WATCHER_INSTANCE."
                ) from error
            raise Misconfigured(
                f"The lock of instance {self._instance} cannot be taken on this host ({error.strerror}): "
                + ("allow Unix sockets." if _ABSTRACT else f"see who owns {_FOLDER / self._name}.")
            ) from error
        try:
            yield
        finally:
            release()

    @property
    def taken(self) -> bool:
        """Whether a run of this name is alive on this machine. On Linux, a run that starts meanwhile is not disturbed."""
        try:
            if _ABSTRACT:
                with _datagram_socket() as probe:
                    probe.connect(f"\0{self._name}")
                return True
            self._lock_file(tries=1)()
        except OSError as error:
            return error.errno == errno.EWOULDBLOCK
        return False

    def _bind(self) -> Callable[[], None]:
        # Datagrams, since one can connect to such a socket without being accepted. A forked process that runs no other
        # program keeps the name as well, as long as it lives.
        bound = _datagram_socket()
        try:
            bound.bind(f"\0{self._name}")
        except OSError:
            bound.close()
            raise
        return bound.close

    def _lock_file(self, *, tries: int) -> Callable[[], None]:
        """Lock the file; tries for 0.2 s, since `taken` locks it for a moment."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(_FOLDER / self._name, flags, 0o644)
        try:
            while True:
                tries -= 1
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not tries:
                        raise
                    time.sleep(0.05)
                else:
                    return lambda: os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
