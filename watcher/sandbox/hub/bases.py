"""The public models that a LoRA can be trained on: their names and licences alone, from when they are first asked for."""

from watcher.sandbox.hub.store import Kind, Repo, RepoExistsError, Store

_LICENSES = {
    "black-forest-labs/FLUX.1-dev": "other",
    "black-forest-labs/FLUX.2-dev": "other",
    "black-forest-labs/FLUX.2-klein-base-4B": "apache-2.0",
    "black-forest-labs/FLUX.2-klein-base-9B": "other",
}
_BY_NAME = {name.lower(): name for name in _LICENSES}


def base(store: Store, kind: Kind, name: str) -> Repo | None:
    """Return the repo of a base model that the store does not have yet; None if it is none."""
    known = _BY_NAME.get(name.lower()) if kind == "models" else None
    if known is None:
        return None
    card = f"---\nlicense: {_LICENSES[known]}\npipeline_tag: text-to-image\nlibrary_name: diffusers\n---\n"
    try:
        author = known.partition("/")[0]
        return store.create(kind, known, author, {"README.md": card.encode()}, private=False)
    except RepoExistsError:  # by another request at the same moment
        return store.repo(kind, known)
