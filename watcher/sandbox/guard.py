"""Runs one server for as long as our standard input stays open, so that it cannot outlive who started it.

A program of its own: `python guard.py LOG USER FOLDER COMMAND…`. When standard input ends (the parent closed
it, or was killed), the server gets SIGINT, later SIGQUIT, at last SIGKILL. USER is "uid:gid", or "-" for our
own. FOLDER, unless it is "-", is deleted if standard input ended without a word on it: nobody else is left to
do it.

The parent's death is seen on a pipe because PR_SET_PDEATHSIG means the death of the parent's *thread*. Here,
with one thread only, it is safe to use in turn, for the case that this process is killed.
"""

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT  # as Postgres reads them
_PATIENCE = ((FAST, 5.0), (IMMEDIATE, 5.0), (signal.SIGKILL, None))


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, IMMEDIATE)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number, seconds in _PATIENCE:
        server.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return


def main(log: str, user: str, folder: str, *command: str) -> None:
    """Start `command`, wait for the end of either side, and leave nothing running."""
    signal.signal(signal.SIGCHLD, lambda *_: sys.exit())  # the server ended by itself: so do we
    uid, gid = (None, None) if user == "-" else map(int, user.split(":"))
    orphaned = False
    with Path(log).open("ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(log).parent,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            # After the change of user, which would clear it. One thread: preexec_fn is safe.
            preexec_fn=_die_with_guard if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        try:
            orphaned = not sys.stdin.buffer.read()
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _stop(server)
            if orphaned and folder != "-":
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
