"""Audits every row from outside: through REST as the service role, the verbs, and the Hub with the token.

None of the daemon's code is used: expected names, bytes, config and card are defined here again.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.acceptance.stage import Stage
from tests.checks.chaos.harm import BY_HAND
from tests.checks.chaos.trainings import TrainingVerdict, audit_trainings
from tests.checks.chaos.users import Inserted, Register, picture
from watcher.sandbox.hub.jobs.job import Job

_CODES = {
    "image_missing", "image_too_large", "image_not_jpeg_or_png", "image_unreadable", "image_animated",
    "image_too_many_pixels", "path_forbidden", "hub_refused", "attempts_exhausted",
}  # fmt: skip
_PUBLISHED = {"published", "training", "ready"}
_TRAINING_OF_COMMIT = re.compile(r"^Watcher training: (\S+)\s*$", re.MULTILINE)
_ROW_OF_COMMIT = re.compile(r"^Identity: ([0-9a-f-]{36})\s*$", re.MULTILINE)


@dataclass
class Verdict:
    """How the rows of one run ended, and all findings."""

    ended: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    """Of the rows that failed."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    without_repo: list[str] = field(default_factory=list)
    """Rows that are published, but have no repo on the Hub."""
    stuck: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unerased: list[str] = field(default_factory=list)
    """What is left of rows that their users have deleted, with the account or alone."""
    erased_wrongly: list[str] = field(default_factory=list)
    """What is gone of rows that nobody has deleted."""
    erase_seconds: list[float] = field(default_factory=list)
    """From the deletion of each row to its receipt."""
    trainings: TrainingVerdict = field(default_factory=TrainingVerdict)

    @property
    def findings(self) -> list[str]:
        """All findings, by kind."""
        kinds = {
            "lost": self.lost,
            "doubled": self.doubled,
            "published without a repo": self.without_repo,
            "stuck": self.stuck,
            "orphan repo": self.orphans,
            "unerased": self.unerased,
            "erased wrongly": self.erased_wrongly,
        }
        for kind, found in self.trainings.findings.items():
            kinds[kind] = [*kinds.get(kind, []), *found]
        return [f"{kind}: {what}" for kind, found in kinds.items() for what in found]


@dataclass(frozen=True)
class _Name:
    """A reserved name of a repo, as the database has recorded it."""

    row: str
    reserved_at: datetime


@dataclass(frozen=True)
class _Repo:
    """A repo as the Hub shows it."""

    name: str
    private: bool
    commits: list[Any]
    """The newest first, without those of trainings and those made by hand."""
    trainings: list[str]
    """Whose weights were committed to it."""
    edited: bool
    """Whether there are commits made by hand."""

    @property
    def rows(self) -> list[str]:
        """The rows that its commits name."""
        return [row for commit in self.commits for row in _ROW_OF_COMMIT.findall(commit.message)]


def audit(stage: Stage, register: Register, removed: Sequence[Job] = (), over_budget: float = 0.0) -> Verdict:
    """Compare what users inserted with the database and the Hub; see `audit_trainings`."""
    verdict = Verdict()
    rows = _rows(stage)
    names = _names(stage)
    repos = {repo.name: repo for repo in _repos(stage)}
    to_erase = stage.to_erase()
    verdict.stuck += [f"{name} is still to be erased" for name in to_erase]
    verdict.orphans += [repo.name for repo in repos.values() if _is_orphan(repo, rows, names, to_erase)]
    _check_repos(verdict, register, names, repos)
    for identity, inserted in register.rows.items():
        row = rows.get(identity)
        if row is None:
            if inserted.deleted:
                verdict.ended["deleted"] += 1
            else:
                verdict.lost.append(f"{identity} is gone, and nobody deleted it")
            continue
        match row["status"]:
            case "published" | "ready" | "training":
                verdict.ended["published"] += 1
                repo = repos.get(row["model_id"])
                wrong = _wrong_with_publication(stage, row, inserted, repo) if repo else []
                if repo is None:
                    verdict.without_repo.append(f"{identity}, {row['model_id']}")
            case "failed":
                verdict.ended["failed"] += 1
                verdict.codes[row["error_code"]] += 1
                wrong = list(_wrong_with_failure(row, names, repos))
            case status:
                wrong = []
                verdict.stuck.append(f"{identity} is still {status}: {json.dumps(stage.story(identity))}")
        verdict.lost += [f"{identity} {sentence}" for sentence in wrong]
    _check_erasing(verdict, stage, register, rows, names, repos)
    verdict.trainings = audit_trainings(stage, register, rows, removed, over_budget)
    for label, times in Counter(label for repo in repos.values() for label in repo.trainings).items():
        if times > 1:
            verdict.trainings.doubled.append(f"training {label} has committed {times} times")
    verdict.lost += [
        f"{identity}: a row that nobody inserted" for identity in rows.keys() - register.rows.keys()
    ]
    return verdict


