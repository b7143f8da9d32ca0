"""Checks the project against Supabase's own clients; prints a line for each thing checked, ends with 1 at what is wrong.

`make check-supabase` runs it. It needs a network the first time, for the packages.
"""

import sys
import tempfile
from itertools import chain
from pathlib import Path

import click

from tests.checks.supabase import frontend, node, pushing
from tests.checks.supabase.verdict import Wrong


def main() -> int:
    """Check, print, and return the exit code."""
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
