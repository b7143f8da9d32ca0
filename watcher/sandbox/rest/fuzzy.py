"""The fuzzy search with which PostgREST finds the name for its hints: that of the Haskell library fuzzyset."""

import re
from collections import Counter
from collections.abc import Iterable
from math import sqrt

_LEAST = 0.33
"""The least similarity of a match; 1 is equal."""
_CANDIDATES = 50


def closest(wanted: str, names: Iterable[str]) -> str | None:
    """Return the most similar name, or None if none is similar enough."""
    known = sorted(set(names))
    for size in (3, 2):
        grams = _grams(wanted, size)
        scored = [(score, name) for name in known if (score := _cosine(grams, _grams(name, size))) > 0]
        best = sorted(scored, key=lambda one: -one[0])[:_CANDIDATES]
        matches = [(_similarity(wanted.lower(), name.lower()), name) for _, name in best]
        found = max(matches, key=lambda one: one[0], default=(0.0, None))
        if found[0] >= _LEAST:
            return found[1]
    return None


def _grams(text: str, size: int) -> Counter[str]:
    words = re.sub(r"[^\w, ]", "", text.lower())
    padded = f"-{words}-".ljust(size, "-")
    return Counter(padded[start : start + size] for start in range(len(padded) - size + 1))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    product = sum(count * other[gram] for gram, count in one.items())
    return product / (_norm(one) * _norm(other))


def _norm(grams: Counter[str]) -> float:
    return sqrt(sum(count * count for count in grams.values()))


def _similarity(one: str, other: str) -> float:
    """Return 1 less the edit distance as a part of the longer text."""
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, row[0] = row[0], at
        for place, second in enumerate(other, 1):
            before, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, before + (letter != second)),
            )
    return 1 - row[-1] / max(len(one), len(other), 1)
