"""Storage 1.70.6."""

from watcher.sandbox.storage.service import Storage

__all__ = ["Storage"]
