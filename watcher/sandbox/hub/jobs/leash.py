"""Runs a job's command for as long as standard input stays open, so that it does not outlive the sandbox.

A program of its own: `python leash.py COMMAND…`, started as the leader of a process group. When standard input ends (the
sandbox closed it, or was killed), it kills the group, itself included. It exits as the command does; 137 for SIGKILL.
"""

import os
import signal
import subprocess
import sys
import threading


def _kill_group_at_the_end() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def main(*command: str) -> int:
    """Run the command, and return its exit code, as a shell does."""
    threading.Thread(target=_kill_group_at_the_end, daemon=True).start()
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main(*sys.argv[1:]))  # the thread may hold standard input's lock
