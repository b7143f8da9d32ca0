"""What can go wrong, sorted by what we do about it.

WatcherError
├─ Misconfigured   ours to mend: say what and how, exit 78, do not restart
├─ Outage          nobody can be published now: give the rows back unspent, pause, probe
├─ Transient       worth another try, `retry_after` seconds from now if we were told
├─ Permanent       this row cannot be published: fail it with a code and a sentence
└─ LeaseLost       someone else may hold the row: stop, write nothing

Each room that talks to a service translates that service's errors at its edge, `raise … from`.
"""

CODES = (
    "image_missing",
    "image_too_large",
    "image_not_jpeg_or_png",
    "image_unreadable",
    "image_animated",
    "image_too_many_pixels",
    "path_forbidden",
    "hub_refused",
    "attempts_exhausted",
)
"""Why a row failed: stable, and part of the contract with the frontend."""


class WatcherError(Exception):
    """The root of what we raise; its text is a sentence for a person."""


class Misconfigured(WatcherError):
    """A setting, a key or a schema that this program cannot work with."""


class Outage(WatcherError):
    """A service refuses everybody for now, or this host has no room: no row is at fault."""


class Transient(WatcherError):
    """Worth another try.

    `retry_after` is in seconds, None where the service did not say.
    """

    def __init__(self, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class Permanent(WatcherError):
    """This row cannot be published, however often it is tried.

    `code` is one of CODES.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class LeaseLost(WatcherError):
    """The attempt may no longer hold its row."""
