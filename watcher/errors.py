"""The errors, classified by how they are handled.

WatcherError
├─ Misconfigured   the operator must fix it: say what and how, exit 78, do not restart
├─ Outage          no row can be processed now: release the rows (the attempts do not count), pause, probe
├─ Refused         a service refused a request about one row: find out whether it refuses every row
├─ Transient       may succeed if retried, after `retry_after` seconds if the service said so
├─ Wait            only time can help: give the slot back, look again in `seconds`, the attempt does not count
├─ Permanent       this row cannot be published: fail it with a code and a sentence
│  └─ Rejected     a service does not accept what was sent: the row's fault, unless it accepts nobody's
└─ LeaseLost       another attempt may hold the row: stop, write nothing

Each package that uses a service translates that service's errors, `raise … from`.
"""

import math
import sys
from collections.abc import Awaitable, Callable, Sequence

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
"""Why a row failed. Stable: part of the contract with the frontend."""


class WatcherError(Exception):
    """The base of our errors; its text is a sentence for a person."""


class Misconfigured(WatcherError):
    """A setting, a key or the schema is unusable.

    `passes_within`: seconds within which it may pass by itself, as a schema that PostgREST has not loaded yet.
    """

    def __init__(self, sentence: str, *, passes_within: float = 0) -> None:
        super().__init__(sentence)
        self.passes_within = passes_within


class SandboxMissing(Misconfigured):
    """What only the sandbox needs is not installed."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            f"The sandbox is not installed ({error.name}): in the checkout, run {sys.executable} -m pip install "
            "--constraint constraints.txt '.[sandbox]'."
        )


class Outage(WatcherError):
    """A service refuses every request, or this host's disk is full: the row is not the cause.

    `certain` is false where only requests about rows have shown it. `of_kind`: it concerns the kind of work that met it,
    not every kind. `probe` raises an error while it lasts; None where the daemon's own probe shows that. `lasting`: the
    service itself says that it does not accept the key, which waiting does not change.
    """

    def __init__(
        self,
        sentence: str,
        *,
        certain: bool = True,
        of_kind: bool = False,
        probe: Callable[[], Awaitable[object]] | None = None,
        lasting: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.lasting = lasting
        self.certain = certain
        self.of_kind = of_kind
        self.probe = probe
        self.spent_by: Sequence[int] = ()
        """The attempts that met it before it was known, and were counted."""


class Refused(WatcherError):
    """A service refused a request about one row's repo or image: that row's alone, or every row's.

    The text is for that row, `everybody` for the case that every row is refused. `service` is the one to ask, "hub" or
    "storage"; `step` what the row was about to do. With `now`, the answer may not be an older one: the key is in doubt.
    `lasting` is that of the Outage if the request was about the key.
    """

    def __init__(
        self, sentence: str, *, everybody: str, service: str, now: bool = False, lasting: bool = False
    ) -> None:
        super().__init__(sentence)
        self.lasting = lasting
        self.everybody = everybody
        self.service = service
        self.now = now
        self.step = ""


class Transient(WatcherError):
    """The operation may succeed if it is retried.

    `retry_after` is in seconds, None if the service did not say, or named no finite time to come.
    """

    def __init__(self, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        named = retry_after is not None and math.isfinite(retry_after) and retry_after > 0
        self.retry_after = retry_after if named else None


class Wait(WatcherError):
    """Nothing but time can help this row: look again in `seconds`.

    `within` seconds from the first of such waits the row fails with `code`, one of CODES, and `last_words`; `image` is the
    number of the image at fault, from 1, where one is.
    """

    def __init__(
        self,
        sentence: str,
        *,
        seconds: float,
        within: float,
        code: str,
        last_words: str,
        image: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.seconds = seconds
        self.within = within
        self.code = code
        self.last_words = last_words
        self.image = image


class Permanent(WatcherError):
    """This row cannot be published, and retries do not help.

    `code` is one of CODES; `image` is the number of the image at fault, from 1, where one is.
    """

    def __init__(self, code: str, sentence: str, *, image: int | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.image = image


class Rejected(Permanent):
    """A service does not accept what was sent for this row; `everybody` is the sentence if it accepts nobody's."""

    def __init__(self, code: str, sentence: str, *, everybody: str) -> None:
        super().__init__(code, sentence)
        self.everybody = everybody


class LeaseLost(WatcherError):
    """The attempt may no longer hold its row."""
