"""Handles SIGTERM, SIGINT and SIGHUP while the daemon runs, and ignores them until the process has exited."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def handling_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the running loop at each signal; after the body, ignore them, since the process is exiting.

    Does not use the loop's own handlers: when the loop is closed they are replaced by the system's defaults, and a
    second signal at that moment would change the exit code.
    """
    loop = asyncio.get_running_loop()
    reader, writer = socket.socketpair()
    reader.settimeout(0)
    writer.settimeout(0)

    def read() -> None:
        for number in reader.recv(4096):
            if number in _STOPPING:
                stop()

    loop.add_reader(reader, read)
    # Wakes the loop even if the signal arrives just before it sleeps.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        loop.remove_reader(reader)
        reader.close()
        writer.close()
