"""This host: a spool with room for the largest rows, and nobody else under our name."""

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import disk_usage

from watcher.operator.doctor.finding import Finding, State
from watcher.operator.format import count
from watcher.photos.fetch import MAX_BYTES
from watcher.photos.spool import Spool
from watcher.settings.settings import Settings

_IMAGES = 40
"""The most images of a row; a slot needs room for all of them."""


def findings(settings: Settings) -> Iterator[Finding]:
    """Look without leaving anything behind: whoever asks may not be whom the daemon runs as."""
    folder = settings.spool
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        sentence = f"The spool folder {folder} cannot be made: {there} is no folder."
        yield Finding("spool", "error", sentence, "Set WATCHER_SPOOL to a folder.")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        sentence = f"The spool folder {folder} cannot be written to."
        yield Finding(
            "spool", "error", sentence, f"sudo install -d -m 700 -o $(whoami) {settings.spool_root}"
        )
        return
    yield _room(settings, there)
    if Spool(folder).taken:
        yield Finding("instance", "ok", f"A watcher runs on this host as {settings.instance}.")
    else:
        yield Finding("instance", "ok", f"No watcher runs on this host as {settings.instance} just now.")


def _room(settings: Settings, there: Path) -> Finding:
    free, wanted = disk_usage(there).free, settings.slots * _IMAGES * MAX_BYTES
    if free >= wanted:
        return Finding(
            "spool", "ok", f"The spool folder {settings.spool} is writable, with {_gib(free)} free."
        )
    sentence = (
        f"The spool folder {settings.spool} has {_gib(free)} free, and {count(settings.slots, 'slot')} of the largest "
        f"rows need {_gib(wanted)}."
    )
    state: State = "error" if free < MAX_BYTES else "warning"
    return Finding(
        "spool", state, sentence, f"Free some room on the disk of {there}, or set WATCHER_SPOOL to another."
    )


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
