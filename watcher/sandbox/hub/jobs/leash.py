"""Runs a job's command for as long as standard input stays open, so that it does not outlive the sandbox.

A program of its own: `python leash.py COMMAND…`. When standard input ends (the sandbox closed it, or was killed), it kills
the command with all of its process group; what of that is left when the command ends, too. It exits as the command does, as
a shell would: 137 for one that was killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(*command: str) -> int:
    """Run the command, and return its exit code."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        return 127 if isinstance(error, FileNotFoundError) else 126
    threading.Thread(target=_kill_at_the_end, args=(process.pid,), daemon=True).start()
    code = process.wait()
    _kill(process.pid)
    return 128 - code if code < 0 else code


def _kill_at_the_end(group: int) -> None:
    os.read(sys.stdin.fileno(), 1)
    _kill(group)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))  # the thread still reads
