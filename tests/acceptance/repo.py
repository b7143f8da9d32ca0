"""A repo as somebody with the token finds it on the Hub."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.person import Row
from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE
from watcher.settings import settings


def hf(stage: Stage, *arguments: str, token: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run the real `hf` command."""
    environment = {
        "PATH": settings.environment()["PATH"],
        "HOME": str(stage.folder),
        "HF_HOME": str(stage.folder / "hf"),
        "HF_ENDPOINT": stage.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        **({"HF_TOKEN": stage.token} if token else {}),
    }
    command = [str(Path(sys.executable).parent / "hf"), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def download(stage: Stage, model_id: str) -> dict[str, bytes]:
    """Download a repo with `hf download`; its files by path."""
    folder = stage.folder / "downloads" / model_id
    done = hf(stage, "download", model_id, "--local-dir", str(folder))
    assert done.returncode == 0, done.stderr
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {path: content for path, content in files.items() if not path.startswith(".cache")}


def audit(stage: Stage, row: Row, photos: list[bytes] | None = None) -> dict[str, bytes]:
    """See that a published row has one repo, which holds its photos and nothing else, in one commit; the files."""
    assert row["status"] == "published", row
    names = [name for name, identity in stage.names().items() if identity == row["id"]]
    there = [name for name in names if stage.api.repo_exists(name)]
    assert there == [row["model_id"]]
    info = stage.api.repo_info(row["model_id"])
    assert info.private
    newest, initial = stage.api.list_repo_commits(row["model_id"])
    assert newest.commit_id == row["commit_sha"] == info.sha
    count = row["num_training_images"]
    assert newest.title == f"Upload training data for {row['identity_name']} ({count} images)"
    assert row["id"] in newest.message
    assert row["id"] not in f"{initial.title}{initial.message}"
    files = download(stage, row["model_id"])
    images = sorted(path for path in files if path.startswith("images/"))
    assert files.keys() - set(images) == {".gitattributes", "README.md", "training_config.json"}
    assert [Path(path).stem for path in images] == [f"image_{n:03}" for n in range(1, count + 1)]
    if photos is not None:
        assert [files[path] for path in images] == photos
    assert json.loads(files["training_config.json"]) == row["training_config"]
    return files


def orphans(stage: Stage) -> set[str]:
    """The repos in the namespace that are no published row's; all rows have to be there."""
    rows: Any = stage.admin.table("trained_identities").select("model_id").eq("status", "published").execute()
    published = {row["model_id"] for row in rows.data}
    return {repo.id for repo in stage.api.list_models(author=stage.namespace)} - published
