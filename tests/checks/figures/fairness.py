"""A row of three photos beside one user's twenty rows of forty, on one limited link."""

import os
from datetime import datetime
from io import BytesIO

from PIL import Image

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Rate

from .beside import compared
from .figure import Figure, Measured
from .scene import Scene, scene

_ROWS, _PHOTOS, _TRIES = 20, 40, 5
_LINK = 3e6
"""Bytes per second, to Storage and to the Hub each."""
_SLACK = 0.5


def _fairness() -> Measured:
    with scene() as here, Watcher(here.stage) as watcher:
        watcher.ready()
        eve, ada = Person(here.stage), Person(here.stage)
        large = [eve.upload(_picture(), f"{number}.jpg") for number in range(_PHOTOS)]
        small = [ada.upload(_picture(), f"{number}.jpg") for number in range(3)]
        for service, method, path in (
            ("storage", "GET", "/object/authenticated/"),
            ("hub", "PUT", "^/_lfs/"),
        ):
            here.sandbox.faults.add(Rate(_LINK), service=service, method=method, path=path, times=None)
        _publish(here, ada, small)
        alone = [_publish(here, ada, small) for _ in range(_TRIES)]
        rows = [eve.insert("Eve", large) for _ in range(_ROWS)]
        here.claimed(rows[0])
        beside: list[float] = []
        while len(beside) < _TRIES and here.stage.story(rows[-1])["status"] != "published":
            beside.append(_publish(here, ada, small))
        here.all_become(rows, "published", within=240)
        stories = [here.stage.story(row) for row in rows]
        began = min(datetime.fromisoformat(story["created_at"]) for story in stories)
        ended = max(datetime.fromisoformat(story["published_at"]) for story in stories)
        watcher.stop()
    found = compared(alone, beside)
    seconds = (ended - began).total_seconds()
    found |= {"n": len(beside), "rows_per_second": round(_ROWS / seconds, 3)}
    return Measured(
        found["beside"] <= 2 * found["alone"] + _SLACK,
        f"3 photos: alone {found['alone']:.2f} s, beside {found['beside']:.2f} s, at most {found['longest']:.2f} s "
        f"(n {found['n']}); the {_ROWS} rows together {found['rows_per_second']:.2f} rows/s",
        found,
    )


def _publish(here: Scene, person: Person, paths: list[str]) -> float:
    row = person.insert("Ada", paths)
    here.all_become([row], "published", within=120)
    story = here.stage.story(row)
    created, published = (datetime.fromisoformat(story[at]) for at in ("created_at", "published_at"))
    return (published - created).total_seconds()


def _picture() -> bytes:
    """A photo of about 110 kB that is like no other."""
    file = BytesIO()
    Image.frombytes("L", (400, 300), os.urandom(120_000)).save(file, "JPEG", quality=85)
    return file.getvalue()


FIGURES = [
    Figure(
        "fairness",
        "3 photos beside somebody's 20 rows of 40, on a limited link: at most 2× alone + 0.5 s",
        _fairness,
    )
]
