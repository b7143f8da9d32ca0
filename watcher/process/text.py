"""Makes text from outside, such as a service's error message, fit to be stored and shown."""

import re

from watcher.process.log import impersonal, redact

_LONGEST = 2000
"""Characters of a stored sentence."""
# White space; controls, among them NUL, which Postgres does not store; lone surrogates, which UTF-8 cannot encode.
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def private_reason(text: str) -> str:
    """Return the text as `storable` does, for the private tables: without what names a person."""
    return storable(impersonal(redact(text)))


def storable(text: str) -> str:
    """Return the text as one line without control characters and secrets, at most 2,000 characters of it."""
    # Redact first: a secret that was cut in half would not be found.
    return _UNFIT.sub(" ", redact(text)).strip()[:_LONGEST]
