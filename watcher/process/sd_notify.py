"""Notifies systemd of the daemon's state by the protocol of sd_notify(3): datagrams to the socket NOTIFY_SOCKET."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_STATUS_LENGTH = 200


class ServiceManager:
    """The service manager that started this process, if it accepts notifications."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC from `environment`."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # in the abstract namespace
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        wanted = bool(self._address) and ours and microseconds.isdecimal()
        self.watchdog = int(microseconds) / 1e6 if wanted and int(microseconds) else None
        """Seconds without WATCHDOG=1 after which systemd kills this process; None if the watchdog is off."""

    def status(self, sentence: str) -> None:
        """Set the line that `systemctl status` shows: at most 200 characters of the sentence."""
        self.notify(f"STATUS={' '.join(sentence.split())[:_STATUS_LENGTH]}")

    def notify(self, *lines: str) -> None:
        """Send lines such as `READY=1`; errors are ignored, since delivery is optional."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            sender.sendto("\n".join(lines).encode(), self._address)
