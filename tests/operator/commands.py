"""How these tests run the operator's commands and the remedies that these name, and what they read of doctor's findings."""

from typing import Any

import psycopg
from click.testing import CliRunner, Result

from tests.support.scene import Scene
from watcher.cli import cli
from watcher.operator.doctor import Finding


def watcher(
    scene: Scene, *arguments: str, columns: int | None = 200, answer: str | None = None, **given: str | None
) -> Result:
    """Run a command without a terminal, so wide, with the sandbox's settings and those given."""
    width = None if columns is None else str(columns)
    settings = {**scene.sandbox.settings(), "COLUMNS": width, **given}
    return CliRunner().invoke(cli, arguments, env=settings, input=answer)


def migrate(url: str, *options: str, **more: Any) -> Result:
    """Run `watcher migrate` on the database at this URL."""
    return CliRunner().invoke(cli, ["migrate", *options], env={"SUPABASE_DB_URL": url}, **more)


def sql(url: str, statements: str) -> None:
    """Run statements, as somebody does who has the SQL editor open."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def bad(findings: list[Finding]) -> list[Finding]:
    """The problems."""
    return [finding for finding in findings if finding.state in {"warning", "error"}]


def only(findings: list[Finding], state: str = "error") -> Finding:
    """The one problem, which has a remedy."""
    [finding] = bad(findings)
    assert finding.state == state
    assert finding.remedy
    return finding
