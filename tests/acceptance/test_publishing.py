"""The whole way: photos and a row go in, a private repo comes out, and whoever may look sees it happen."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from realtime import RealtimePostgresChangesListenEvent
from supabase import AsyncClient, AsyncClientOptions

from tests.acceptance.person import Person
from tests.acceptance.repo import audit, download, hf
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.pictures import jpeg, png
from tests.support.waiting import PATIENCE
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Rate

pytestmark = pytest.mark.usefixtures("daemon")

_TWELVE = [png(seed=n) if n % 4 == 3 else jpeg(seed=n) for n in range(12)]
_CONFIG = """\
{{
  "identity_name": "{name}",
  "num_images": 12,
  "created_at": "{created_at}",
  "user_id": "{user_id}",
  "model_type": "flux-lora",
  "training_params": {{
    "steps": 1000,
    "learning_rate": 0.0004,
    "resolution": 512
  }}
}}
"""


def test_a_row_becomes_a_private_repo_with_exactly_its_photos(stage: Stage, person: Person) -> None:
    # The second one is a JPEG that calls itself PNG. The row's order is not the order of upload, or of the names.
    named = [f"photo {n}.{'png' if n % 4 == 3 or n == 1 else 'jpg'}" for n in range(12)]
    order = [7, 3, 11, 0, 1, 10, 2, 9, 4, 8, 5, 6]
    paths = [person.upload(content, name) for content, name in zip(_TWELVE, named, strict=True)]
    identity = person.insert("Zoë O'Neil", [paths[n] for n in order])
    row = person.wait_for(identity, "published")

    files = audit(stage, row, photos=[_TWELVE[n] for n in order])
    extensions = {path: path.rpartition(".")[2] for path in files if path.startswith("images/")}
    assert extensions == {
        f"images/image_{place:03}.{'png' if n % 4 == 3 else 'jpg'}": "png" if n % 4 == 3 else "jpg"
        for place, n in enumerate(order, 1)
    }
    created = datetime.fromisoformat(row["created_at"]).astimezone(UTC)
    expected = _CONFIG.format(
        name="Zoë O'Neil", created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"), user_id=person.id
    )
    assert files["training_config.json"].decode() == expected
    attributes = files[".gitattributes"].decode().splitlines()
    for kind in ("jpg", "png", "safetensors"):
        assert f"*.{kind} filter=lfs diff=lfs merge=lfs -text" in attributes

    assert re.fullmatch(rf"{stage.namespace}/identity-zoe-o-neil-{int(created.timestamp())}", row["model_id"])
    assert row["huggingface_repo_url"] == f"{stage.endpoint}/{row['model_id']}"
    assert row["published_at"] > row["created_at"]
    assert row["updated_at"] >= row["published_at"]
    assert (row["num_training_images"], row["images_published"]) == (12, 12)
    assert (row["error_code"], row["error_message"], row["next_attempt_at"]) == (None, None, None)
    assert row["user_id"] == person.id


def test_the_model_card_is_one_that_the_hub_accepts(stage: Stage, person: Person) -> None:
    row = person.wait_for(person.insert("`| [x](y) # 李雷 --- <b>"), "published")
    card = download(stage, row["model_id"])["README.md"].decode()
    answer = httpx.post(
        f"{stage.endpoint}/api/validate-yaml", json={"content": card, "repoType": "model"}, timeout=PATIENCE
    )
    assert answer.status_code == 200, answer.text
    assert not answer.json().get("errors")
    info = stage.api.model_info(row["model_id"])
    assert info.card_data is not None
    assert info.card_data["license"] == "mit"
    assert row["model_id"].partition("/identity-")[2].startswith("x-y-li-lei-b-")


def test_without_the_token_the_repo_is_not_to_be_seen(stage: Stage, person: Person) -> None:
    row = person.wait_for(person.insert(), "published")
    model_id = row["model_id"]
    for path in (
        f"/api/models/{model_id}",
        f"/api/models/{model_id}/tree/main",
        f"/{model_id}/resolve/main/README.md",
        f"/{model_id}/resolve/main/images/image_001.jpg",
    ):
        assert httpx.get(f"{stage.endpoint}{path}", timeout=PATIENCE).status_code == 401, path
    done = hf(stage, "download", model_id, token=False)
    assert done.returncode != 0
    found = httpx.get(f"{stage.endpoint}/api/models", params={"author": stage.namespace}, timeout=PATIENCE)
    assert model_id not in found.text


def test_two_people_of_one_name_in_the_same_second_get_two_repos(
    stage: Stage, people: Callable[[], Person]
) -> None:
    ours = [
        (someone, [jpeg(seed=10 * n + m) for m in range(3)]) for n, someone in enumerate([people(), people()])
    ]
    inserted = [(someone, photos, [someone.upload(photo) for photo in photos]) for someone, photos in ours]
    rows = [(someone, photos, someone.insert("John", paths)) for someone, photos, paths in inserted]
    models = []
    for someone, photos, identity in rows:
        row = someone.wait_for(identity, "published")
        audit(stage, row, photos)
        models.append(row["model_id"])
    assert len(set(models)) == 2
    assert all(re.fullmatch(rf"{stage.namespace}/identity-john-\d{{10}}", model) for model in models)


def test_the_owner_sees_all_of_it_live_and_nobody_else_does(
    stage: Stage, sandbox: Sandbox, people: Callable[[], Person]
) -> None:
    owner, other = people(), people()
    photos = [jpeg(seed=n, size=(600, 600)) for n in range(20)]
    paths = [owner.upload(photo) for photo in photos]
    # Slower than a renewal, so that there is progress to see.
    sandbox.faults.add(
        Rate(sum(map(len, photos)) / 4), service="hub", method="PUT", path="^/_lfs/put/", times=None
    )

    async def watch() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with _told(stage, owner) as mine, _told(stage, other) as others:
            identity = await asyncio.to_thread(owner.insert, "Ada", paths)
            # Rows are looked at when the news goes out, so not to be told of what is deleted at once is right.
            async with asyncio.timeout(PATIENCE):
                await mine.published.wait()
            await asyncio.to_thread(owner.delete, identity)
            # Both are told of the deletion, and it comes last.
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(mine.deleted.wait(), others.deleted.wait())
            return mine.changes, others.changes

    seen, seen_by_other = asyncio.run(watch())
    statuses = [change["record"].get("status") for change in seen if change["type"] != "DELETE"]
    assert list(dict.fromkeys(statuses)) == ["pending", "publishing", "published"]
    progress = [change["record"]["images_published"] for change in seen if change["record"]]
    assert progress == sorted(progress)
    assert any(0 < images < 20 for images in progress)
    assert progress[-1] == 20
    assert [change["type"] for change in seen_by_other] == ["DELETE"]
    [deleted] = seen_by_other
    assert deleted["old_record"].keys() == {"id"}
    assert not deleted.get("record")


class _Told:
    """What a person's browser was told of the table."""

    def __init__(self) -> None:
        self.changes: list[dict[str, Any]] = []
        self.published = asyncio.Event()
        self.deleted = asyncio.Event()

    def change(self, payload: Any) -> None:
        self.changes.append({"record": {}, **payload["data"]})
        if self.changes[-1]["record"].get("status") == "published":
            self.published.set()
        if payload["data"]["type"] == "DELETE":
            self.deleted.set()


