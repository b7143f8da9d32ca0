"""One name for two daemons: on one host, on two, and on a machine that was replaced by another.

The other host is played by its claims, which is all that a daemon could know of it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import unique

from .figure import Figure, Measured, Numbers
from .scene import Scene, repeating, scene


def _names() -> Measured:
    with scene() as here:
        found = {
            "one_host": _on_one_host(here),
            "two_hosts": _on_two_hosts(here),
            "replaced": _replaced(here),
        }
    kept = (
        found["one_host"]["exit_code"] == found["two_hosts"]["exit_code"] == 78
        and all(one["told"] for one in found.values())
        and found["one_host"]["first_goes_on"]
        and found["two_hosts"]["doctor"]
        and 25 <= found["replaced"]["seconds"] <= 40
    )
    return Measured(
        kept,
        f"the second on one host: exit {found['one_host']['exit_code']}, the first goes on; beside another host that is "
        f"heard: exit {found['two_hosts']['exit_code']} after {found['two_hosts']['seconds']:.0f} s, doctor "
        f"{'names it' if found['two_hosts']['doctor'] else 'does not name it'}; in the place of one that is gone: published "
        f"after {found['replaced']['seconds']:.0f} s",
        found,
    )


def _on_one_host(here: Scene) -> Numbers:
    """Each has a spool folder of its own."""
    name = unique("host")
    with Watcher(here.stage, name) as first:
        first.ready()
        with Watcher(here.stage, name, WATCHER_SPOOL=str(here.stage.folder / "other")) as second:
            code = second.wait()
            told = f"runs on this host as instance {name}" in second.text
        [row] = here.insert()
        here.all_become([row], "published")
        first.stop()
    return {"exit_code": code, "told": told, "first_goes_on": True}


def _on_two_hosts(here: Scene) -> Numbers:
    name = unique("host")
    with _another_machine(here, name, every=2.0), Watcher(here.stage, name) as watcher:
        watcher.wait_for("name_taken")
        began = time.monotonic()
        doctor = subprocess.run(
            [sys.executable, "-m", "watcher", "doctor", "--json"],
            env=environment({**here.stage.settings, "WATCHER_INSTANCE": name}, here.stage.folder),
            cwd=here.stage.folder,
            check=False,
            capture_output=True,
            text=True,
        )
        named = [
            finding
            for finding in json.loads(doctor.stdout)["checks"]
            if finding["check"] == "instance" and finding["state"] == "error"
        ]
        code = watcher.wait()
        told = "Another host (elsewhere)" in watcher.text
    return {
        "exit_code": code, "told": told, "doctor": bool(named), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _replaced(here: Scene) -> Numbers:
    """The other was heard a moment ago, and never again."""
    name = unique("host")
    _claim(here, name, str(uuid4()))
    [row] = here.insert()
    began = time.monotonic()
    with Watcher(here.stage, name) as watcher:
        told = "Another host (elsewhere)" in watcher.wait_for("name_taken")["reason"]
        here.all_become([row], "published", within=90)
        seconds = time.monotonic() - began
        watcher.stop()
    return {"told": told, "seconds": round(seconds, 1)}


@contextmanager
def _another_machine(here: Scene, name: str, every: float) -> Iterator[None]:
    run = str(uuid4())
    _claim(here, name, run)
    with repeating(lambda: _claim(here, name, run), lambda: every):
        yield


def _claim(here: Scene, name: str, run: str) -> None:
    here.stage.rpc(
        "watcher_claim", instance=name, run=run, slots={"publish": 0}, lease_seconds=20, machine="elsewhere"
    )


FIGURES = [
    Figure(
        "names",
        "two daemons of one name: refused on one host, told on two; a replaced machine waits 30 s and goes on",
        _names,
        waits=True,
    )
]
