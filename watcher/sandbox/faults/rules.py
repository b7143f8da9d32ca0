"""A rule: which requests a fault affects and how often, and the requests it holds. Safe from any thread."""

import asyncio
import re
import threading

from watcher.sandbox.faults.actions import Action


class Rule:
    """A fault for some requests, from when it is added until it is removed."""

    def __init__(
        self,
        number: int,
        action: Action,
        *,
        service: str | None,
        method: str | None,
        path: str | None,
        times: int | None,
        skip: int,
    ) -> None:
        self.id = number
        self.action = action
        self.service = service
        self.method = method
        self.path = path
        self._pattern = re.compile(path or "")
        self._times = times
        self._skip = skip
        self._changed = threading.Condition()
        self._reached = 0
        self._open = False
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def reached(self) -> int:
        """How many requests have reached the fault; for Hold("after") and LoseAnswer the app is done with them."""
        with self._changed:
            return self._reached

    @property
    def released(self) -> bool:
        """Whether requests are no longer held."""
        with self._changed:
            return self._open

    def wait_reached(self, timeout: float = 10.0, count: int = 1) -> None:
        """Block until `count` requests have reached the fault; TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._reached >= count, timeout):
                raise TimeoutError(
                    f"fault {self.id} was reached {self._reached} times in {timeout} s, not {count}"
                )

    def release(self) -> None:
        """Release the requests that are held, and hold none from now on."""
        with self._changed:
            self._open = True
            for event, loop in self._waiting.items():
                loop.call_soon_threadsafe(event.set)

    def reach(self) -> None:
        """Count a request; for actions."""
        with self._changed:
            self._reached += 1
            self._changed.notify_all()

    async def opened(self) -> None:
        """Wait for `release`; for actions."""
        event = asyncio.Event()
        with self._changed:
            if self._open:
                return
            self._waiting[event] = asyncio.get_running_loop()
        try:
            await event.wait()
        finally:
            with self._changed:
                del self._waiting[event]

    def take(self, service: str, method: str, path: str) -> bool:
        """Return whether the fault affects this request, and count `skip` and `times` down."""
        if self.service not in (None, service) or self.method not in (None, method):
            return False
        if not self._pattern.search(path):
            return False
        with self._changed:
            if self._skip:
                self._skip -= 1
                return False
            if self._times is None:
                return True
            self._times -= 1
            return self._times >= 0
