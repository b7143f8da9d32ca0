"""The operator's commands as a person meets them: what they print, ask and answer."""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tests.operator import commands
from tests.support.database import Worker
from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from watcher.sandbox.faults import Answer, Delay, Hold
from watcher.settings.settings import environment

watcher = partial(commands.watcher, columns=100)


def failed(scene: Scene, message: str = "Image 2 (beach.jpg) is gone.", code: str = "image_missing") -> UUID:
    row = scene.insert(name="Ada")
    Worker(scene.database).fail(Worker(scene.database).claim_one(), code, message)
    return row


def test_an_empty_queue_is_four_lines(scene: Scene) -> None:
    lines = watcher(scene, "status").output.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["Pending", "0"],
        ["Publishing", "0"],
        ["Published", "0"],
        ["Failed", "0"],
    ]


def test_status_names_who_waits_who_works_and_what_failed_and_why(scene: Scene) -> None:
    worker = Worker(scene.database, "attic")
    gone = failed(scene)
    late = scene.insert(name="Bob")
    worker.defer(worker.claim_one(), "The Hub is away.")
    running = scene.insert(name="Eve")
    worker.renew([worker.claim_one()], [2])
    new = scene.insert(name="Zoë")
    output = watcher(scene, "status", columns=200).output

    def line(about: UUID) -> str:
        [found] = [line for line in output.splitlines() if str(about) in line]
        return " ".join(found.split())

    assert "1 image_missing" in output
    assert "1 deferred" in output
    assert line(gone).startswith("Ada ")
    assert line(gone).endswith("Image 2 (beach.jpg) is gone.")
    assert line(late).endswith("The Hub is away.")
    assert line(running).startswith("Eve ")
    assert line(running).endswith("2 of 3 attic")
    assert line(new).endswith("due its turn")
    assert "watcher doctor" not in output
    scene.database.pass_time(600)
    assert (
        "The oldest due row has waited for 10 min. Run `watcher doctor`." in watcher(scene, "status").output
    )


def test_status_sends_to_the_doctor_unless_rows_are_paused(scene: Scene) -> None:
    scene.insert()
    scene.database.pass_time(600)
    for kind, sent in (("train", True), ("publish", False)):
        Worker(scene.database).call("pause", kind=kind)
        output = watcher(scene, "status").output
        assert f"{kind} until `watcher resume`" in " ".join(output.split())
        assert ("Run `watcher doctor`." in output) is sent


def test_status_tells_why_a_row_waits(scene: Scene) -> None:
    def told() -> str:
        return " ".join(watcher(scene, "status", columns=200).output.split())

    scene.insert(name="Zoë")
    worker = Worker(scene.database, "attic")
    worker.claim(0)
    assert told().endswith("due its turn")
    worker.ask({}, outages=Jsonb({"erase": "The Hub refused to delete."}))
    assert "Outage (erase), as attic reports it: The Hub refused to delete." in told()
    assert told().endswith("due its turn"), "Erasing alone is in an outage."
    for kind, what in (("publish", " (publish)"), ("every", "")):
        worker.ask({}, outages=Jsonb({kind: "The Hub refused to store data."}))
        assert f"Outage{what}, as attic reports it: The Hub refused to store data." in told()
        assert told().endswith("due outage")
    Worker(scene.database, "cellar").claim(0)
    assert told().endswith("due its turn"), "Another daemon is in none."
    worker.ask({}, outages=Jsonb({"every": "The Hub refused to store data."}))
    scene.database.pass_time(31)
    assert told().endswith("due no daemon was heard lately")


def test_status_says_how_many_there_are_where_it_shows_only_some(scene: Scene) -> None:
    for _ in range(12):
        failed(scene)
    output = watcher(scene, "status").output
    assert "Failed, the last 10 of 12" in output
    assert len([line for line in output.splitlines() if line.startswith("Ada")]) == 10


