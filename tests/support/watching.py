"""Whoever watches the daemon: a service manager at the other end of NOTIFY_SOCKET, and a probe of its address."""

import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support.waiting import PATIENCE


@dataclass(frozen=True)
class Message:
    """One line that it was told, and when."""

    at: float
    line: str


class Manager:
    """What systemd would be told."""

    def __init__(self, *, abstract: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="manager-")
        path = str(Path(self._folder.name) / "notify")
        self.address = f"@{path}" if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path if abstract else path)
        self.messages: list[Message] = []
        self._listener = threading.Thread(target=self._listen, name="service manager")
        self._listener.start()

    def _listen(self) -> None:
        while told := self._socket.recv(65536):
            now = time.monotonic()
            self.messages += [Message(now, line) for line in told.decode().split("\n")]

    def told(self, start: str) -> list[Message]:
        """What it was told that begins like this."""
        return [message for message in self.messages if message.line.startswith(start)]

    def wait_for(self, start: str, *, count: int = 1) -> Message:
        """Return the `count`th message that begins like this, once it has come."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.told(start)) < count:
            assert time.monotonic() < deadline, f"It was not told {start}, but {self.messages}"
            time.sleep(0.01)
        return found[count - 1]

    @property
    def steps(self) -> list[str]:
        """The order in which its life was told, without beats and what repeats."""
        steps = [message.line.partition("=")[0] for message in self.messages]
        return [step for step in dict.fromkeys(steps) if step != "WATCHDOG"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._listener.join()
        self._socket.close()
        self._folder.cleanup()


def free_address() -> str:
    """An address of this host on which nobody listens."""
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{asking.getsockname()[1]}"


def get(address: str, path: str) -> httpx.Response:
    """Ask the daemon, as a probe would."""
    return httpx.get(f"http://{address}{path}", timeout=PATIENCE)
