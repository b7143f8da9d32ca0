"""Makes other people's text plain: nothing in it controls a terminal, or shows it otherwise than it is written."""

import re

_SHOWN_INSTEAD = "\N{REPLACEMENT CHARACTER}"

# Ends of lines instead of \n, at which programs that read lines may break.
_OTHER_LINE_ENDS = re.compile("\r(?!\n)|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINE_ENDS = re.compile("[\t\n\r]+")
# Control characters, including terminal escapes; those that change the direction of writing; halves of characters, which
# cannot be encoded.
_UNSAFE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ud800-\udfff]")
_ESCAPED = re.compile(f"{_UNSAFE.pattern}|[\u2028\u2029]")
_URL = re.compile(r"""https?://[^\s"'<>\\]+""")
_SIGNED = re.compile(
    r"""(?i)((?:[?&]|\\u0026)(?:token|apikey|api[_-]key|access_token|refresh_token|signature|sig|x-(?:amz|goog)-[a-z-]{1,30})=)"""
    r"""(?:[^\s&"'<>\\]|\\u[0-9a-f]{4})+"""
)


def plain(text: str) -> str:
    """Return untrusted text with each character that controls a terminal replaced; it keeps tabs and ends of lines."""
    return _UNSAFE.sub(_SHOWN_INSTEAD, _OTHER_LINE_ENDS.sub(" ", text))


def one_line(text: str) -> str:
    """Return untrusted text as `plain` does, and as one line."""
    return plain(_LINE_ENDS.sub(" ", text))


def escaped(json: str) -> str:
    """Return a JSON text with such characters written as JSON's escapes."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json)


def without_queries(text: str) -> str:
    """Leave out what URLs have after `?` and `#`, with which some are signed, and what signs a path."""
    return _SIGNED.sub(r"\1[secret]", _URL.sub(lambda url: re.split("[?#]", url[0], maxsplit=1)[0], text))