def test_status_lists_all_that_failed_since_a_time_or_of_one_user(scene: Scene) -> None:
    def ids(*options: str) -> set[UUID]:
        rows = json.loads(watcher(scene, "status", "--failed", "--json", *options).output)["last_failed"]
        return {UUID(row["id"]) for row in rows}

    old = failed(scene)
    scene.database.pass_time(7200)
    new = {failed(scene) for _ in range(11)}
    other = scene.database.insert(user := scene.database.user())
    Worker(scene.database).fail(Worker(scene.database).claim_one())
    assert ids() == {old, *new, other}
    assert ids("--since", "1h") == {*new, other}
    assert ids("--since", "2020-01-01T00:00Z", "--user", str(user)) == {other}
    assert ids("--user", str(uuid4())) == set()

    lines = watcher(scene, "status", "--failed", columns=200).output.splitlines()
    assert lines[0] == "Failed"
    assert sum("Image 2" in line for line in lines) == 13
    lines = watcher(scene, "status", "--since", "1h", columns=200).output.splitlines()
    assert lines[3].startswith("Failed      12  12 image_missing since ")
    assert ", the last 10 of 12" in "\n".join(lines)
    nobody = watcher(scene, "status", "--failed", "--user", str(uuid4()))
    assert (nobody.exit_code, nobody.output) == (0, "No failed rows.\n")


def test_status_of_one_user_counts_no_others(scene: Scene) -> None:
    users = [scene.database.user() for _ in range(2)]
    for user in users:
        worker = Worker(scene.database)
        for _ in range(2):
            scene.database.insert(user)
        published, _running = (claim["attempt"] for claim in worker.claim(2))
        worker.complete(published)
    for user in [*users, users[1]]:
        scene.database.insert(user)

    def counts(*options: str) -> list[int]:
        lines = watcher(scene, "status", *options, columns=200).output.splitlines()
        return [int(line.split()[1]) for line in lines[:4]]

    assert counts() == [3, 2, 2, 0]
    assert counts("--user", str(users[0])) == [1, 1, 1, 0]
    assert counts("--user", str(users[1])) == [2, 1, 1, 0]
    scene.database.pass_time(25 * 3600)
    assert counts("--user", str(users[0]))[2] == 0
    assert counts("--user", str(users[0]), "--since", "3d")[2] == 1


def test_status_tells_that_the_users_retries_make_a_row_wait(scene: Scene) -> None:
    row, worker = failed(scene), Worker(scene.database)
    user = scene.database.row(row)["user_id"]
    retry = "update public.trained_identities set status = 'pending' where id = %s"
    for _ in range(3):
        scene.database.run(retry, [row], role="authenticated", user=user)
        worker.fail(worker.claim_one())
    scene.database.run(retry, [row], role="authenticated", user=user)
    [line] = [line for line in watcher(scene, "status", columns=200).output.splitlines() if str(row) in line]
    assert line.endswith("It was tried again several times within an hour, so it waits.")


@pytest.mark.parametrize("columns", [80, 200])
def test_nothing_is_wider_than_the_terminal_and_no_id_is_cut(scene: Scene, columns: int) -> None:
    row = failed(
        scene, "Image 2 (a very long name of a photo of a face on a beach.jpg) is text; " + "x" * 300
    )
    for command in (("status",), ("show", str(row))):
        output = watcher(scene, *command, columns=columns).output
        assert str(row) in output
        assert max(map(len, output.splitlines())) <= columns


def test_without_a_terminal_there_is_no_colour_and_room_for_a_row_on_one_line(scene: Scene) -> None:
    row = failed(scene)
    output = watcher(scene, "status", columns=None).output
    assert "\x1b" not in output
    [line] = [line for line in output.splitlines() if str(row) in line]
    assert line.endswith("Image 2 (beach.jpg) is gone.")
    assert all(line == line.rstrip() for line in output.splitlines())


def test_a_long_name_leaves_room_for_the_reason_and_is_whole_on_its_own_screen(scene: Scene) -> None:
    name = "日本語の名前" * 16
    row = scene.insert(name=name)
    Worker(scene.database).fail(
        Worker(scene.database).claim_one(), "image_missing", "Image 2 (beach.jpg) is gone."
    )
    output = watcher(scene, "status", columns=80).output
    assert name[:5] in output
    assert len(output.splitlines()) < 14
    assert name in watcher(scene, "show", str(row), columns=250).output


def test_show_names_the_object_of_the_image_at_fault(scene: Scene) -> None:
    row = failed(scene)
    path = scene.database.value("select image_paths[2] from public.trained_identities where id = %s", (row,))
    output = watcher(scene, "show", str(row), columns=200).output
    [line] = [line.split() for line in output.splitlines() if line.startswith("image 2")]
    assert line[2:] == path.split()


