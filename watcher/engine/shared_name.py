"""What a daemon does when another host uses its name: waits for it once, then gives up. Sends no request."""

import asyncio

import structlog

from watcher.errors import Misconfigured
from watcher.supabase.answers import NameTaken

log = structlog.get_logger(__name__)


class SharedName:
    """Whether this daemon's name was found in use on another host, such as the one that this host replaces."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._free_at: float | None = None
        """Loop time when the other host counts as gone unless it is heard again; None if there is none."""

    def free(self) -> None:
        """Note that a claim was served: no other host has the name."""
        self._free_at = None

    def seconds_until_free(self, taken: NameTaken) -> float:
        """Return the seconds to wait before the next claim; raises Misconfigured if the other was heard again meanwhile."""
        sentence = (
            f"Another host ({taken.machine}) runs a daemon as instance {self._instance}: give one of them a name of its "
            "own with WATCHER_INSTANCE."
        )
        now = asyncio.get_running_loop().time()
        if self._free_at is None:
            log.warning("name_taken", reason=sentence, seconds=round(taken.seconds, 1))
            self._free_at = now + taken.seconds
        elif now >= self._free_at:
            raise Misconfigured(sentence)
        # Events may wake the daemon earlier.
        return max(self._free_at - now, 0.0) + 1.0
