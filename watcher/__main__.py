"""The command `watcher`, also as `python -m watcher`."""

import io
import os
import signal
import sys
import traceback
from typing import NoReturn


def main() -> None:
    """Run the command and end the process with its exit code."""
    _open_streams()
    if sys.argv[1:2] == ["run"]:
        # Before the slow imports: until the daemon handles signals itself, it holds no work and can simply exit.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                signal.signal(number, lambda *_: os._exit(0))
    try:
        from watcher import cli

        cli.main()
    except ImportError as error:
        _cannot_import(error)


def _open_streams() -> None:
    """Open a standard stream that is closed, lest a connection gets its number; write what cannot be encoded escaped."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _cannot_import(error: ImportError) -> NoReturn:
    """Exit with 78, a configuration error. Uses only the standard library, since any package may be the missing one."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    module = error.name or innermost.f_globals["__name__"]
    reason = str(error).partition("\n")[0].rstrip(".")
    sentence = (
        f"The module {module} cannot be imported ({reason}): reinstall Watcher and its dependencies, with the pip of "
        f"{sys.executable} (Python 3.11 or later)."
    )
    sys.stderr.write(f"watcher: {sentence}\n")
    sys.stderr.flush()
    if sys.argv[1:2] == ["run"]:
        from watcher.process.sd_notify import ServiceManager

        ServiceManager(os.environ).status(sentence)  # noqa: TID251  (the settings cannot be imported)
    os._exit(78)


if __name__ == "__main__":
    main()
