"""The CPU time of processes, as Linux counts it."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
"""Of a second, in which it is counted."""


def fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, which is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def seconds(pid: int) -> float:
    """What all threads of a process have used, of the user's and the system's."""
    return sum(map(int, fields(pid)[11:13])) / TICKS
