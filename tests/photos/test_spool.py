"""The spool: private, one instance's own, and empty between attempts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from watcher.errors import Misconfigured, Outage
from watcher.photos.spool import Spool

HOLD = """
import sys
from pathlib import Path
from watcher.photos.spool import Spool
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
        Spool(Path("/proc")).check_space()  # which has no space at all


def test_a_folder_that_went_away_while_we_run_is_an_outage(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone")
    with pytest.raises(Outage, match="cannot be accessed"):
        spool.check_space()
    with pytest.raises(Outage), spool.folder(7):
        pytest.fail("made a folder in nothing")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that is not the spool's business, as it has to stay."""
    folder = tmp_path / "elsewhere"
    (folder / "attempt-1").mkdir(parents=True)
    (folder / "attempt-1" / "letter").write_bytes(b"mine")
    (folder / "letter").write_bytes(b"mine")
    folder.chmod(0o755)
    return folder


def untouched(folder: Path) -> bool:
    there = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
    return there == ["attempt-1", "attempt-1/letter", "letter"] and mode(folder) == 0o755


def test_a_link_in_the_spool_is_removed_and_not_followed(tmp_path: Path, elsewhere: Path) -> None:
    folder = tmp_path / "attic"
    (folder / "attempt-2").mkdir(parents=True)
    (folder / "attempt-1").symlink_to(elsewhere)
    (folder / "attempt-2" / "images").symlink_to(elsewhere)
    (folder / "attempt-3").symlink_to(elsewhere / "letter")
    (folder / "attempt-4").symlink_to("nowhere")
    (folder / "attempt-5").write_bytes(b"no folder")
    with Spool(folder).locked():
        assert [file.name for file in folder.iterdir()] == ["lock"]
    assert untouched(elsewhere)


def test_an_attempt_never_writes_through_a_link_planted_under_its_name(spool: Spool, elsewhere: Path) -> None:
    planted = elsewhere.parent / "spool" / "attempt-9"
    planted.symlink_to(elsewhere)
    with spool.folder(9) as folder:
        assert folder == planted
        assert not folder.is_symlink()
        (folder / "image_001").write_bytes(b"a face")
    assert not planted.exists()
    assert untouched(elsewhere)


def test_a_link_planted_while_an_attempt_runs_is_all_that_goes_with_it(spool: Spool, elsewhere: Path) -> None:
    with spool.folder(9) as folder:
        folder.rmdir()
        folder.symlink_to(elsewhere)
    assert not folder.is_symlink()
    assert untouched(elsewhere)


def test_what_an_attempt_finds_under_its_name_is_not_published(spool: Spool) -> None:
    with spool.folder(9) as folder:
        (folder / "image_001").write_bytes(b"somebody's")
        with spool.folder(9) as again:
            assert list(again.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "lock"])
def test_a_link_in_place_of_the_spool_or_its_lock_is_refused(
    tmp_path: Path, elsewhere: Path, place: str
) -> None:
    folder = tmp_path / "attic"
    if place == "folder":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        (folder / "lock").symlink_to(elsewhere / "new")
    with pytest.raises(Misconfigured, match=r"cannot be written to .*WATCHER_SPOOL"), Spool(folder).locked():
        pytest.fail("locked somebody else's")
    assert untouched(elsewhere)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_spool_that_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "attic"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(Misconfigured, match="belongs to another user"), Spool(folder).locked():
        pytest.fail("locked somebody else's")
    assert mode(folder) != 0o700, "It is left as it was."
