"""What is wrong, in a sentence."""

from typing import Any


class Wrong(Exception):
    """Something is not as it is said to be; the message is for whoever ran the check."""


def expect(what: str, found: Any, wanted: Any) -> None:
    """Raise Wrong unless what was found is what was wanted."""
    if found != wanted:
        raise Wrong(f"{what}: {wanted!r} was expected, but it is {found!r}.")
