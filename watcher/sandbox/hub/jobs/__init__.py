"""The Hub's Jobs: commands that it runs in containers, here processes of this machine."""

from watcher.sandbox.hub.jobs.jobs import Jobs
from watcher.sandbox.hub.jobs.runner import Programs

__all__ = ["Jobs", "Programs"]
