"""Recognizes errors that come from this host's limits and stop every row alike. Changes nothing."""

import errno

from watcher.errors import Outage


def outage_of(error: BaseException) -> Outage | None:
    """Return the outage that `error` shows if no thread can be started or no file opened here; None for any other error."""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return Outage(
            "This host cannot start more threads: raise the limit (TasksMax in the unit), or lower WATCHER_SLOTS."
        )
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return Outage(
            f"This host cannot open more files and connections ({error.strerror}): raise the limit (LimitNOFILE in the "
            "unit), or lower WATCHER_SLOTS."
        )
    return None
