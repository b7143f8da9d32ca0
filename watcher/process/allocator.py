"""The C library's allocator, told to keep one heap for all threads."""

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8
"""Of glibc's malloc.h."""


def share_one_heap() -> None:
    """Let glibc serve all threads from one heap, to be called before there are others; no other library is changed.

    By default glibc gives threads heaps of their own, up to eight for each core. A request to the Hub runs in a thread of
    its own, so that what one heap has free is not there for the next request. One lock for all is no loss: Python's own
    keeps threads apart already.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
