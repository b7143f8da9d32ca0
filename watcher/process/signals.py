"""SIGTERM and SIGINT while the daemon lives, and to the process's last moment."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def handled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the running loop at each signal; afterwards signals do nothing, since the process is ending.

    Not by the loop's own handlers: when it is closed they give way to the system's, and a signal that came again just
    then would end us with something else than our exit code.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)

    def read() -> None:
        for number in ours.recv(4096):
            if number in _STOPPING:
                stop()

    loop.add_reader(ours, read)
    # Wakes the loop also if the signal comes when it is just about to sleep.
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in _STOPPING:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
