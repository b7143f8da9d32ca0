"""How a training gets exactly one job, although the Hub has no key by which it would know a repeated request.

The intent is written down before the request. A request can land late, and a new job be missing from lists for a while: that
there is none is believed only when both must be over.
"""

from typing import Literal

Step = Literal["adopt", "request", "wait"]


def next_step(*, jobs: int, intent_age: float, settled_after: float) -> Step:
    """Return what to do about a training whose job is not known.

    `jobs`: how many the Hub lists with its label. `intent_age`: seconds since the intent was last written, measured before
    that list was requested. `settled_after`: seconds from the intent after which its job, if there is one, is listed.
    """
    if jobs:
        return "adopt"
    if intent_age >= settled_after:
        return "request"
    return "wait"
