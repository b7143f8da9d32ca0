"""The commands: parse, build, call, print.

Exit codes: 0 done; 1 it could not be done just now; 2 the command was used wrongly; 78 something is set up wrongly,
and trying again will not help (systemd does not restart then).
"""

import asyncio
import faulthandler
import logging
import os
import shlex
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click

from watcher import __version__, migrate
from watcher.errors import Misconfigured, WatcherError
from watcher.operator import console
from watcher.process.log import configure, is_journal, redact
from watcher.settings import settings

EX_CONFIG = 78


def main() -> None:
    """Run a command and end the process with its exit code."""
    try:
        code = cli(prog_name="watcher", standalone_mode=False) or 0
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has seen enough, as `head` has; rich and click make an exit with 1 of it.
        os._exit(0)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Misconfigured as error:
        _complain(error)
        code = EX_CONFIG
    except WatcherError as error:
        _complain(error)
        code = 1
    except Exception:
        # Through the log, which knows the secrets.
        logging.getLogger("watcher").exception("The watcher met an unexpected error.")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that waits for the Hub cannot be cancelled, and the interpreter would wait for it.
    os._exit(code)


def _complain(error: WatcherError) -> None:
    priority = "<3>" if is_journal(settings.environment()) else ""  # an error, see sd-daemon(3)
    click.echo(f"{priority}watcher: {redact(str(error))}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="watcher")
def cli() -> None:
    """Turn rows in Supabase into private Hugging Face repos."""


@cli.command()
def run() -> None:
    """Publish rows until told to stop (SIGTERM).

    Exits with 78 if something is set up wrongly.
    """
    from watcher.app import run as run_app
    from watcher.process.event_loop import EventLoop

    loaded = settings.load()
    configure(
        loaded.log_level,
        loaded.log_format,
        loaded.secrets,
        settings.environment(),
        instance=loaded.instance,
    )
    # Where the watchdog ends us, say where we hung.
    faulthandler.enable()
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(run_app(loaded, stopped=_close_soon))


def _close_soon() -> None:
    """End within a second, whatever a library's task or thread makes of being closed: every row is given back."""
    end = threading.Timer(1, os._exit, (0,))
    end.daemon = True
    with suppress(RuntimeError):  # this host cannot start another thread
        end.start()


@cli.command("migrate")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only write the files into this folder, for `supabase db push`.",
)
def migrate_(into: Path | None) -> None:
    """Bring the database to the schema that this version needs.

    Without --into the migrations are applied over SUPABASE_DB_URL, as the role postgres.
    """
    if into is not None:
        for file in migrate.copy(into):
            click.echo(f"Wrote {file}")
        click.echo("Next: supabase db push --include-all")
        return
    done = 0
    db_url = settings.load_database().db_url.get_secret_value()
    for version in migrate.apply(db_url, on_wait=lambda reason: click.echo(reason, err=True)):
        click.echo(f"Applied {version}")
        done += 1
    if not done:
        click.echo("Nothing to do: the database has every migration.")


@cli.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Keep everything in this folder."
)
@click.option("--port", default=54321, show_default=True, help="Supabase's port; 0 takes a free one.")
@click.option("--hub-port", default=54380, show_default=True, help="The Hub's port; 0 takes a free one.")
@click.option("--control-port", default=0, help="The port on which faults are asked for; 0 takes a free one.")
def sandbox(data: Path | None, port: int, hub_port: int, control_port: int) -> None:
    """Run a Supabase and a Hub on this machine until Ctrl-C.

    Prints the settings of everything here as lines that a shell can source.
    """
    try:
        from watcher.sandbox import Sandbox
    except ImportError as error:
        raise Misconfigured(
            f"The sandbox is not installed ({error.name}): pip install 'watcher[sandbox]'."
        ) from error

    box = Sandbox(data=data, supabase_port=port, hub_port=hub_port, control_port=control_port)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    with box:
        for _version in migrate.apply(box.db_url):
            pass
        for name, value in box.settings().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo("export HF_HUB_DISABLE_XET=1  # for the hf command: this Hub takes files by LFS alone")
        click.echo(f"export CONTROL={box.control_url}  # faults are asked for there")
        click.echo("# Ready. Ctrl-C stops it.")
        sys.stdout.flush()
        told.wait()


@cli.command()
@click.option(
    "--photos",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with 3 to 40 photos; without it pictures are made on the spot.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
@click.option("--keep", is_flag=True, help="Leave everything running, and say how to look around.")
def demo(photos: Path | None, as_json: bool, keep: bool) -> None:
    """Watch a row become a repo.

    Plays the frontend against a sandbox that it starts, or against the Supabase and the Hub that the environment
    names (SUPABASE_URL and the other settings).
    """
    from watcher.demo.play import play

    asyncio.run(play(folder=photos, as_json=as_json, keep=keep))


for command in (console.doctor, console.status, console.show, console.replay):
    cli.add_command(command)
