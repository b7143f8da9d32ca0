"""Checks everything that `watcher run` depends on, causes before effects, and says how to fix what is broken."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx

from watcher.operator.doctor import host, hub, supabase, training
from watcher.operator.doctor.finding import Finding, skipped
from watcher.settings.settings import Settings, notices

__all__ = ["Finding", "as_json", "examine", "exit_code"]

_WITHOUT_WHICH_NO_ANSWER = {"supabase reachable", "key", "schema"}


async def examine(settings: Settings) -> AsyncGenerator[Finding]:
    """Make every check, and yield each finding as soon as it is known."""
    yield Finding("settings", "ok", "The settings are complete and valid.")
    for notice in notices():
        yield Finding("settings", "warning", notice, "See the table of settings in docs/operating.md.")
    broken = set()
    async with httpx.AsyncClient(timeout=10) as http:
        async for finding in supabase.findings(settings, http):
            broken |= {finding.check} if finding.state == "error" else set()
            yield finding
    hub_works = True
    async for finding in hub.findings(settings):
        hub_works = hub_works and finding.state != "error"
        yield finding
    if broken & _WITHOUT_WHICH_NO_ANSWER:
        yield skipped("trainings")
    else:
        async for finding in training.findings(settings, hub_works=hub_works):
            yield finding
    for finding in host.findings(settings):
        yield finding


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "checks": [
            {"check": f.check, "state": f.state, "sentence": f.sentence, "remedy": f.remedy or None}
            for f in findings
        ],
        "exit": exit_code(findings),
    }


def exit_code(findings: list[Finding]) -> int:
    """Return 0 for no problem, 1 for warnings, 2 for errors."""
    states = {finding.state for finding in findings}
    return 2 if "error" in states else 1 if "warning" in states else 0
