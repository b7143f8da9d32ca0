"""Finds secrets in text also where they were encoded, escaped or split; the time that takes grows linearly with the text."""

import base64
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import reduce
from html.entities import html5
from urllib.parse import quote

_REDACTED = "[secret]"
_SHORTEST = 6
"""Characters of an encoded secret that are looked for: fewer would be found in any text."""
_LEVELS = 3
"""How often one escape may lie in another, such as JSON in a URL; `%2525` and `&amp;amp;` count once."""

# What stands for another character, and what splits text without showing: ends of lines with the indentation after them,
# also escaped or with a shell's mark before them, and colours of a terminal.
_ESCAPE = re.compile(
    r"%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    r"|&(?:amp;)*(?:\#(?:0*(?P<decimal>[0-9]{1,7})|[xX]0*(?P<hexadecimal>[0-9A-Fa-f]{1,6}));?|(?P<entity>[A-Za-z]{2,24});)"
    r"|\\{1,8}(?:u(?P<unicode>[0-9A-Fa-f]{4})|x(?P<byte>[0-9A-Fa-f]{2})|(?P<split>[nrt])|(?P<escaped>[^\\\w\s]))"
    r"|\\?[\r\n\x0b\x0c\x85\u2028\u2029][\s\x1c-\x1f]*"
    r"|\x1b\[[0-9;]{0,20}[A-Za-z]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+"
)


class Redactor:
    """Replaces secrets by `[secret]`.

    Found are also: URL encoding, once or more; JSON's, Python's and HTML's escapes; hex, base32 and base64 at each
    alignment; each of these reversed, and split by ends of lines or what does not show.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = {spelling for secret in secrets for spelling in _spellings(secret)}
        # As it stands in the text, and as it stands in text whose escapes were resolved.
        self._plain = sorted(spelled, key=len, reverse=True)
        resolved = spelled | {_Resolved(spelling).text for spelling in spelled}
        self._resolved = sorted((text for text in resolved if text), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return the text without the secrets."""
        if not self._plain:
            return text
        for secret in self._plain:
            text = text.replace(secret, _REDACTED)
        spans: list[tuple[int, int]] = []
        levels: list[_Resolved] = []
        resolved = text
        for _ in range(_LEVELS):
            levels.append(_Resolved(resolved))
            if levels[-1].text == resolved:
                break
            resolved = levels[-1].text
            spans += [
                reduce(lambda place, level: level.span(*place), reversed(levels), span)
                for span in _found(self._resolved, resolved)
            ]
        return _without(text, spans)


class _Resolved:
    """Text whose escapes were replaced by what they stand for, and where each character of it was."""

    def __init__(self, escaped: str) -> None:
        parts: list[str] = []
        self._escaped = escaped
        self._ends: list[tuple[int, int]] | None = None
        end = 0
        for found in _ESCAPE.finditer(escaped):
            parts += (escaped[end : found.start()], _meaning(found))
            end = found.end()
        self.text = "".join(parts) + escaped[end:] if parts else escaped

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where the characters from `start` to before `end` were."""
        return self._place(start)[0], self._place(end - 1)[1]

    def _place(self, index: int) -> tuple[int, int]:
        # Rarely needed, so not made before.
        if self._ends is None:
            self._ends = list(self._pieces())
            self._starts = [start for start, _ in self._ends]
        start, origin = self._ends[bisect_right(self._starts, index) - 1]
        if origin < 0:  # an escape, which ends where the next piece begins
            found = _ESCAPE.match(self._escaped, ~origin)
            assert found is not None
            return found.span()
        return origin + index - start, origin + index - start + 1

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield where each piece begins, and where it began; of an escape the complement of that."""
        start = end = 0
        yield 0, 0
        for found in _ESCAPE.finditer(self._escaped):
            start += found.start() - end
            if meaning := _meaning(found):
                yield start, ~found.start()
                start += len(meaning)
            end = found.end()
            yield start, end


def _meaning(found: re.Match[str]) -> str:
    """Return the character that an escape stands for; empty if none."""
    kind, value = found.lastgroup, found[found.lastgroup] if found.lastgroup else ""
    if kind is None or kind == "split":
        return ""
    if kind == "escaped":
        return value
    if kind == "entity":
        return html5.get(f"{value};", "&")[:1]
    number = int(value, 10 if kind == "decimal" else 16)
    return chr(number) if number < 0x110000 else "\ufffd"


def _found(secrets: Iterable[str], text: str) -> Iterator[tuple[int, int]]:
    for secret in secrets:
        start = text.find(secret)
        while start >= 0:
            yield start, start + len(secret)
            start = text.find(secret, start + len(secret))


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            parts += [text[end:start], _REDACTED]
        end = max(end, stop)
    return "".join(parts) + text[end:]


def _spellings(secret: str) -> Iterator[str]:
    """Yield the encodings of a secret, forwards and reversed."""
    if not secret:
        return
    yield secret
    for form in {secret, *_encodings(secret)}:
        if len(form) >= _SHORTEST:
            yield form
            yield form[::-1]


def _encodings(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    yield quote(raw, safe="")
    yield raw.decode("latin-1")  # as the bytes of a URL or of Python are resolved
    digits = [f"{byte:02x}" for byte in raw]
    for separator in ("", ":", " ", "-", ", 0x"):
        yield separator.join(digits)
        yield separator.join(digits).upper().replace("0X", "0x")
    encoders = ((base64.b64encode, 6), (base64.urlsafe_b64encode, 6), (base64.b32encode, 5))
    for encode, bits in encoders:
        # After a prefix, as in `user:password`, at each alignment: the characters that encode only the secret.
        for prefix in range(3 if bits == 6 else 5):
            first, last = -(-prefix * 8 // bits), (prefix + len(raw)) * 8 // bits
            form = encode(bytes(prefix) + raw)[first:last].decode()
            yield form
            if bits == 5:
                yield form.lower()
