"""Asks whether a token may read a model that somebody else owns, such as the base of a training. Downloads nothing."""

from functools import partial
from typing import Literal

from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from watcher.hub.repos import Hub
from watcher.hub.threads import in_thread

Access = Literal["granted", "gated", "missing"]
"""`gated`: its conditions are not accepted by the token's user; `missing`: there is no such model, or it is private."""


async def access_to(hub: Hub, model_id: str) -> Access:
    """Return whether the hub's token may read a model; raises Outage, Refused or Transient."""
    return await in_thread(partial(_access_to, hub, model_id))


def _access_to(hub: Hub, model_id: str) -> Access:
    try:
        hub.api.auth_check(model_id)
    except GatedRepoError:
        return "gated"
    except RepositoryNotFoundError:
        return "missing"
    return "granted"
