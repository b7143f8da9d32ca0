"""Checks this host's disk: room in the spool for the largest rows, and whether a daemon of this name runs."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage

from watcher.operator.doctor.finding import Finding, State
from watcher.operator.format import count
from watcher.photos.fetch import MAX_BYTES
from watcher.process.instance import InstanceLock
from watcher.settings.settings import Settings

_IMAGES = 40
"""The maximum per row; a slot needs room for all of them."""
_MORE = 1
"""Rows that are published beside those in the slots: of a user who has none running."""


def findings(settings: Settings) -> Iterator[Finding]:
    """Check without creating anything, since the operator may be another user than the daemon's."""
    folder = settings.spool
    existing = next(place for place in (folder, *folder.parents) if _exists(place))
    if not _is_folder(existing):
        sentence = f"The spool folder {folder} cannot be created: {existing} is not a folder."
        yield Finding("spool", "error", sentence, "Set WATCHER_SPOOL to a folder.")
        return
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        sentence = f"The spool folder {folder} cannot be read and written to."
        yield Finding(
            "spool", "error", sentence, f"sudo install -d -m 700 -o $(whoami) {settings.spool_root}"
        )
        return
    lock = folder / "lock"
    if _exists(lock) and not (lock.is_file() and not lock.is_symlink()):
        yield Finding("spool", "error", f"{lock} is not a file: the daemon locks it.", f"sudo rm -r {lock}")
        return
    yield _room(settings, existing)
    if InstanceLock(settings.instance, settings.supabase_url).taken:
        yield Finding("instance", "ok", f"A daemon runs on this host as {settings.instance}.")
    else:
        yield Finding("instance", "ok", f"No daemon runs on this host as {settings.instance}.")


def _exists(place: Path) -> bool:
    """Whether there is anything, also a link to nothing or what this user may not see."""
    try:
        place.lstat()
    except OSError as error:
        return error.errno not in {errno.ENOENT, errno.ENOTDIR}
    return True


def _is_folder(place: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR(place.stat().st_mode)
    return False


def _room(settings: Settings, existing: Path) -> Finding:
    free, needed = disk_usage(existing).free, (settings.slots + _MORE) * _IMAGES * MAX_BYTES
    if free >= needed:
        return Finding(
            "spool", "ok", f"The spool folder {settings.spool} is writable, with {_gib(free)} free."
        )
    sentence = (
        f"The spool folder {settings.spool} has {_gib(free)} free, and {count(settings.slots, 'slot')} and one more row "
        f"need up to {_gib(needed)}."
    )
    state: State = "error" if free < MAX_BYTES else "warning"
    return Finding(
        "spool",
        state,
        sentence,
        f"Free space on the disk of {existing}, or set WATCHER_SPOOL to another disk.",
    )


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
