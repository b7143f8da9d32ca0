"""Prints the findings of `watcher doctor`."""

import asyncio
from dataclasses import replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watcher.errors import Misconfigured
from watcher.operator import doctor, terminal
from watcher.operator.doctor.finding import Finding
from watcher.process.log import configure, redact
from watcher.process.untrusted import one_line, plain
from watcher.settings import settings

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red"), "skipped": ("–", "dim")}


def run(*, as_json: bool) -> int:
    """Make every check and print each finding at once, or all as JSON at the end; returns the exit code."""
    console = terminal.console()
    findings: list[Finding] = []

    async def check_all() -> None:
        async for finding in doctor.examine(loaded):
            add(finding)

    def add(finding: Finding) -> None:
        finding = redacted(finding)
        findings.append(finding)
        if not as_json:
            show(finding, console)

    try:
        loaded = settings.load()
    except Misconfigured as error:
        add(Finding("settings", "error", str(error), "See the table of settings in docs/operating.md."))
    else:
        configure("ERROR", "console", loaded.secrets, settings.environment())
        asyncio.run(check_all())
    if as_json:
        terminal.print_json(doctor.as_json(findings))
    elif any(finding.remedy.endswith(";") for finding in findings):
        hint = "Paste the SQL into the project's SQL editor or psql, then: watcher doctor"
        console.print(Text(hint, "dim"))
    return doctor.exit_code(findings)


def redacted(finding: Finding) -> Finding:
    """Return a finding without secrets: it may quote a service's answer, or a name in the database."""
    return replace(finding, sentence=redact(finding.sentence), remedy=redact(finding.remedy))


def show(finding: Finding, console: Console) -> None:
    """Print a finding, with its remedy as it can be pasted."""
    mark, style = _MARKS[finding.state]
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        Text(mark, style), Text(one_line(finding.sentence), "dim" if finding.state == "skipped" else "")
    )
    terminal.print_table(grid, console)
    if finding.remedy:
        # Neither wrapped nor indented, so that it can be pasted.
        console.print(Text(plain(finding.remedy), "bold"), soft_wrap=True)
