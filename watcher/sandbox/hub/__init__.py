"""The Hugging Face Hub."""

from watcher.sandbox.hub.service import Hub, User

__all__ = ["Hub", "User"]
