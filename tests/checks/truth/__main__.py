"""Says where the sandbox is wrong about a real project: `make truth AGAINST=URL`.

Plays the same exchanges to that project and to a sandbox, and prints each that they answer differently, and each that
the sandbox answers otherwise than is known of the real service; exits with 1 if there is one. Without AGAINST a second
sandbox is the project. The settings of a project come from the environment.
"""

import sys
from contextlib import ExitStack

import click

from tests.checks.truth.play import Answers, answers, compared, untrue
from tests.checks.truth.target import Target
from watcher import migrate
from watcher.sandbox import Sandbox


@click.command()
@click.option("--against", default="", help="The URL of the project; by default a sandbox.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--publishable", envvar="SUPABASE_PUBLISHABLE_KEY", hidden=True)
@click.option("--secret", envvar="SUPABASE_SECRET_KEY", hidden=True)
@click.option("--db-url", envvar="SUPABASE_DB_URL", hidden=True)
@click.option("--jwt-secret", envvar="SUPABASE_JWT_SECRET", hidden=True)
@click.option("--hub", envvar="HF_ENDPOINT", default="https://huggingface.co", hidden=True)
@click.option("--token", envvar="HF_TOKEN", hidden=True)
@click.option("--namespace", envvar="HF_NAMESPACE", hidden=True)
def main(against: str, yes: bool, publishable: str | None, secret: str | None, **more: str | None) -> None:
    """Compare a project with the sandbox."""
    with ExitStack() as stack:
        if not against:
            target = Target.of_sandbox(_sandbox(stack))
        elif publishable and secret:
            target = _project(against.rstrip("/"), publishable, secret, more)
        else:
            missing = "SUPABASE_SECRET_KEY" if publishable else "SUPABASE_PUBLISHABLE_KEY"
            raise click.ClickException(
                f"{missing} is not set: set it to the key of the project at {against}."
            )
        click.echo(target.plan())
        if against and not yes:
            click.confirm("Go on?", abort=True)
        there = _asked(target, f"asking {target.url}")
        here = _asked(Target.of_sandbox(_sandbox(stack)), "asking the sandbox")
    found = dict(untrue(here)) | dict(compared(there, here))
    for name, where in found.items():
        click.echo("\n".join([f"✗ {name}", *(f"    {line}" for line in where)]))
    click.echo(f"{len(there)} exchanges, {len(found)} answered differently.")
    sys.exit(1 if found else 0)


def _project(url: str, publishable: str, secret: str, more: dict[str, str | None]) -> Target:
    known = {name: value or None for name, value in more.items()}
    return Target(
        url=url,
        publishable=publishable,
        secret=secret,
        db_url=known["db_url"],
        jwt_secret=known["jwt_secret"],
        hub=(known["hub"] or "https://huggingface.co").rstrip("/"),
        token=known["token"],
        namespace=known["namespace"],
    )


def _sandbox(stack: ExitStack) -> Sandbox:
    sandbox = stack.enter_context(Sandbox())
    for _version in migrate.apply(sandbox.db_url):
        pass
    return sandbox


def _asked(target: Target, doing: str) -> Answers:
    with target.prepared():
        return answers(target, lambda service: click.echo(f"{doing}: {service}", err=True))


if __name__ == "__main__":
    main()
