"""Threads share one heap, so that what one has freed serves the next."""

import platform
import subprocess
import sys

import pytest

# The heaps of threads begin at multiples of 64 MB.
PROGRAM = """
import re, sys, threading
from pathlib import Path
from watcher.process.allocator import share_one_heap

if sys.argv[1] == "shared":
    share_one_heap()
kept, hold = [], threading.Barrier(9)

def keep():
    kept.append([bytes(2000) for _ in range(200)])
    hold.wait()

threads = [threading.Thread(target=keep) for _ in range(8)]
for thread in threads:
    thread.start()
hold.wait()
maps = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ rw-p 00000000 00:00 0 *$", Path("/proc/self/maps").read_text(), re.MULTILINE)
print(sum(int(start, 16) % 2**26 == 0 for start in maps))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
def test_threads_have_heaps_of_their_own_unless_they_share_one() -> None:
    heaps = {
        how: int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))
        for how in ("own", "shared")
    }
    assert heaps["own"] > 0
    assert heaps["shared"] == 0
