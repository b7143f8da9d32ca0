"""Trains tiny FLUX models through the daemon, with the real script, on a sandbox: `make check-training`.

Prints a line per check, and exits with 1 at the first failure. Needs no GPU; the packages need a network the first time.
"""

import sys
import tempfile
from pathlib import Path

import click

from tests.checks.training import running
from tests.checks.verdict import Wrong


def main() -> int:
    """Run all checks and return the exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="check-training-") as folder:
            for line in running.check(Path(folder)):
                click.echo(f"✓ {line}")
    except (Wrong, AssertionError) as error:
        click.echo(f"✗ {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
