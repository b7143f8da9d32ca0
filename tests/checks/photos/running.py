"""Runs mutations of all variants, and counts."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.checks.photos import variants
from tests.checks.photos.judging import Found, examine
from tests.checks.photos.mutations import damaged


@dataclass(slots=True)
class Figures:
    """What was counted."""

    tried: int = 0
    accepted: int = 0
    accepted_undecodable: int = 0
    kept_undecodable: int = 0
    refused_decodable: int = 0
    changed: int = 0
    """Cleaned, and not as it should be."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the refusals of what Pillow decodes."""

    def add(self, found: Found) -> None:
        """Count one file."""
        self.tried += 1
        self.accepted += found.refusal is None
        self.accepted_undecodable += found.undecodable
        self.kept_undecodable += found.kept_undecodable
        self.changed += found.differences is not None
        if found.refusal and found.opens:
            self.refused_decodable += 1
            self.reasons[re.sub(r"\d[\d,]*|marker \w\w", "N", found.refusal)] += 1

    @property
    def is_bad(self) -> bool:
        """Whether something passed that should not."""
        too_strict = self.refused_decodable > 0.15 * self.tried
        return bool(self.accepted_undecodable or self.kept_undecodable or self.changed or too_strict)

    def summary(self) -> dict[str, int]:
        """Return the counts by name."""
        names = (
            "tried",
            "accepted",
            "accepted_undecodable",
            "kept_undecodable",
            "refused_decodable",
            "changed",
        )
        return {name: getattr(self, name) for name in names}


def mutated(runs: int, seed: int, figures: Figures) -> Iterator[str]:
    """Damage and examine so many images, and yield a line for each problem. The seed of run i is SEED + i."""
    formats = [list(variants.jpegs()), list(variants.pngs())]
    for number in range(seed, seed + runs):
        chance = random.Random(number)
        images = chance.choice(formats)
        name, image = chance.choice(images)
        found = examine(damaged(image, [other for _, other in images], chance), chance)
        figures.add(found)
        for problem in problems(found):
            yield f"{name}: {problem}. To repeat: make check-photos RUNS=1 SEED={number}"


def problems(found: Found) -> Iterator[str]:
    """Say what is wrong with what became of a file."""
    if found.undecodable:
        yield "accepted and cleaned, and Pillow does not decode it"
    if found.kept_undecodable:
        yield "accepted as it came, and Pillow does not decode it"
    if found.differences:
        yield f"cleaned, and not as it should be: {found.differences}"


def refusals(figures: Figures) -> Iterator[str]:
    """Yield a line for each reason for which something was refused that Pillow decodes."""
    for reason, count in figures.reasons.most_common():
        yield f"{count:6} refused though Pillow decodes it: {reason}"
