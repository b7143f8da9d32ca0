"""Checks the project with Supabase's own clients: `make check-supabase`.

Prints a line per check, and exits with 1 at the first failure. Needs a network the first time, for the packages.
"""

import sys
import tempfile
from itertools import chain
from pathlib import Path

import click

from tests.checks.supabase import frontend, node, pushing
from tests.checks.supabase.verdict import Wrong


def main() -> int:
    """Run all checks and return the exit code."""
    try:
        version = node.install()
        with tempfile.TemporaryDirectory(prefix="check-supabase-") as folder:
            for line in chain(frontend.check(version, Path(folder)), pushing.check(Path(folder))):
                click.echo(f"✓ {line}")
    except (Wrong, AssertionError) as error:
        click.echo(f"✗ {error}", err=True)
        return 1
    return 0


sys.exit(main())
