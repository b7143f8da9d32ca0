"""The public models that LoRAs are trained on: a licence and the name of a pipeline, from when they are first asked for."""

import json

from watcher.sandbox.hub.store import Kind, Repo, RepoExistsError, Store

_BASES = {
    "black-forest-labs/FLUX.1-dev": ("other", "FluxPipeline"),
    "black-forest-labs/FLUX.2-dev": ("other", "Flux2Pipeline"),
    "black-forest-labs/FLUX.2-klein-base-4B": ("apache-2.0", "Flux2KleinPipeline"),
    "black-forest-labs/FLUX.2-klein-base-9B": ("other", "Flux2KleinPipeline"),
}
_BY_NAME = {name.lower(): name for name in _BASES}


def base(store: Store, kind: Kind, name: str) -> Repo | None:
    """Return the repo of a base model that the store does not have yet; None if it is none."""
    known = _BY_NAME.get(name.lower()) if kind == "models" else None
    if known is None:
        return None
    license_id, pipeline = _BASES[known]
    card = f"---\nlicense: {license_id}\npipeline_tag: text-to-image\nlibrary_name: diffusers\n---\n"
    files = {"README.md": card.encode(), "model_index.json": json.dumps({"_class_name": pipeline}).encode()}
    try:
        return store.create(kind, known, known.partition("/")[0], files, private=False)
    except RepoExistsError:  # by another request at the same moment
        return store.repo(kind, known)
