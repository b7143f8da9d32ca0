"""The commands: parse, build, call, print.

Exit codes: 0 done; 1 failed for now, or a bug; 2 usage error; 130 interrupted by Ctrl-C; 78 configuration error: trying
again does not help, and systemd does not restart the service. `doctor` ends with 1 for warnings only, and with 2 otherwise.

Only click and the errors are imported here. What else a command needs is imported when it runs, so that `--version` and
`--help` are quick and each process holds in memory only what it uses.
"""

import errno
import faulthandler
import logging
import os
import shlex
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from watcher import __version__
from watcher.errors import Misconfigured, SandboxMissing, WatcherError
from watcher.operator import console, erasing, limits, migrating, pausing, training

EX_CONFIG = 78
_OUTPUT_FAILED = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_PORT = click.IntRange(0, 65535)


def main() -> None:
    """Run a command and end the process with its exit code; raises ImportError where a module cannot be imported."""
    try:
        code = _run()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # The reader of our output, such as `head`, has closed the pipe.
        code = 0
    except OSError as error:
        code = _exit_code(1)
        with suppress(OSError):
            click.echo(f"watcher: The output could not be written: {error.strerror}.", err=True)
    # A thread that waits for the Hub cannot be cancelled, and the interpreter would wait for it.
    os._exit(code)


def _run() -> int:
    """Run a command and return its exit code; raises ImportError, and OSError if its output cannot be written."""
    try:
        return cli(prog_name="watcher", standalone_mode=False) or 0
    except ImportError:
        raise
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:
        raise BrokenPipeError from error  # as rich and click turn it into an exit with 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Misconfigured as error:
        _print_error(error)
        return EX_CONFIG
    except WatcherError as error:
        _print_error(error)
        return _exit_code(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_FAILED:
            raise
        # Through the log, which redacts secrets.
        logging.getLogger("watcher").exception("Unexpected error: this is a bug, please report it.")
        return _exit_code(1)


def _exit_code(of_error: int) -> int:
    """Return the exit code for an error: that, but 2 of `doctor`, whose 1 stands for warnings."""
    return 2 if sys.argv[1:2] == ["doctor"] else of_error


def _print_error(error: WatcherError) -> None:
    from watcher.process.log import is_journal, redact
    from watcher.process.untrusted import plain
    from watcher.settings.settings import environment

    priority = "<3>" if is_journal(environment()) else ""  # an error, see sd-daemon(3)
    click.echo(f"{priority}watcher: {plain(redact(str(error)))}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="watcher")
def cli() -> None:
    """Turn rows in Supabase into private Hugging Face repos."""


@cli.command(
    epilog="Exit codes: 0 stopped by SIGTERM, SIGHUP or Ctrl-C; 1 a bug; 2 usage error; 78 configuration error."
)
def run() -> None:
    """Publish rows, and erase what deleted ones leave, until SIGTERM, SIGHUP or Ctrl-C.

    Needs SUPABASE_URL, SUPABASE_SECRET_KEY and HF_TOKEN. All settings come from the environment, or from files under
    $CREDENTIALS_DIRECTORY; docs/operating.md lists them.
    """
    import asyncio

    from watcher.app import run as run_app
    from watcher.process.event_loop import EventLoop
    from watcher.process.log import configure, redact
    from watcher.process.sd_notify import ServiceManager
    from watcher.settings import settings

    try:
        loaded = settings.load()
        configure(
            loaded.log_level,
            loaded.log_format,
            loaded.secrets,
            settings.environment(),
            instance=loaded.instance,
        )
        # If the watchdog ends a hung process with SIGABRT, this logs the stacks of its threads.
        faulthandler.enable()
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(run_app(loaded, stopped=_exit_soon))
    except Misconfigured as error:
        # systemd shows the last status line also after the exit.
        ServiceManager(settings.environment()).status(redact(str(error)))
        raise


def _exit_soon() -> None:
    """Exit within a second, even if a library's task or thread does not end: no work is held any more."""
    timer = threading.Timer(1, os._exit, (0,))
    timer.daemon = True
    with suppress(RuntimeError):  # this host cannot start another thread
        timer.start()


@cli.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep database, photos and repos in this folder. Default: deleted at the end.",
)
@click.option(
    "--port", type=_PORT, default=54321, show_default=True, help="Supabase's port; 0 picks a free one."
)
@click.option(
    "--hub-port", type=_PORT, default=54380, show_default=True, help="The Hub's port; 0 picks a free one."
)
@click.option(
    "--control-port",
    type=_PORT,
    default=0,
    show_default=True,
    help="The port for fault injection over HTTP (docs/sandbox.md); 0 picks a free one.",
)
def sandbox(data: Path | None, port: int, hub_port: int, control_port: int) -> None:
    """Run a Supabase and a Hub on this machine until Ctrl-C.

    Prints the settings of everything here as lines that a shell can source.
    """
    from watcher import migrate

    try:
        from watcher.sandbox import PostgresError, Sandbox
    except ImportError as error:
        raise SandboxMissing(error) from error

    box = Sandbox(data=data, supabase_port=port, hub_port=hub_port, control_port=control_port)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        try:
            stack.enter_context(box)
        except (PostgresError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            place = f"{data}: " if data and isinstance(error, OSError) and error.filename else ""
            raise Misconfigured(f"The sandbox could not be started: {place}{reason}.") from error
        for _version in migrate.apply(box.db_url):
            pass
        for name, value in box.settings().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo("export HF_HUB_DISABLE_XET=1  # for the hf command: this Hub supports only LFS")
        click.echo(f"export CONTROL={box.control_url}  # for fault injection")
        click.echo(
            f"# A daemon beside it, in another shell with these settings: {shlex.quote(sys.executable)} -m watcher run"
        )
        click.echo("# Ready. Ctrl-C stops it.")
        sys.stdout.flush()
        stopped.wait()


@cli.command()
@click.option(
    "--photos",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with 3 to 40 photos. Default: generated pictures.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one line of JSON, also if it fails."
)
@click.option(
    "--keep",
    is_flag=True,
    help="Delete nothing, keep everything running until Ctrl-C, and print how to look around.",
)
@click.option(
    "--erase", is_flag=True, help="At the end, delete the row as its user, and show that all of it is gone."
)
@click.option(
    "--train",
    is_flag=True,
    help="Have a LoRA trained on the repo: on a sandbox in a moment, elsewhere for money.",
)
def demo(photos: Path | None, as_json: bool, keep: bool, erase: bool, train: bool) -> None:
    """Watch a row become a repo.

    Acts as a frontend of a sandbox that it starts: a Supabase and a Hub on this machine. At a terminal, these keep running
    until Ctrl-C, so that the repo can be opened in a browser.

    With SUPABASE_URL set, acts on that project instead, with the settings of `run` and SUPABASE_PUBLISHABLE_KEY: it migrates
    the database if SUPABASE_DB_URL is set, creates a user there, and its daemon also publishes other rows that are due. At
    the end it deletes what it made; if it fails, the next daemon erases the repo.
    """
    import asyncio

    from watcher.demo.outcome import said
    from watcher.demo.play import play

    if keep and erase:
        raise click.UsageError("Either --keep or --erase.")
    with said(as_json=as_json):
        asyncio.run(play(folder=photos, as_json=as_json, keep=keep, erase=erase, train=train))


for command in (
    migrating.migrate_,
    console.doctor,
    console.status,
    console.show,
    console.replay,
    pausing.pause,
    pausing.resume,
    limits.limits,
    training.training,
    erasing.forget,
    erasing.erasures,
    erasing.export,
):
    cli.add_command(command)
