"""`watcher run` with a bug in it: `python planted.py watcher.hub.repos:Hub.commit,watcher.… run`.

Each of the named functions raises, while work is done on a row whose id begins with EIGHT_ZEROS, and for no other row. It is
retried within an attempt after hardly any time.
"""

import inspect
import sys
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from typing import Any

import structlog

from watcher import app
from watcher.cli import cli
from watcher.engine.retry import Retry

EIGHT_ZEROS = "00000000"


def plant(place: str) -> None:
    """Replace a function, named as `module:Class.method` or `module:function`, by one that raises."""
    module, _, path = place.partition(":")
    owner: Any = import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    setattr(owner, name, _planted(getattr(owner, name), place))


def _planted(function: Callable[..., Any], place: str) -> Callable[..., Any]:
    def check() -> None:
        if str(structlog.contextvars.get_contextvars().get("identity", "")).startswith(EIGHT_ZEROS):
            raise RuntimeError(f"Planted in {place}.")

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def wait(*args: Any, **named: Any) -> Any:
            check()
            return await function(*args, **named)

        return wait

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        check()
        return function(*args, **named)

    return call


def main() -> None:
    """Plant what the first argument names, if anything, and run the command that follows."""
    vars(app)["Retry"] = partial(Retry, first=0.01, longest=0.01)
    for place in filter(None, sys.argv[1].split(",")):
        plant(place)
    cli(sys.argv[2:])


if __name__ == "__main__":
    main()