def _rows(stage: Stage) -> dict[str, dict[str, Any]]:
    rows: Any = stage.admin.table("trained_identities").select("*").execute().data
    return {str(row["id"]): row for row in rows}


def _names(stage: Stage) -> dict[str, _Name]:
    """Every name ever reserved for a repo."""
    names: dict[str, _Name] = {}
    after = ""
    while page := stage.rpc("watcher_names", after=after):
        names.update({one["model_id"]: _Name(one["identity_id"], _time(one["reserved_at"])) for one in page})
        after = page[-1]["model_id"]
    return names


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _repos(stage: Stage) -> list[_Repo]:
    found = []
    for model in stage.api.list_models(author=stage.namespace):
        commits = stage.api.list_repo_commits(model.id)
        edited = any(commit.title == BY_HAND for commit in commits)
        labels = {commit.commit_id: _TRAINING_OF_COMMIT.findall(commit.message) for commit in commits}
        own = [commit for commit in commits if commit.title != BY_HAND and not labels[commit.commit_id]]
        trainings = [label for found_labels in labels.values() for label in found_labels]
        found.append(_Repo(model.id, bool(model.private), own, trainings, edited=edited))
    return found


def _is_orphan(
    repo: _Repo, rows: dict[str, dict[str, Any]], names: dict[str, _Name], to_erase: AbstractSet[str]
) -> bool:
    """Whether a repo belongs to no row and is not listed to be erased."""
    if repo.edited or repo.name in to_erase or any(row["model_id"] == repo.name for row in rows.values()):
        return False  # one with commits made by hand belongs to whoever made them
    name = names.get(repo.name)
    if name is None:
        return True
    row = rows.get(name.row)
    # The names of a deleted row stay reserved, even after another row was inserted under its id. The repos of failed rows
    # are checked with the rows.
    return bool(row and row["status"] in _PUBLISHED and name.reserved_at >= _time(row["created_at"]))


def _check_erasing(
    verdict: Verdict,
    stage: Stage,
    register: Register,
    rows: dict[str, dict[str, Any]],
    names: dict[str, _Name],
    repos: dict[str, _Repo],
) -> None:
    """Find what is left of deleted rows, and what is gone of others."""
    assert stage.sandbox is not None
    objects = stage.photos()
    receipts = {one["id"]: one for one in stage.rpc("watcher_erasures", limit=100_000)["receipts"]}
    reserved = {name.row for name in names.values()}
    in_repos = {row for repo in repos.values() for row in repo.rows}
    for identity, inserted in register.rows.items():
        photos = objects & set(inserted.paths)
        if inserted.deleted:
            left = {
                "its row": identity in rows,
                "its name": identity in reserved,
                "a repo": identity in in_repos,
                "photos": bool(photos),
                "no receipt": identity not in receipts,
            }
            verdict.unerased += [f"{identity} has left {thing}" for thing, is_left in left.items() if is_left]
        elif len(photos) < len(inserted.paths):
            verdict.erased_wrongly.append(f"{identity} has lost {len(inserted.paths) - len(photos)} photos")
    verdict.erased_wrongly += [
        f"{identity} has a receipt, though its row is there" for identity in receipts.keys() & rows.keys()
    ]
    large = stage.sandbox.hub.store.bytes.uncollected()
    verdict.unerased += [f"{len(large)} large files of deleted repos"] if large else []
    verdict.erase_seconds = [one["seconds"] for one in receipts.values() if one["cause"] == "row"]