def test_what_others_wrote_cannot_command_the_terminal(scene: Scene) -> None:
    row = failed(scene, "\x1b[2J[bold]gone\x1b]0;title\x07")
    for command in (("status",), ("show", str(row))):
        output = watcher(scene, *command, columns=200).output
        assert "\x1b" not in output
        assert "[bold]gone" in output


def test_show_tells_every_attempt_and_what_to_do(scene: Scene) -> None:
    worker = Worker(scene.database, "attic")
    row = scene.insert(name="Ada")
    first = worker.claim_one()
    name = worker.reserve(first)
    worker.defer(first, "The Hub is away.")
    scene.database.pass_time(10)
    worker.fail(worker.claim_one(), "hub_refused", "The Hub refuses the card.")
    output = watcher(scene, "show", str(row), columns=200).output
    assert f"Ada  {row}" in output
    assert "The Hub refuses the card. (hub_refused)" in output
    assert name in output
    attempts = [" ".join(line.split()) for line in output.splitlines() if "attic" in line]
    ends = ("attic deferred The Hub is away.", "attic failed The Hub refuses the card.")
    assert [line.endswith(end) for line, end in zip(attempts, ends, strict=True)] == [True, True]
    assert f"watcher replay {row}" in output


def test_show_of_no_row_ends_with_1(scene: Scene) -> None:
    ended = watcher(scene, "show", str(uuid4()))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "There is no row" in ended.stderr


def test_the_running_attempt_is_told_by_what_it_spends_and_by_its_number(scene: Scene) -> None:
    row = scene.insert()
    worker = Worker(scene.database)
    worker.defer(worker.claim_one(), "The Hub is away.")
    scene.database.pass_time(600)
    number = worker.claim_one()
    assert f"attempt 2 of 8 (number {number}) is running" in watcher(scene, "show", str(row)).output


def test_json_is_what_the_database_told(scene: Scene) -> None:
    row = failed(scene)
    assert json.loads(watcher(scene, "status", "--json").output)["failed"] == {"image_missing": 1}
    assert json.loads(watcher(scene, "show", str(row), "--json").output)["id"] == str(row)
    assert json.loads(watcher(scene, "replay", "--failed", "--dry-run", "--json").output)["replayed"] == 1
    assert json.loads(watcher(scene, "replay", "--failed", "--yes", "--json").stdout)["codes"] == {
        "image_missing": 1
    }
    assert scene.database.status(row) == "pending"


def test_replay_needs_to_be_told_which_rows_and_that_it_is_meant(scene: Scene) -> None:
    row = failed(scene)
    for arguments in (
        [],
        ["--failed"],
        ["--yes"],
        ["--since", "soon"],
        ["--since", "2026-11-22T10:00"],
        ["x"],
    ):
        assert watcher(scene, "replay", *arguments).exit_code == 2
    assert scene.database.status(row) == "failed"
    for sure in ([], ["--yes"]):
        dry = watcher(scene, "replay", "--failed", "--dry-run", *sure)
        assert (dry.exit_code, dry.output) == (0, f"Would replay 1 failed row: 1 image_missing.\n  {row}\n")
        assert scene.database.status(row) == "failed"
    zoneless = watcher(scene, "replay", "--since", "2026-11-22", "--dry-run")
    assert "write 2026-11-22T00:00Z for UTC" in zoneless.stderr


def test_replay_says_what_it_took_what_it_left_alone_and_what_is_not_there(scene: Scene) -> None:
    first, second, waiting = failed(scene), failed(scene, code="hub_refused"), scene.insert()
    done = watcher(scene, "replay", str(first), str(waiting), str(uuid4()), "--yes")
    assert done.output.splitlines() == [
        "Replayed 1 failed row: 1 image_missing.",
        "Left alone: 1 pending.",
        "Not found, or not matching: 1 of the 3 given.",
    ]
    assert [scene.database.status(row) for row in (first, second)] == ["pending", "failed"]


