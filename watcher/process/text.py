"""Makes text from outside, such as a service's error message, fit to be stored and shown."""

import re

from watcher.process.log import impersonal, redact
from watcher.process.untrusted import without_queries

_LONGEST = 2000
"""Characters of a stored sentence."""
_LONGEST_QUOTE = 300
# A page or a document instead of a sentence, such as that of a proxy; and tags of HTML in a sentence.
_MARKUP = re.compile(r"\s*(<[!?a-zA-Z]|%PDF)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>|<!--|-->|<(?=[!/?a-zA-Z])")
# White space; controls, among them NUL, which Postgres does not store; what changes the direction of writing; lone
# surrogates, which UTF-8 cannot encode.
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]+")


def private_reason(text: str) -> str:
    """Return the text as `storable` does, for the private tables: without what names a person."""
    return storable(impersonal(redact(text)))


def storable(text: str) -> str:
    """Return the text as one plain line of at most 2,000 characters, without secrets, URLs' queries and tags of HTML."""
    # Redact first: a secret that was cut in half would not be found.
    return _UNFIT.sub(" ", _TAG.sub(" ", without_queries(redact(text)))).strip()[:_LONGEST]


def quoted(text: str, *, otherwise: str) -> str:
    """Return what a service said as `storable` does, at most 300 characters; `otherwise` if it is a page, or empty."""
    return otherwise if _MARKUP.match(text) else storable(text)[:_LONGEST_QUOTE] or otherwise
