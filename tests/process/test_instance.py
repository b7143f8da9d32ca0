"""The instance's lock: one run of a name on a machine, and gone with the process that held it, however that ended."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from watcher.errors import Misconfigured
from watcher.process import instance
from watcher.process.instance import InstanceLock

PROJECT = "https://abc.supabase.co"

HOLD = """
import os, sys
from pathlib import Path
from watcher.process import instance
name, folder, act = sys.argv[1:]
if folder:
    instance._ABSTRACT, instance._FOLDER = False, Path(folder)
if act == "as nobody":
    os.setuid(65534)
with instance.InstanceLock(name, "https://abc.supabase.co").held():
    forked = os.fork() if act == "fork" else 0
    if not forked:
        print("held", flush=True)
        sys.stdin.read()
"""

ASK = """
import sys
from watcher.process.instance import InstanceLock
lock = InstanceLock(sys.argv[1], "https://abc.supabase.co")
print(lock.taken, flush=True)
while True:
    lock.taken
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="about Linux's abstract sockets")
root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else, or goes elsewhere: only root may")


@pytest.fixture
def name() -> str:
    return f"test-{uuid4()}"  # others test on this host


@pytest.fixture(params=["socket", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take either kind of lock; the folder of the files, empty for sockets."""
    if request.param == "socket":
        if sys.platform != "linux":
            pytest.skip("There are no abstract sockets.")
        return ""
    monkeypatch.setattr(instance, "_ABSTRACT", False)
    monkeypatch.setattr(instance, "_FOLDER", tmp_path)
    return str(tmp_path)


@contextmanager
def another(
    name: str, folder: str = "", *, act: str = "", inside: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in another process until it is ended."""
    with subprocess.Popen(
        [*inside, sys.executable, "-c", HOLD, name, folder, act],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_run_of_a_name_is_refused_in_a_sentence(name: str, folder: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with another(name, folder):
        assert lock.taken
        refused = f"runs on this host as instance {name}: .*WATCHER_INSTANCE"
        with pytest.raises(Misconfigured, match=refused), lock.held():
            pytest.fail("Both have it.")
        assert lock.taken
    assert not InstanceLock(name, PROJECT).taken


def test_other_names_and_other_projects_are_none_of_its_business(name: str, folder: str) -> None:
    with (
        InstanceLock(name, PROJECT).held(),
        InstanceLock(f"{name}-2", PROJECT).held(),
        InstanceLock(name, "https://xyz.supabase.co").held(),
    ):
        assert InstanceLock(name, PROJECT).taken


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_goes_with_its_process_however_that_ends(name: str, folder: str, number: signal.Signals) -> None:
    with another(name, folder) as process:
        process.send_signal(number)
        process.wait()
        with InstanceLock(name, PROJECT).held():
            pass


def test_it_is_free_after_the_block_also_where_that_failed(name: str, folder: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with pytest.raises(ZeroDivisionError), lock.held():
        1 / 0  # noqa: B018
    assert not lock.taken
    with lock.held():
        assert lock.taken


def test_who_is_stopped_still_has_it(name: str, folder: str) -> None:
    with another(name, folder) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        lock = InstanceLock(name, PROJECT)
        assert lock.taken
        with pytest.raises(Misconfigured), lock.held():
            pytest.fail("It may go on at any time.")


def test_a_program_that_it_started_does_not_keep_it(name: str, folder: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with lock.held():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert not lock.taken
    child.kill()
    child.wait()


def test_a_part_of_it_that_was_forked_keeps_it_as_long_as_it_lives(name: str, folder: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with another(name, folder, act="fork") as process:
        assert process.wait() == 0
        assert lock.taken
        process.communicate()  # ends the input for which the forked one waits, and waits for the end of its output
    assert not lock.taken


@linux
def test_who_asks_whether_it_is_taken_does_not_keep_a_run_from_starting(name: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with subprocess.Popen([sys.executable, "-c", ASK, name], stdout=subprocess.PIPE) as asking:
        try:
            assert asking.stdout is not None
            asking.stdout.readline()
            for _ in range(20_000):
                with lock.held():
                    pass
        finally:
            asking.kill()


@linux
@root
def test_it_is_one_for_all_users_of_the_machine(name: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with another(name, act="as nobody"):
        assert lock.taken
        with pytest.raises(Misconfigured, match="runs on this host"), lock.held():
            pytest.fail("It is another user's.")
    assert not lock.taken


def has_namespaces() -> bool:
    try:
        return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@linux
@pytest.mark.skipif(not has_namespaces(), reason="needs a network namespace: root and util-linux")
def test_a_container_with_a_network_of_its_own_is_a_machine_of_its_own(name: str) -> None:
    lock = InstanceLock(name, PROJECT)
    with another(name, inside=("unshare", "--net")):
        assert not lock.taken
        with lock.held(), pytest.raises(AssertionError), another(name):
            pytest.fail("It is taken here.")


def test_a_lock_that_cannot_be_taken_for_another_reason_is_told_as_that(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "_ABSTRACT", False)
    monkeypatch.setattr(instance, "_FOLDER", tmp_path)
    lock = InstanceLock(name, PROJECT)
    with lock.held():
        [file] = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match=f"cannot be taken on this host .*{file}"), lock.held():
        pytest.fail("It followed a link.")
    assert not lock.taken
    file.unlink()
    os.mkfifo(file)
    with lock.held():
        assert lock.taken, "And it does not wait for whoever writes to it."
