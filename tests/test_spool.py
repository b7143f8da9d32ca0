"""The spool: private, one instance's own, and empty between attempts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from watcher.errors import Misconfigured, Outage
from watcher.spool import Spool

HOLD = """
import sys
from pathlib import Path
from watcher.spool import Spool
with Spool(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_second_run_of_the_same_instance_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "attic"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"locked\n"
        with (
            pytest.raises(Misconfigured, match="Another watcher runs as instance attic"),
            Spool(folder).locked(),
        ):
            pytest.fail("locked twice")
        with Spool(tmp_path / "cellar").locked():
            pass  # another instance on the same host
        first.kill()
    with Spool(folder).locked():
        pass


def test_the_lock_can_be_had_again_after_it_was_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with Spool(tmp_path / "attic").locked():
            pass


def test_what_a_killed_run_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "attic" / "attempt-7"
    left.mkdir(parents=True)
    (left / "image_001").write_bytes(b"a face")
    with Spool(tmp_path / "attic").locked():
        assert not left.exists()


def test_nobody_else_may_look_into_it(tmp_path: Path) -> None:
    (tmp_path / "attic").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        with Spool(tmp_path / "attic").locked(), Spool(tmp_path / "attic").folder(7) as folder:
            assert mode(tmp_path / "attic") == 0o700
            assert mode(tmp_path / "attic" / "lock") == 0o600
            assert mode(folder) == 0o700
    finally:
        os.umask(before)


def test_an_attempts_folder_goes_with_the_attempt_whatever_ended_it(spool: Spool) -> None:
    with pytest.raises(KeyError), spool.folder(7) as folder:
        (folder / "image_001").write_bytes(b"a face")
        raise KeyError
    assert not folder.exists()


def test_a_folder_that_cannot_be_had_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(Misconfigured, match=r"cannot be written to .*WATCHER_SPOOL"),
        Spool(tmp_path / "file" / "attic").locked(),
    ):
        pytest.fail("locked nothing")


def test_a_full_disk_is_an_outage() -> None:
    with pytest.raises(Outage, match="is full"):
        Spool(Path("/proc")).check_room()  # which has no room at all


def test_a_folder_that_went_away_while_we_run_is_an_outage(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone")
    with pytest.raises(Outage, match="is gone"):
        spool.check_room()
    with pytest.raises(Outage), spool.folder(7):
        pytest.fail("made a folder in nothing")
