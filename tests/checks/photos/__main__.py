"""`make check-photos RUNS=n SEED=s`: cleans photos of all kinds, and looks for what they still tell, also with exiftool.

Then damages n photos at random, judges and cleans them, and decodes what passes. The last line is JSON. Exits with 1 if
something is told, passed that Pillow does not decode, or was changed by the cleaning.
"""

import json
import sys
from collections.abc import Iterator

import click

from tests.checks.photos import variants
from tests.checks.photos.judging import judged
from tests.checks.photos.leaks import leaks, missing_program, told_to_exiftool
from tests.checks.photos.running import Figures, mutated, refusals


@click.command()
@click.option("--runs", default=20_000)
@click.option("--seed", default=1)
def main(runs: int, seed: int) -> None:
    """Judge damaged images, and print what became of them."""
    if missing := missing_program():
        raise click.ClickException(missing)
    told = list(_told())
    for line in told:
        click.echo(line)
    figures = Figures()
    for problem in mutated(runs, seed, figures):
        click.echo(problem)
    for line in refusals(figures):
        click.echo(line)
    click.echo(json.dumps(figures.summary()))
    sys.exit(figures.is_bad or bool(told))


def _told() -> Iterator[str]:
    """Yield what photos tell that are whole, and cleaned."""
    images = {name: judged(image)[0] or b"" for name, image in (*variants.jpegs(), *variants.pngs())}
    for name, image in images.items():
        for leak in leaks(image):
            yield f"{name}: {leak}"
    yield from told_to_exiftool(images)


main()
