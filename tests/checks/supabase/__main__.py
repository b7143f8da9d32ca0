"""Applies the migrations with the real Supabase CLI: `make check-supabase`.

Prints a line per check, and exits with 1 at the first failure. Needs a network the first time, for the packages.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import click

from tests.checks import node
from tests.checks.supabase import pushing
from tests.checks.verdict import Wrong


def main() -> int:
    """Run all checks and return the exit code."""
    try:
        pushing.FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(pushing.PACKAGES, pushing.FOLDER)
        node.install(pushing.FOLDER)
        with tempfile.TemporaryDirectory(prefix="check-supabase-") as folder:
            for line in pushing.check(Path(folder)):
                click.echo(f"✓ {line}")
    except (Wrong, AssertionError) as error:
        click.echo(f"✗ {error}", err=True)
        return 1
    return 0


sys.exit(main())
