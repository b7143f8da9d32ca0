"""How a training gets exactly one job, although the Hub has no key by which it would know a repeated request.

The intent is written down before the request. A request can land late, and a new job be missing from lists for a while: that
there is none is believed only when both must be over.
"""

from typing import Final, Literal

SETTLED_AFTER: Final = 150.0
"""Seconds from the intent after which its job, if there is one, is listed: the Hub works on a request for up to 120 s, and
its lists are up to 30 s behind."""

Step = Literal["adopt", "request", "wait"]


def next_step(*, jobs: int, intent_age: float | None) -> Step:
    """Return what to do about a training whose job is not known.

    `jobs`: how many the Hub lists with its label. `intent_age`: seconds since the intent was last written, measured before
    that list was requested; None if this attempt has written it, and so no request can have been sent before.
    """
    if jobs:
        return "adopt"
    if intent_age is None or intent_age >= SETTLED_AFTER:
        return "request"
    return "wait"
