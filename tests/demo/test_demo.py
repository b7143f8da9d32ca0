"""What a newcomer types: the demo and the sandbox, as commands."""

import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import environment
from tests.acceptance.stage import elsewhere
from tests.support.pictures import jpeg
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home."""
    with tempfile.TemporaryDirectory(prefix="home-") as folder:
        yield Path(folder)


def _offspring(home: Path) -> list[str]:
    """The command lines of processes that were started with this home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return found


def _demo(home: Path, *options: str, within: float = 2 * PATIENCE) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "demo", "--json", *options],
        env=environment(elsewhere(), home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert _offspring(home) == []
    return done


def test_the_demo_shows_every_step_and_ends_with_one_json_line(home: Path) -> None:
    done = _demo(home)
    assert done.returncode == 0, done.stderr
    for step in ("Signed in", "Inserted the row", "pending", "publishing", "published", "README.md"):
        assert step in done.stderr
    assert done.stderr.index("pending") < done.stderr.index("publishing") < done.stderr.rindex("published")
    [line] = done.stdout.splitlines()
    result = json.loads(line)
    assert result["status"] == "published"
    assert result["url"] == f"{result['hf_endpoint']}/{result['model_id']}"
    assert result["seconds"] > 0
    assert result["identity_id"] in done.stderr
    names = {Path(path).stem for path in result["files"] if path.startswith("images/")}
    assert names == {f"image_{n:03}" for n in range(1, len(names) + 1)}
    assert {"README.md", "training_config.json", ".gitattributes"} < result["files"].keys()
    assert "Traceback" not in done.stderr
    assert not list(home.rglob("attempt-*"))


def test_the_demo_shows_that_a_deleted_row_is_gone(home: Path) -> None:
    done = _demo(home, "--erase")
    assert done.returncode == 0, done.stderr
    erased = json.loads(done.stdout)["erased"]
    assert erased["repos"] == 1
    assert erased["photos"] >= 3
    assert "What stays is a receipt" in done.stderr


def test_the_demo_goes_on_to_trained_weights_and_first_pictures(home: Path) -> None:
    done = _demo(home, "--train", within=6 * PATIENCE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "ready"
    weights = result["weights"]
    assert weights["sha256"] == result["files"][weights["file"]]
    assert [sample["path"].rpartition("/")[2] for sample in result["samples"]] == [
        f"sample_{number}.png" for number in (1, 2, 3, 4)
    ]
    assert all(sample["bytes"] > 0 for sample in result["samples"])
    assert done.stderr.index(" published") < done.stderr.index("s  ready")
    for line in ("load_lora_weights", "hf download"):
        assert line in done.stderr


def test_the_demo_takes_photos_of_ones_own(home: Path) -> None:
    photos = {f"{n}.jpeg": jpeg(seed=n) for n in range(1, 5)}
    (home / "photos").mkdir()
    for name, content in photos.items():
        (home / "photos" / name).write_bytes(content)
    (home / "photos" / "notes.txt").write_text("not a photo")
    done = _demo(home, "--photos", str(home / "photos"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for number, (name, content) in enumerate(photos.items(), 1):
        path = f"images/image_{number:03}.jpg"
        assert result["files"][path] == hashlib.sha256(content).hexdigest()
        assert result["photos"][path] == name
        assert re.search(rf"image_{number:03}\.jpg .*{re.escape(name)}", done.stderr)
    assert result["skipped"] == ["notes.txt"]
    assert "Left out" in done.stderr
    assert result["private"] is True


def test_the_demo_names_the_users_own_file_that_is_refused_also_in_json(home: Path) -> None:
    (home / "photos").mkdir()
    for name in ("Anna.jpg", "Boat.jpg", "Cat.jpg"):
        (home / "photos" / name).write_bytes(b"no picture" if name == "Boat.jpg" else jpeg(seed=len(name)))
    done = _demo(home, "--photos", str(home / "photos"))
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    failure = json.loads(line)
    assert failure["status"] == "failed"
    assert "Image 2 " in failure["error"]
    assert failure["error"].endswith("That is the file Boat.jpg.")
    assert failure["error"] in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_says_in_a_sentence_what_is_wrong_with_the_photos(home: Path) -> None:
    (home / "photos").mkdir()
    done = _demo(home, "--photos", str(home / "photos"))
    assert done.returncode == 78
    [sentence] = done.stderr.splitlines()
    assert "3 to 40" in sentence
    failure = json.loads(done.stdout)
    assert (failure["status"], f"watcher: {failure['error']}") == ("failed", sentence)


@contextmanager
def _command(home: Path, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "watcher", *arguments],
        env=environment({}, home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _settings(process: "subprocess.Popen[str]") -> dict[str, str]:
    """Read what a sandbox prints until it is ready, as a shell would."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    for line in process.stdout:
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "export"
            name, _, value = words[1].partition("=")
            found[name] = value
        if line.startswith("# Ready"):
            return found
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.mark.faults
def test_a_sandbox_keeps_its_state_and_its_keys_and_stops_on_ctrl_c(home: Path) -> None:
    home.chmod(0o755)  # Postgres runs as somebody else where we are root
    command = (*("sandbox", "--data", str(home / "data"), "--port", "0", "--hub-port", "0"),)
    seen: list[dict[str, str]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with _command(home, *command) as process:
            settings = _settings(process)
            key = settings["SUPABASE_SECRET_KEY"]
            with httpx.Client(
                base_url=settings["SUPABASE_URL"], headers={"apikey": key, "Authorization": f"Bearer {key}"}
            ) as supabase:
                if not seen:
                    new = {"email": "ada@example.com", "password": "correct horse", "email_confirm": True}
                    supabase.post("/auth/v1/admin/users", json=new).raise_for_status()
                users = supabase.get("/auth/v1/admin/users").raise_for_status().json()["users"]
                assert [user["email"] for user in users] == ["ada@example.com"]
                version = supabase.post("/rest/v1/rpc/watcher_version", json={})
                assert version.json()["schema"]
            seen.append(settings)
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
        assert _offspring(home) == []
    for name in ("SUPABASE_SECRET_KEY", "SUPABASE_PUBLISHABLE_KEY", "HF_TOKEN", "HF_NAMESPACE"):
        assert seen[0][name] == seen[1][name]


@pytest.mark.faults
def test_a_demo_that_is_kept_says_how_to_look_around_and_stops_on_ctrl_c(home: Path) -> None:
    with _command(home, "demo", "--json", "--keep") as process:
        assert process.stdout is not None
        result = json.loads(process.stdout.readline())
        assert process.stderr is not None
        token, said = "", list[str]()
        for line in process.stderr:
            if "export HF_TOKEN=" in line:
                token = line.partition("=")[2].strip()
            program = line.split()[0] if line.strip() else ""
            if program.startswith("/"):
                assert Path(program).exists()
                said.append(line.split()[1])
            if "Ctrl-C" in line:
                break
        assert said[:3] == ["status", "show", "doctor"]
        answer = httpx.get(
            f"{result['hf_endpoint']}/api/models/{result['model_id']}",
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert _offspring(home) == []


@pytest.mark.faults
@pytest.mark.usefixtures("heeds_hangup")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent died")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_demo_that_dies_takes_all_with_it(home: Path, number: signal.Signals) -> None:
    with _command(home, "demo") as process:
        assert process.stdout is not None
        assert any("watcher run" in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(PATIENCE) != 0
        wait_until(lambda: not _offspring(home), pause=0.1)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent died")
def test_a_demo_whose_parent_is_killed_ends_with_it_as_under_make(home: Path) -> None:
    line = f"{shlex.quote(sys.executable)} -m watcher demo --keep & wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", line], env=environment({}, home), cwd=home, stdout=subprocess.PIPE, text=True
    ) as make:
        assert make.stdout is not None
        assert any("watcher run" in said for said in make.stdout)
        make.kill()
        wait_until(lambda: not _offspring(home), pause=0.1)


@pytest.mark.faults
def test_a_demo_that_is_kept_ends_when_nobody_reads_what_it_says(home: Path) -> None:
    with _command(home, "demo", "--keep") as process:
        assert process.stdout is not None
        assert any("Ctrl-C" in line for line in process.stdout)
        process.stdout.close()
        process.stdout = None
        assert process.wait(PATIENCE) == 0
    assert _offspring(home) == []


@pytest.mark.faults
def test_a_demo_that_is_interrupted_leaves_nothing_running(home: Path) -> None:
    with _command(home, "demo") as process:
        assert process.stdout is not None
        assert any("watcher run" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) != 0
    assert _offspring(home) == []
