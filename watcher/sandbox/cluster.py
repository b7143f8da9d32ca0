"""Creates the cluster of a private Postgres, with a random password, which is kept beside it for its owner alone."""

import secrets
from pathlib import Path

from watcher.sandbox.programs import PostgresError, Programs

NAME = "cluster"
"""The folder in that of the sandbox's Postgres."""


def prepare(programs: Programs, folder: Path) -> str:
    """Create the cluster if there is none, and return the password of its roles. Raises `PostgresError`."""
    kept = folder / "password"
    if (folder / NAME / "PG_VERSION").exists():
        try:
            return kept.read_text()
        except FileNotFoundError:
            raise PostgresError(
                f"{folder} has a Postgres of an earlier version, whose password is not kept there: delete the folder."
            ) from None
    password = secrets.token_hex(16)
    kept.touch(mode=0o600)
    kept.write_text(password)
    _initdb(programs, folder, password)
    return password


def _initdb(programs: Programs, folder: Path, password: str) -> None:
    # Before 17, Postgres compares UTF-8 by the operating system's locale, which differs between systems.
    builtin = programs.version(folder) >= 17
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if builtin else []
    file = folder / "password-for-initdb"  # Postgres's user cannot read the one that is kept
    file.touch(mode=0o600)
    file.write_text(password)
    access = ["--username=supabase_admin", f"--pwfile={file}", "--auth=scram-sha-256"]
    text = ["--encoding=UTF8", "--locale=C", *locale]
    programs.hand_over(file)
    try:
        programs.run("initdb", "-D", NAME, "--no-sync", *access, *text, cwd=folder)
    finally:
        file.unlink()