def test_replay_chooses_by_the_time_of_the_failure(scene: Scene) -> None:
    old = failed(scene)
    scene.database.pass_time(7200)
    new = failed(scene)
    assert "Replayed 1 failed row" in watcher(scene, "replay", "--since", "1h", "--yes").output
    assert [scene.database.status(row) for row in (old, new)] == ["failed", "pending"]
    assert "Replayed 1 failed row" in watcher(scene, "replay", "--since", "2020-01-01T00:00Z", "--yes").output


def many_failed(scene: Scene, count: int) -> None:
    failed(scene)
    scene.database.overwrite(
        "insert into public.trained_identities (user_id, identity_name, image_paths, status, error_code, error_message) "
        "select user_id, identity_name, image_paths, status, case when n %% 2 = 0 then error_code else 'hub_refused' end, "
        "error_message from public.trained_identities, generate_series(2, %s) n",
        [count],
    )


def pending(scene: Scene) -> int:
    count = scene.database.value("select count(*) from public.trained_identities where status = 'pending'")
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("as_json", [False, True])
def test_any_number_of_rows_is_replayed_in_batches_whose_counts_are_added_up(
    scene: Scene, as_json: bool
) -> None:
    many_failed(scene, 2500)
    if as_json:
        done = watcher(scene, "replay", "--failed", "--yes", "--json")
        assert json.loads(done.stdout) == {
            "replayed": 2500, "codes": {"image_missing": 1251, "hub_refused": 1249},
            "pending": 0, "publishing": 0, "published": 0,
        }  # fmt: skip
    else:
        done = watcher(scene, "replay", "--failed", "--yes")
        assert done.output == "Replayed 2,500 failed rows: 1,251 image_missing, 1,249 hub_refused.\n"
    assert pending(scene) == 2500
    assert len(scene.seen("POST", "/rpc/watcher_replay")) == 3


def test_a_dry_run_counts_any_number_of_rows_in_one_call(scene: Scene) -> None:
    many_failed(scene, 1500)
    lines = watcher(scene, "replay", "--failed", "--dry-run").output.splitlines()
    assert lines[0].startswith("Would replay 1,500 failed rows")
    assert (len({UUID(line.strip()) for line in lines[1:-1]}), lines[-1]) == (1000, "  … and 500 more")
    assert len(scene.seen("POST", "/rpc/watcher_replay")) == 1


def test_ctrl_c_ends_a_replay_after_the_batch_in_progress_and_says_how_many_are_done(scene: Scene) -> None:
    many_failed(scene, 2500)
    second = scene.sandbox.faults.add(Hold("after"), service="rest", path="watcher_replay$", skip=1)
    command = [sys.executable, "-m", "watcher", "replay", "--failed", "--yes"]
    with subprocess.Popen(
        command,
        env=environment(**scene.sandbox.settings()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        second.wait_reached(PATIENCE)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        second.release()
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert output.startswith("Replayed 2,000 failed rows: ")
    assert errors == "Interrupted: the same command replays the rest.\n"
    assert pending(scene) == 2000
    assert "Replayed 500 failed rows" in watcher(scene, "replay", "--failed", "--yes").output


def test_a_replay_that_meets_an_error_says_how_many_are_done(scene: Scene) -> None:
    many_failed(scene, 1500)
    scene.sandbox.faults.add(Answer(503), service="rest", path="watcher_replay$", skip=1)
    ended = run(["replay", "--failed", "--yes"], scene.sandbox.settings())
    assert ended.returncode == 1
    assert ended.stdout.startswith("Replayed 1,000 failed rows: ")
    assert ended.stderr.startswith("watcher: Supabase")
    assert pending(scene) == 1000


def test_a_replay_shows_a_bar_on_a_terminal(scene: Scene) -> None:
    many_failed(scene, 1500)
    scene.sandbox.faults.add(Delay(0.3), service="rest", path="watcher_replay$", times=None)
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "watcher", "replay", "--failed"],
        env=environment(**scene.sandbox.settings(), TERM="xterm"),
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=its_end,
    ) as process:
        os.close(its_end)
        os.write(terminal, b"y\n")
        shown = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(terminal, 4096):
                shown += part
        os.close(terminal)
        assert process.stdout is not None
        output = process.stdout.read()
    assert b"1000/1500" in shown
    assert output.endswith(b"hub_refused.\n")


