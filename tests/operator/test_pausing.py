"""`watcher pause` and `resume`: nothing is claimed meanwhile, no attempt counts, and it is told wherever one looks."""

import json

import pytest

from tests.operator.commands import watcher
from tests.support.database import Worker
from tests.support.scene import Scene


def test_nothing_is_claimed_until_it_is_resumed(scene: Scene) -> None:
    row = scene.insert()
    worker = Worker(scene.database)
    said = watcher(scene, "pause", "--why", "The Hub is being moved.").output
    assert "publish until `watcher resume` (The Hub is being moved.)" in said
    answer = worker.ask()
    assert (answer["claims"], answer["paused"]) == (
        [],
        ["erase", "follow", "notify", "publish", "sweep", "train"],
    )
    output = " ".join(watcher(scene, "status").output.split())
    assert "publish until `watcher resume` (The Hub is being moved.)" in output
    assert "due paused" in output
    assert watcher(scene, "resume").output == "Nothing is paused.\n"
    [claim] = worker.claim()
    assert claim["identity_id"] == str(row)
    assert "paused" not in worker.ask()


def test_what_runs_goes_on_and_other_kinds_are_claimed(scene: Scene) -> None:
    scene.insert()
    worker = Worker(scene.database)
    held = worker.claim_one()
    deleted = scene.insert(name="Bob")
    worker.complete(worker.claim_one([held]))
    watcher(scene, "pause", "--kind", "publish")
    scene.database.run("delete from public.trained_identities where id = %s", [deleted])
    assert [claim["kind"] for claim in worker.claim({"publish": 4, "erase": 2}, [held])] == ["erase"]
    assert worker.complete(held) == "done"


def test_a_pause_ends_by_itself(scene: Scene) -> None:
    scene.insert()
    [publish] = json.loads(watcher(scene, "pause", "--for", "1h", "--kind", "publish", "--json").output)
    assert 3590 < publish["left_seconds"] <= 3600
    assert "publish for another 1 h" in watcher(scene, "status").output
    scene.database.pass_time(3601)
    assert len(Worker(scene.database).claim()) == 1
    assert "Paused" not in watcher(scene, "status").output


@pytest.mark.parametrize(
    "arguments", [["--for", "0s"], ["--for", "soon"], ["--for", "9999d"], ["--kind", "advise"]]
)
def test_a_pause_that_cannot_be_is_a_usage_error(scene: Scene, arguments: list[str]) -> None:
    assert watcher(scene, "pause", *arguments).exit_code == 2
    assert Worker(scene.database).call("status")["paused"] == []


def test_a_kind_that_there_is_not_is_neither_paused_nor_resumed(scene: Scene) -> None:
    watcher(scene, "pause", "--kind", "train")
    for command in ("pause", "resume"):
        refused = watcher(scene, command, "--kind", "advise")
        assert refused.exit_code == 2
        assert f"{command.capitalize()} one of publish, erase, sweep, train, follow, notify" in refused.output
    assert [pause["kind"] for pause in Worker(scene.database).call("status")["paused"]] == ["train"]
