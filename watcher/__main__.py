"""The command `watcher`, also as `python -m watcher`."""

import os
import signal
import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    if sys.argv[1:2] == ["run"]:
        # Before the slow imports: until the daemon handles signals, there is nothing to finish.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
    from watcher import cli

    cli.main()


if __name__ == "__main__":
    main()
