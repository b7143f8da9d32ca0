"""What the service manager is told, over the socket that it names."""

import os

import pytest

from tests.support.watching import Manager
from watcher.process.sd_notify import ServiceManager


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_in_one_datagram_wherever_the_socket_is(abstract: bool) -> None:
    with Manager(abstract=abstract) as manager:
        ServiceManager({"NOTIFY_SOCKET": manager.address}).notify("READY=1", "STATUS=Publishing 李雷.")
        manager.wait_for("STATUS=Publishing 李雷.")
        [ready, status] = manager.messages
        assert ready.line == "READY=1"
        assert ready.at == status.at


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens-there", "/" + "x" * 200])
def test_where_nobody_listens_it_is_no_error(address: str) -> None:
    ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")
    ServiceManager({}).notify("READY=1")


def test_the_watchdog_is_ours_only_if_it_says_so() -> None:
    def watchdog(**more: str) -> float | None:
        return ServiceManager({"NOTIFY_SOCKET": "@x", **more}).watchdog

    assert watchdog() is None
    assert watchdog(WATCHDOG_USEC="90000000") == 90
    assert watchdog(WATCHDOG_USEC="90000000", WATCHDOG_PID=str(os.getpid())) == 90
    assert watchdog(WATCHDOG_USEC="90000000", WATCHDOG_PID="1") is None
    assert watchdog(WATCHDOG_USEC="0") is None
    assert watchdog(WATCHDOG_USEC="soon") is None
