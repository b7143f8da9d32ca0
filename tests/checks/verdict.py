"""The failure of a check."""

from typing import Any


class Wrong(Exception):
    """A check failed; the message is for the person who runs it."""


def expect(what: str, found: Any, wanted: Any) -> None:
    """Raise Wrong unless what was found is what was wanted."""
    if found != wanted:
        raise Wrong(f"{what}: {wanted!r} was expected, but it is {found!r}.")
