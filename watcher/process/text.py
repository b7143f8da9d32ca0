"""Makes text from outside, such as a service's error message, fit to be stored and shown."""

import re

from watcher.process.log import impersonal, redact

_LONGEST = 2000
"""Characters of a stored sentence."""
_LONGEST_QUOTE = 300
# A page or a document instead of a sentence, such as that of a proxy; and what a signed URL is signed with.
_MARKUP = re.compile(r"\s*(<[!?a-zA-Z]|%PDF)")
_QUERY = re.compile(r"(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*")
# White space; controls, among them NUL, which Postgres does not store; lone surrogates, which UTF-8 cannot encode.
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def private_reason(text: str) -> str:
    """Return the text as `storable` does, for the private tables: without what names a person."""
    return storable(impersonal(redact(text)))


def storable(text: str) -> str:
    """Return the text as one line of at most 2,000 characters, without control characters, secrets and URLs' queries."""
    # Redact first: a secret that was cut in half would not be found.
    return _UNFIT.sub(" ", _QUERY.sub(r"\1", redact(text))).strip()[:_LONGEST]


def quoted(text: str, *, otherwise: str) -> str:
    """Return what a service said as `storable` does, at most 300 characters; `otherwise` if it is a page, or empty."""
    return otherwise if _MARKUP.match(text) else storable(text)[:_LONGEST_QUOTE] or otherwise
