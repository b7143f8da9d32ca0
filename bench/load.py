"""A backlog of rows, the programs that process it, and the CPU time that takes in each process."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import NamedTemporaryFile
from typing import Any

import psycopg

from bench.rivals import ROOT
from tests.acceptance.running import environment
from tests.checks.figures.scene import Scene
from tests.support import cpu

_FIRST, _LAST = 0.1, 0.9
"""Measured is the part of a backlog between these shares, without start and end."""


def insert(here: Scene, count: int) -> None:
    """Insert rows, each with its own name and three photos, 20 per user."""
    with here.database.transaction():
        here.database.execute(
            """
            create temporary table people on commit drop as
            select gen_random_uuid() as id from generate_series(1, %s)
            """,
            [-(-count // 20)],
        )
        here.database.execute("insert into auth.users (id) select id from people")
        here.database.execute("""
            insert into storage.objects (bucket_id, name)
            select 'identity-images', format('%s/photo %s.jpg', id, number) from people, generate_series(1, 3) number
        """)
        here.database.execute(
            """
            insert into public.trained_identities (user_id, identity_name, image_paths)
            select id, format('Ada %%s', row_number() over ()),
                array(select format('%%s/photo %%s.jpg', id, number) from generate_series(1, 3) number)
            from people, generate_series(1, 20) limit %s
            """,
            [count],
        )


class Program:
    """A subprocess and its log."""

    def __init__(self, process: "Popen[str]", log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    def logged(self, text: str) -> bool:
        return text in self._log.read_text()

    def stop(self) -> str:
        """Ask it to stop, and return what it printed."""
        self._process.terminate()
        printed, _ = self._process.communicate(timeout=20)
        return printed


@contextmanager
def program(here: Scene, arguments: Sequence[str], **settings: str) -> Iterator[Program]:
    """Run a module with the stage's settings, and kill it at the end if it still runs."""
    with (
        NamedTemporaryFile(dir=here.stage.folder) as log,
        Popen(
            [sys.executable, "-m", *arguments],
            env=environment({**here.stage.settings, **settings}, here.stage.folder),
            cwd=ROOT,
            stdout=PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Program(process, Path(log.name))
        except BaseException:
            print(Path(log.name).read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            process.kill()


@dataclass(frozen=True)
class Worked:
    """How a backlog was processed, in its middle part."""

    rows_per_second: float
    seconds: dict[str, float]
    """Of CPU per row, by process."""


def work_off(
    count: int,
    left: Callable[[], int],
    ended: Callable[[], list[float]],
    who: Mapping[str, Callable[[], float]],
) -> Worked:
    """Wait until none of `count` rows is left; `ended`: when each ended; `who`: the CPU seconds of each process."""
    marks: list[tuple[int, dict[str, float]]] = []
    deadline = time.monotonic() + 120
    while (still := left()) > 0:
        assert time.monotonic() < deadline, f"{still} of {count} rows are left."
        if len(marks) < 2 and count - still >= (_FIRST, _LAST)[len(marks)] * count:
            marks.append((count - still, {name: used() for name, used in who.items()}))
        time.sleep(0.05)
    if len(marks) < 2:
        marks.append((count, {name: used() for name, used in who.items()}))
    (first, before), (last, after) = marks
    moments = sorted(ended())
    assert len(moments) == count, f"{len(moments)} of {count} rows ended."
    low, high = int(_FIRST * count), int(_LAST * count)
    return Worked(
        rows_per_second=(high - low) / (moments[high] - moments[low]),
        seconds={name: (after[name] - before[name]) / (last - first) for name in who},
    )


def cpu_of_postgres(database: psycopg.Connection[Any]) -> Callable[[], float]:
    """Return a function for the CPU seconds of all processes of a connection's server."""
    server = int(cpu.fields(database.info.backend_pid)[1])

    def used() -> float:
        total = sum(map(int, cpu.fields(server)[11:15]))  # with its children that have ended
        for process in Path("/proc").glob("[0-9]*"):
            try:
                stat = cpu.fields(int(process.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat[1]) == server:
                total += sum(map(int, stat[11:13]))
        return total / cpu.TICKS

    return used
