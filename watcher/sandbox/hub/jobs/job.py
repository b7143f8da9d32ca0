"""One job: its spec, its stage and its logs. Not safe from several threads by itself; `Jobs` has the lock."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from watcher.sandbox.hub.access import id_of
from watcher.sandbox.hub.jobs.spec import Spec

Stage = Literal["SCHEDULING", "RUNNING", "UPDATING", "COMPLETED", "ERROR", "CANCELED", "DELETED"]
STAGES: tuple[Stage, ...] = get_args(Stage)
ENDED = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})


@dataclass(eq=False)
class Job:
    """A job, from its creation on."""

    id: str
    namespace: str
    owner_type: Literal["user", "org"]
    author: str
    spec: Spec
    created_at: str
    created: float = field(default_factory=time.monotonic)
    stage: Stage = "SCHEDULING"
    message: str | None = None
    started_at: str | None = None
    started: float | None = None
    finished_at: str | None = None
    finished: float | None = None
    logs: list[tuple[str, str]] = field(default_factory=list)
    """Each line with its time, oldest first."""
    held: Stage | None = None
    """The stage in which it stays until it is released."""
    exit_code: int | None = None
    """What it is to end with; None: as its program does."""
    work: float | None = 0.0
    """How long its stand-in works, in seconds; None: without end."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if it is to run at once."""

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.stage in ENDED

    def shown(self, speed: float) -> dict[str, Any]:
        """Return the job as the API shows it; its durations are `speed` times the real ones."""
        spec = self.spec
        return {
            "type": "job",
            "id": self.id,
            "createdAt": self.created_at,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "dockerImage": spec.image,
            "command": list(spec.command),
            "arguments": list(spec.arguments),
            "environment": dict(spec.environment),
            "secrets": sorted(spec.secrets),
            "flavor": spec.flavor,
            "timeoutSeconds": spec.seconds,
            "retry": 0,
            "labels": dict(spec.labels),
            "volumes": [dict(volume.shown) for volume in spec.volumes],
            "status": {"stage": self.stage, "message": self.message},
            "durations": self._durations(speed),
            "owner": {"id": id_of(self.namespace), "name": self.namespace, "type": self.owner_type},
            "initiator": {"type": "user", "id": id_of(self.author), "name": self.author},
        }

    def _durations(self, speed: float) -> dict[str, int | None]:
        end = time.monotonic() if self.finished is None else self.finished
        scheduled = None if self.started is None else self.started - self.created
        running = None if self.started is None else end - self.started
        spans = {"schedulingSecs": scheduled, "runningSecs": running, "totalSecs": end - self.created}
        return {name: None if span is None else int(span * speed) for name, span in spans.items()}