def test_a_supabase_that_is_away_ends_with_1_and_a_missing_setting_with_78(scene: Scene) -> None:
    settings = scene.sandbox.settings()
    scene.sandbox.faults.add(Answer(503), service="rest", times=None)
    away = run(["status"], settings)
    assert away.returncode == 1
    assert "Supabase could not be reached" in away.stderr
    assert "Traceback" not in away.stderr
    del settings["SUPABASE_URL"]
    assert run(["status"], settings).returncode == 78


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_who_reads_only_the_first_line_is_not_told_of_a_failure(scene: Scene, command: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "watcher", command],
        env=environment(**scene.sandbox.settings()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)


def test_the_operator_needs_no_hub_token(scene: Scene) -> None:
    settings = {name: value for name, value in scene.sandbox.settings().items() if not name.startswith("HF_")}
    assert run(["status"], settings).returncode == 0


@pytest.mark.parametrize(("answer", "code", "status"), [("y", 0, "pending"), ("n", 1, "failed")])
def test_a_person_is_told_first_and_asked(scene: Scene, answer: str, code: int, status: str) -> None:
    row = failed(scene)
    terminal, its_end = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "watcher", "replay", "--failed"],
            env=environment(**scene.sandbox.settings()),
            stdin=its_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            os.write(terminal, f"{answer}\n".encode())
            assert process.stdout is not None
            said = process.stdout.read()
    finally:
        os.close(terminal)
        os.close(its_end)
    assert "Would replay 1 failed row: 1 image_missing.\n" in said
    assert "Replay them? [y/N]" in said
    assert (process.returncode, scene.database.status(row)) == (code, status)


def test_watching_shows_what_changes_until_ctrl_c(scene: Scene) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "watcher", "status", "--watch", "--json"],
        env=environment(**scene.sandbox.settings()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pending"] == 0
        scene.insert()
        assert json.loads(process.stdout.readline())["pending"] == 1
        process.send_signal(2)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def run(arguments: list[str], settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watcher", *arguments],
        env={"PATH": environment()["PATH"], "HOME": "/nonexistent"} | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# Limits.


def test_limits_are_shown_and_set_for_everybody_and_for_one(scene: Scene) -> None:
    user = scene.database.user()

    def line(*arguments: str) -> list[str]:
        output = watcher(scene, "limits", *arguments, columns=200).output
        [found] = [line for line in output.splitlines() if line.startswith("rows_per_day")]
        return found.split("  ")[0:1] + found.split()[1:4]

    assert line()[1:3] == ["100", "default"]
    assert line("rows_per_day", "200")[1:3] == ["200", "everybody"]
    assert line("--user", str(user))[1:4] == ["200", "0", "everybody"]
    assert line("rows_per_day", "1000", "--user", str(user))[1:4] == ["1,000", "0", "this"]
    assert line()[1:4] == ["200", "everybody,", "1"]
    scene.database.insert(user)
    assert line("rows_per_day", "default", "--user", str(user))[1:4] == ["200", "1", "everybody"]
    assert line("rows_per_day", "default")[1:3] == ["100", "default"]
    told = json.loads(watcher(scene, "limits", "--json").output)
    assert [limit["name"] for limit in told][:2] == ["open_rows", "rows_per_day"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rows_per_day"], "Say the value, too"),
        (["rows_per_day", "many"], "'many' is neither a number nor default"),
        (["speed", "3"], "There is no limit speed: choose open_rows, rows_per_day"),
        (["open_rows", "99999"], "open_rows must be from 0 to 10000."),
        (["erase_photos", "2"], "erase_photos must be from 0 to 1."),
        (["erase_photos", "0", "--user", str(uuid4())], "erase_photos is for everybody: leave out --user."),
    ],
)
def test_a_limit_that_cannot_be_is_a_usage_error(scene: Scene, arguments: list[str], says: str) -> None:
    found = watcher(scene, "limits", *arguments)
    assert (found.exit_code, says in found.output) == (2, True), found.output


def test_a_limit_for_nobody_is_not_set(scene: Scene) -> None:
    found = watcher(scene, "limits", "open_rows", "3", "--user", str(uuid4()))
    assert found.exit_code == 2
    assert "Error: There is no user" in found.output, "Without the name of a function or a code of Postgres."
    assert scene.database.run("select * from watcher.limits") == []
