"""Limits of the host, reached on purpose."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Make the system refuse every new thread of this process: its stack would be larger than the address space."""
    before = threading.stack_size(2**47)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Make the system refuse every new file and connection of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