def _check_repos(
    verdict: Verdict, register: Register, names: dict[str, _Name], repos: dict[str, _Repo]
) -> None:
    """Find rows that were published twice, and repos that are public."""
    holding: Counter[str] = Counter()
    for repo in repos.values():
        if not repo.private:
            verdict.lost.append(f"{repo.name} is public")
        if len(repo.commits) > 2:
            verdict.doubled.append(f"{repo.name} has {len(repo.commits)} commits")
        holding.update(set(repo.rows))
        name = names.get(repo.name)
        if set(repo.rows) - {name.row if name else None}:
            verdict.lost.append(f"{repo.name} contains the row {repo.rows}, but was reserved as {name}")
    for identity, count in holding.items():
        inserted = register.rows.get(identity)
        if inserted is None or count > 1:
            verdict.doubled.append(f"{identity} was published in {count} repos")


def _wrong_with_publication(stage: Stage, row: dict[str, Any], inserted: Inserted, repo: _Repo) -> list[str]:
    """Compare the repo of a published row with what its user uploaded, byte by byte."""
    wrong = []
    if not inserted.fit:
        wrong.append("is published, although its images are not valid")
    ours = [commit for commit in repo.commits if row["id"] in _ROW_OF_COMMIT.findall(commit.message)]
    count, name = len(inserted.plan.pictures), row["identity_name"]
    if [commit.commit_id for commit in ours] != [row["commit_sha"]]:
        return [*wrong, f"has commit {row['commit_sha']}, but {repo.name} has {ours}"]
    if ours[0].title != f"Upload training data for {name} ({count} images)":
        wrong.append(f"was committed as {ours[0].title}")
    if not str(row["huggingface_repo_url"]).endswith(f"/{repo.name}") or row["images_published"] != count:
        wrong.append(f"has {row['huggingface_repo_url']} and {row['images_published']} images")
    if row["published_at"] is None or row["error_code"] is not None:
        wrong.append("is published, but has an error code or no published_at")
    with tempfile.TemporaryDirectory() as folder:
        stage.api.snapshot_download(repo.name, revision=row["commit_sha"], local_dir=folder, max_workers=2)
        files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in Path(folder).rglob("*")
            if file.is_file()
        }
    files = {path: content for path, content in files.items() if not path.startswith(".cache/")}
    expected = {
        f"images/image_{number:03}.{'png' if kind == 'png' else 'jpg'}": picture(kind, seed)
        for number, (kind, seed) in enumerate(inserted.plan.pictures, 1)
    }
    documents = {".gitattributes", "README.md", "training_config.json"}
    if files.keys() != expected.keys() | documents:
        return [*wrong, f"has the files {sorted(files)} in {repo.name}"]
    wrong += [
        f"has different bytes in {path}" for path, content in expected.items() if files[path] != content
    ]
    config = _config(row, inserted)
    if row["training_config"] != config or files["training_config.json"].decode() != (
        json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    ):
        wrong.append(f"has the config {files['training_config.json'].decode()}")
    card = files["README.md"].decode()
    if not card.startswith("---\nlicense: mit\n") or name not in card or repo.name not in card:
        wrong.append(f"has the card {card[:200]}")
    attributes = files[".gitattributes"].decode()
    if not {"*.jpg filter=lfs diff=lfs merge=lfs -text", "*.png filter=lfs diff=lfs merge=lfs -text"} <= set(
        attributes.splitlines()
    ):
        wrong.append(f"has the attributes {attributes}")
    return wrong


def _config(row: dict[str, Any], inserted: Inserted) -> dict[str, Any]:
    return {
        "identity_name": inserted.plan.name,
        "num_images": len(inserted.plan.pictures),
        "created_at": f"{row['created_at'][:19]}Z",
        "user_id": inserted.user,
        "model_type": "flux-lora",
        "training_params": {"steps": 1000, "learning_rate": 0.0004, "resolution": 512},
    }


def _wrong_with_failure(row: dict[str, Any], names: dict[str, _Name], repos: dict[str, _Repo]) -> list[str]:
    """Check that a failed row has a reason, and no repo."""
    wrong = []
    if row["error_code"] not in _CODES or not row["error_message"]:
        wrong.append(f"failed with {row['error_code']}: {row['error_message']}")
    for name, reserved in names.items():
        repo = repos.get(name)
        if repo is None or reserved.row != row["id"] or reserved.reserved_at < _time(row["created_at"]):
            continue  # it belongs to a deleted row with the same id
        if repo.edited:
            continue  # a repo with other people's commits is never deleted
        wrong.append(f"failed with {row['error_code']}, but {name} exists with {len(repo.commits)} commits")
    return wrong