@asynccontextmanager
async def _told(stage: Stage, person: Person) -> AsyncIterator[_Told]:
    """Listen as a browser does, from now on."""
    told, subscribed = _Told(), asyncio.Event()
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        client = AsyncClient(stage.url, stage.public_key, options)
        await client.auth.sign_in_with_password({"email": person.email, "password": person.password})
        channel = client.channel("mine")
        channel.on_postgres_changes(
            RealtimePostgresChangesListenEvent.All, told.change, table="trained_identities"
        )
        channel.on_system(lambda _: subscribed.set())
        await channel.subscribe()
        async with asyncio.timeout(PATIENCE):
            await subscribed.wait()
        try:
            yield told
        finally:
            await client.realtime.close()


def test_a_publication_costs_no_more_requests_than_it_must(
    stage: Stage, sandbox: Sandbox, person: Person, daemon: Watcher
) -> None:
    count = 12
    paths = person.photos(count)
    daemon.wait_for("feed_alive")
    sandbox.faults.reset()
    row = person.wait_for(person.insert("Ada", paths), "published")
    asked = Counter(
        (one.service, one.method, re.sub(r"/(PUT|put)/.*", "/put", one.path))
        for one in sandbox.faults.log()
        if one.service == "hub" or "/object/authenticated/" in one.path
    )
    assert asked.total() <= 2 * count + 6 + 2 * -(-count // 5), asked
    called = [one.path.rpartition("/")[2] for one in sandbox.faults.log() if "/rpc/watcher_" in one.path]
    # Afterwards it claims once more, since the slot is free.
    verbs = Counter(called[: called.index("watcher_complete") + 1])
    assert verbs.total() - verbs["watcher_renew"] <= 3, verbs
    assert row["status"] == "published"


def test_a_row_with_an_id_of_the_frontends_own_keeps_it(stage: Stage, person: Person) -> None:
    own = str(uuid4())
    assert person.insert("Ada", id=own, status="pending", user_id=person.id) == own
    audit(stage, person.wait_for(own, "published"))


def test_many_rows_at_once_are_all_published(stage: Stage, people: Callable[[], Person]) -> None:
    someone = people()
    photos = [jpeg(seed=n) for n in range(3)]
    paths = [someone.upload(photo) for photo in photos]
    identities = [someone.insert(f"Person {n}", paths) for n in range(8)]
    rows = [someone.wait_for(identity, "published") for identity in identities]
    assert len({row["model_id"] for row in rows}) == 8
    for row in rows[:2]:
        audit(stage, row, photos)
    # Objects that a finished row names are the user's to delete again.
    gone = someone.client.storage.from_("identity-images").remove(paths)
    assert len(gone) == 3
