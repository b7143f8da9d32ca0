"""Storage 1.70.6."""

from watcher.sandbox.storage.service import routes

__all__ = ["routes"]
