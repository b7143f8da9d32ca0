"""A Hub for the real huggingface_hub, and the files of a publication."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from starlette.types import ASGIApp

from watcher.sandbox.faults import Faults
from watcher.sandbox.hub import Hub, User
from watcher.sandbox.server import HOST, Server

USERS = {
    "hf_alice": User("alice", orgs={"acme": "write", "museum": "read"}),
    "hf_alice_read": User("alice", role="read", orgs={"acme": "write"}),
    "hf_alice_fine": User("alice", role="fineGrained", permissions=("repo.content.read", "repo.write")),
    "hf_alice_narrow": User("alice", role="fineGrained", permissions=("repo.content.read",)),
    "hf_alice_jobs": User("alice", role="fineGrained", permissions=("job.write",)),
    "hf_bob": User("bob"),
}
CARD = b"---\nlicense: mit\ntags:\n- lora\n---\n# A person\n"
IMAGE_LFS = b"*.jpg filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class Site:
    """A running Hub, and the control port over which another process can ask for faults."""

    folder: Path
    hub: Hub
    faults: Faults
    url: str
    control: str

    def api(self, token: str | bool = "hf_alice") -> HfApi:
        return HfApi(endpoint=self.url, token=token)

    def clear(self) -> None:
        """Delete all repos, end all faults, and make every token valid again."""
        self.faults.clear()
        self.hub.jobs.clear()
        self.hub.reset()
        for repo in (*self.hub.store.repos("models"), *self.hub.store.repos("datasets")):
            self.hub.store.delete(repo)
        self.faults.reset()

    def paths(self) -> list[str]:
        """Return the requests since the last reset: the method, and the last part of the path."""
        return [
            f"{one.method} {one.path.split('/')[-1] if '_lfs' not in one.path else 'LFS'}"
            for one in self.faults.log()
        ]


@contextmanager
def served(folder: Path, page_size: int = 1000, job_python: Path | None = None) -> Iterator[Site]:
    """Serve a Hub with its state in the folder."""
    faults, hub = Faults(), Hub(folder, USERS, page_size=page_size, job_python=job_python)
    for name, action in hub.actions.items():
        faults.register(name, action)
    apps: dict[str, tuple[ASGIApp, int]] = {
        "hub": (faults.wrap(hub.app, "hub"), 0),
        "control": (faults.control_app(), 0),
    }
    server = Server(apps)
    server.start()
    try:
        yield Site(folder, hub, faults, *(f"http://{HOST}:{server.ports[name]}" for name in apps))
    finally:
        server.stop()


def image(number: int, size: int = 20_000) -> bytes:
    return b"\xff\xd8\xff\xe0" + random.Random(number).randbytes(size) + b"\xff\xd9"


def additions(folder: Path, count: int) -> list[CommitOperationAdd]:
    """Return what a publication adds: images from disk, and three small files from memory."""
    operations = []
    for number in range(1, count + 1):
        path = folder / f"{number}.jpg"
        path.write_bytes(image(number))
        operations.append(CommitOperationAdd(f"images/image_{number:03}.jpg", str(path)))
    small = {"README.md": CARD, "training_config.json": b"{}\n", ".gitattributes": IMAGE_LFS}
    return operations + [CommitOperationAdd(path, content) for path, content in small.items()]
