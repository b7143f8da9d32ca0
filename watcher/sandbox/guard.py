"""Runs a server for as long as standard input stays open, so that the server does not outlive the parent process.

A program of its own: `python guard.py LOG USER FOLDER COMMAND…`. When standard input ends (the parent closed it, or
was killed), the server gets SIGINT, then SIGQUIT, finally SIGKILL. USER is "uid:gid", or "-" for the current user.
FOLDER, unless it is "-", is deleted if nothing was written to standard input before its end: the parent was killed.

PR_SET_PDEATHSIG cannot be used for that, since it fires when the parent's *thread* ends. It is used for the server, in
case this process is killed, since this process has one thread.
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
_STEPS = ((FAST, 5.0), (IMMEDIATE, 5.0), (signal.SIGKILL, None))


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, IMMEDIATE)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number, seconds in _STEPS:
        server.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return


def main(log: str, user: str, folder: str, *command: str) -> None:
    """Start `command`, wait until it or standard input ends, and leave nothing running."""
    signal.signal(signal.SIGCHLD, lambda *_: sys.exit())  # the server ended by itself
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
            # After the change of user, which would reset it.
            preexec_fn=_die_with_guard if sys.platform == "linux" else None,  # noqa: PLW1509  (safe with one thread)
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
