"""Every door of the project, who may go through it, and a house to try them on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx

from tests.support.pictures import jpeg
from tests.support.scene import Scene

CALLERS = ("anon", "stranger", "expired", "garbage", "owner", "service")
"""`owner` has an account and the things that are asked for; `stranger` has an account and asks for the owner's."""

Verdict = str
"""`yes`: it was done or shown. `nothing`: an empty answer. `no`: refused. `law`: refused for what was sent.
`unknown`: the token is not accepted. `hidden`: there is no such thing for this caller, or for anybody."""

BUCKET = "identity-images"


@dataclass
class House:
    """The things of one user: photos, a row that waits and a row that failed."""

    scene: Scene
    owner: UUID = field(init=False)
    paths: list[str] = field(init=False)
    spare: str = field(init=False)
    pending: UUID = field(init=False)
    failed: UUID = field(init=False)

    def __post_init__(self) -> None:
        self.stranger = self.scene.database.user()
        self.furnish()

    def furnish(self) -> None:
        """Give it new things, since somebody has changed the old ones."""
        database = self.scene.database
        self.owner = database.user()
        self.paths = database.upload(self.owner)
        self.spare = f"{self.owner}/spare/photo.jpg"
        self.scene.upload(self.spare, jpeg())
        self.pending = database.insert(self.owner, self.paths)
        self.failed = database.insert(self.owner, self.paths)
        database.overwrite(
            "update public.trained_identities set status = 'failed', error_code = 'image_missing', error_message = 'Gone.' "
            "where id = %s",
            [self.failed],
        )

    def state(self) -> object:
        """All that a caller could change."""
        return [
            self.scene.database.run(f"select * from {table} order by 1", role="supabase_admin")
            for table in (
                "public.trained_identities",
                "public.watcher_pulse",
                "storage.objects",
                "storage.buckets",
            )
        ]

    def headers(self, caller: str) -> dict[str, str]:
        keys = self.scene.sandbox.keys
        if caller == "service":
            return {"apikey": keys.secret, "authorization": f"Bearer {keys.secret}"}
        token = {
            "anon": keys.publishable,
            "garbage": "garbage",
            "expired": self._token(self.owner, 1_000_000_000),
            "owner": self._token(self.owner),
            "stranger": self._token(self.stranger),
        }[caller]
        return {"apikey": keys.publishable, "authorization": f"Bearer {token}"}

    def _token(self, user: UUID, expires: int = 4_000_000_000) -> str:
        claims = {"role": "authenticated", "aud": "authenticated", "sub": str(user), "exp": expires}
        return self.scene.sandbox.keys.sign(claims)

    def ask(self, caller: str, door: "Door") -> Verdict:
        """Try a door, and say what came of it."""
        names: dict[str, object] = {
            name: str(getattr(self, name)) for name in ("owner", "stranger", "spare", "pending", "failed")
        }
        names |= {"path": self.paths[0], "new": str(uuid4()), "paths": self.paths}
        response = self.scene.http.request(
            door.method,
            f"{self.scene.sandbox.supabase_url}{_filled(door.path, names)}",
            json=_filled(door.body, names) if isinstance(door.body, dict | list) else None,
            content=door.body if isinstance(door.body, bytes) else None,
            headers={**self.headers(caller), **door.headers},
        )
        return verdict(response)


@dataclass(frozen=True)
class Door:
    """A request, and what each caller gets."""

    method: str
    path: str
    anon: Verdict
    owner: Verdict
    stranger: Verdict
    service: Verdict
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> dict[str, Verdict]:
        refused = "no" if self.path.startswith("/storage") else "unknown"
        return {
            "anon": self.anon,
            "owner": self.owner,
            "stranger": self.stranger,
            "service": self.service,
            "expired": refused,
            "garbage": refused,
        }


def verdict(response: httpx.Response) -> Verdict:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if response.is_success:
        return "nothing" if body == [] else "yes"
    code = body.get("code") if isinstance(body, dict) else None
    if code == "42501":
        return "no"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return "unknown"
    if code in {"PGRST106", "PGRST202", "PGRST204", "PGRST205", "PGRST200", "42703"}:
        return "hidden"
    if isinstance(body, dict) and "statusCode" in body:
        return "no"
    return "law" if response.status_code in {400, 409} else f"{response.status_code}: {body}"


def _filled(value: Any, names: Mapping[str, Any]) -> Any:
    """Put this house's names in, where {name} stands."""
    if isinstance(value, dict):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    return names["paths"] if value == "{paths}" else value.format(**names)


# The tables. Each column: a value to write, and whether a user may insert it.
COLUMNS: dict[str, dict[str, tuple[Any, bool]]] = {
    "trained_identities": {
        "id": ("{new}", True),
        "user_id": ("{owner}", True),
        "identity_name": ("Eve", True),
        "image_paths": ("{paths}", True),
        "status": ("pending", True),
        "num_training_images": (3, False),
        "model_id": ("a/b", False),
        "images_published": (1, False),
        "training_config": ({}, False),
        "next_attempt_at": ("2030-01-01", False),
        "huggingface_repo_url": ("https://example.com", False),
        "commit_sha": ("0", False),
        "published_at": ("2030-01-01", False),
        "error_code": ("x", False),
        "error_message": ("x", False),
        "error_image": (1, False),
        "failed_at": ("2030-01-01", False),
        "created_at": ("2030-01-01", False),
        "updated_at": ("2030-01-01", False),
    },
    "watcher_pulse": {"id": (True, False), "beats": (9, False), "beaten_at": ("2030-01-01", False)},
}
_ROWS = "/rest/v1/trained_identities"
_PULSE = "/rest/v1/watcher_pulse"
_BACK = {"prefer": "return=representation"}
_WANTED = {"identity_name": "Ada", "image_paths": "{paths}"}

FUNCTIONS: dict[str, dict[str, Any]] = {
    "watcher_claim": {"p_instance": "x", "p_run": "{new}", "p_slots": {}, "p_lease_seconds": 1},
    "watcher_renew": {"p_progress": {"0": {}}, "p_lease_seconds": 1},
    "watcher_reserve": {"p_attempt": 0, "p_namespace": "x", "p_slug": "x"},
    "watcher_complete": {"p_attempt": 0, "p_url": "x", "p_commit_sha": "x", "p_training_config": {}},
    "watcher_fail": {"p_attempt": 0, "p_code": "x", "p_message": "x"},
    "watcher_defer": {"p_attempt": 0, "p_reason": "x"},
    "watcher_release": {"p_attempt": 0, "p_reason": "x"},
    "watcher_reject": {"p_attempt": 0, "p_code": "x", "p_message": "x", "p_reason": "x"},
    "watcher_give_back": {"p_attempts": []},
    "watcher_newest_repos": {"p_namespace": "x", "p_other_than": "{new}"},
    "watcher_wait": {"p_attempt": 0, "p_seconds": 1, "p_within_seconds": 1, "p_reason": "x"},
    "watcher_erased": {"p_attempt": 0, "p_gone": [1]},
    "watcher_erase_left": {"p_attempt": 0, "p_lines": []},
    "watcher_settle_repo": {"p_attempt": 0, "p_line": 1},
    "watcher_sweep": {"p_attempt": 0},
    "watcher_forget": {"p_user": "{new}", "p_dry_run": True},
    "watcher_export": {"p_user": "{new}"},
    "watcher_erasures": {},
    "watcher_close_erasure": {"p_id": "{new}", "p_because": "x"},
    "watcher_confirm_sweep": {},
    "watcher_restore_receipts": {"p_ids": []},
    "watcher_replay": {"p_ids": [], "p_dry_run": True},
    "watcher_beat": {},
    "watcher_pause": {},
    "watcher_resume": {},
    "watcher_version": {},
    "watcher_status": {},
    "watcher_story": {"p_id": "{pending}"},
    "watcher_names": {},
    "watcher_limits": {},
    "watcher_set_limit": {"p_name": "open_rows", "p_value": 20},
    "watcher_catalogue": {},
}


def of_the_tables() -> dict[str, Door]:
    doors = {
        "read my rows": Door("GET", f"{_ROWS}?user_id=eq.{{owner}}", "no", "yes", "nothing", "yes"),
        "read every row": Door("GET", _ROWS, "no", "yes", "nothing", "yes"),
        "count every row": Door(
            "GET",
            f"{_ROWS}?select=id&limit=0",
            "no",
            "nothing",
            "nothing",
            "nothing",
            headers={"prefer": "count=exact"},
        ),
        "read the pulse": Door("GET", _PULSE, "no", "no", "no", "yes"),
        "find out by a filter": Door(
            "GET", f"{_ROWS}?select=id&error_code=eq.image_missing", "no", "yes", "nothing", "yes"
        ),
        "find out by an order": Door(
            "GET", f"{_ROWS}?select=id&order=error_message", "no", "yes", "nothing", "yes"
        ),
        "retry a failed row": Door(
            "PATCH", f"{_ROWS}?id=eq.{{failed}}", "no", "yes", "nothing", "no", {"status": "pending"}, _BACK
        ),
        "retry a row that waits": Door(
            "PATCH",
            f"{_ROWS}?id=eq.{{pending}}",
            "no",
            "nothing",
            "nothing",
            "no",
            {"status": "pending"},
            _BACK,
        ),
        "call a failed row published": Door(
            "PATCH", f"{_ROWS}?id=eq.{{failed}}", "no", "no", "nothing", "no", {"status": "published"}, _BACK
        ),
        "delete a row": Door(
            "DELETE", f"{_ROWS}?id=eq.{{pending}}", "no", "yes", "nothing", "no", headers=_BACK
        ),
        "delete the pulse": Door("DELETE", f"{_PULSE}?id=eq.true", "no", "no", "no", "no", headers=_BACK),
        "insert a row": Door("POST", _ROWS, "no", "yes", "law", "no", _WANTED, _BACK),
        "insert a row without asking for it": Door("POST", _ROWS, "no", "yes", "law", "no", _WANTED),
        "insert a row as published": Door(
            "POST", _ROWS, "no", "no", "no", "no", {**_WANTED, "status": "published"}
        ),
        "insert over a row": Door(
            "POST",
            _ROWS,
            "no",
            "no",
            "no",
            "no",
            {**_WANTED, "id": "{failed}"},
            {"prefer": "resolution=merge-duplicates,return=representation"},
        ),
        "insert beside a row": Door(
            "POST",
            _ROWS,
            "no",
            "nothing",
            "law",
            "no",
            {**_WANTED, "id": "{failed}"},
            {"prefer": "resolution=ignore-duplicates,return=representation"},
        ),
        "insert a row that is there": Door(
            "POST", _ROWS, "no", "law", "law", "no", {**_WANTED, "id": "{failed}"}, _BACK
        ),
    }
    for column, (value, may_insert) in COLUMNS["trained_identities"].items():
        doors[f"read {column}"] = Door(
            "GET", f"{_ROWS}?select={column}&id=eq.{{failed}}", "no", "yes", "nothing", "yes"
        )
        insert, change = {**_WANTED, column: value}, {column: value}
        # A stranger may name the owner's photos (the law is against it), but not the owner.
        strangers = "law" if may_insert and column != "user_id" else "no"
        doors[f"insert with {column}"] = Door(
            "POST", _ROWS, "no", "yes" if may_insert else "no", strangers, "no", insert, _BACK
        )
        writable = column == "status"
        doors[f"change {column}"] = Door(
            "PATCH",
            f"{_ROWS}?id=eq.{{failed}}",
            "no",
            "yes" if writable else "no",
            "nothing" if writable else "no",
            "no",
            change,
            _BACK,
        )
    for column, (value, _) in COLUMNS["watcher_pulse"].items():
        doors[f"read the pulse's {column}"] = Door(
            "GET", f"{_PULSE}?select={column}", "no", "no", "no", "yes"
        )
        doors[f"insert the pulse's {column}"] = Door("POST", _PULSE, "no", "no", "no", "no", {column: value})
        doors[f"change the pulse's {column}"] = Door(
            "PATCH", f"{_PULSE}?id=eq.true", "no", "no", "no", "no", {column: value}
        )
    return doors


def of_the_functions() -> dict[str, Door]:

    def answers(name: str) -> Verdict:
        return "nothing" if name in {"watcher_names", "watcher_newest_repos", "watcher_resume"} else "yes"

    doors = {
        f"call {name}": Door("POST", f"/rest/v1/rpc/{name}", "no", "no", "no", answers(name), arguments)
        for name, arguments in FUNCTIONS.items()
    }
    for name in ("watcher_version", "watcher_status", "watcher_catalogue"):
        doors[f"call {name} by GET"] = Door("GET", f"/rest/v1/rpc/{name}", "no", "no", "no", "yes")
    return doors


def of_the_private_schemas() -> dict[str, Door]:
    places = {
        "watcher": (
            "attempts",
            "work",
            "instances",
            "pauses",
            "names",
            "used_names",
            "erase_lines",
            "erasures",
            "departures",
            "sweep",
            "unnamed_objects",
            "migrations",
        ),
        "storage": ("objects", "buckets"),
        "auth": ("users",),
        "pg_catalog": ("pg_authid",),
        "information_schema": ("columns",),
    }
    doors: dict[str, Door] = {}
    for schema, tables in places.items():
        for table in tables:
            doors[f"read {schema}.{table}"] = Door(
                "GET",
                f"/rest/v1/{table}",
                "hidden",
                "hidden",
                "hidden",
                "hidden",
                headers={"accept-profile": schema},
            )
            doors[f"read {schema}.{table} without saying so"] = Door(
                "GET", f"/rest/v1/{table}", "hidden", "hidden", "hidden", "hidden"
            )
            doors[f"write to {schema}.{table}"] = Door(
                "POST",
                f"/rest/v1/{table}",
                "hidden",
                "hidden",
                "hidden",
                "hidden",
                {},
                {"content-profile": schema},
            )
    for function in ("max_attempts", "begin_work", "find_unqueued", "name_error"):
        doors[f"call watcher.{function}"] = Door(
            "POST",
            f"/rest/v1/rpc/{function}",
            "hidden",
            "hidden",
            "hidden",
            "hidden",
            {},
            {"content-profile": "watcher"},
        )
    return doors


def of_the_bucket() -> dict[str, Door]:
    photo, kind = jpeg(), {"content-type": "image/jpeg"}
    at = f"/storage/v1/object/{BUCKET}"

    def door(
        method: str,
        path: str,
        owner: Verdict = "yes",
        *,
        stranger: Verdict = "no",
        anon: Verdict = "no",
        service: Verdict = "yes",
        body: Any = None,
        **headers: str,
    ) -> Door:
        return Door(method, path, anon, owner, stranger, service, body, kind if body is photo else headers)

    mine = "{spare}"
    return {
        "list the folder": door(
            "POST",
            f"/storage/v1/object/list/{BUCKET}",
            stranger="nothing",
            anon="nothing",
            body={"prefix": "{owner}/spare"},
        ),
        "read a photo": door("GET", f"/storage/v1/object/authenticated/{BUCKET}/{mine}"),
        "read a photo by the other route": door("GET", f"{at}/{mine}"),
        "read a photo as if it were public": door(
            "GET", f"/storage/v1/object/public/{BUCKET}/{mine}", "no", service="no"
        ),
        "ask about a photo": door("GET", f"/storage/v1/object/info/{BUCKET}/{mine}"),
        "see that a photo is there": door("GET", f"/storage/v1/object/info/authenticated/{BUCKET}/{mine}"),
        "upload a photo": door("POST", f"{at}/{{owner}}/new/photo.jpg", body=photo),
        "upload a photo to nobody's folder": door("POST", f"{at}/photo.jpg", "no", body=photo),
        "upload a photo over one": door("POST", f"{at}/{mine}", "no", service="no", body=photo),
        "replace a photo": door("PUT", f"{at}/{mine}", "no", body=photo),
        "replace a photo by the header": Door(
            "POST", f"{at}/{mine}", "no", "no", "no", "yes", photo, {**kind, "x-upsert": "true"}
        ),
        "copy a photo": door(
            "POST",
            "/storage/v1/object/copy",
            body={"bucketId": BUCKET, "sourceKey": mine, "destinationKey": "{owner}/copy/photo.jpg"},
        ),
        "copy a photo to the stranger": door(
            "POST",
            "/storage/v1/object/copy",
            "no",
            body={"bucketId": BUCKET, "sourceKey": mine, "destinationKey": "{stranger}/copy/photo.jpg"},
        ),
        "move a photo": door(
            "POST",
            "/storage/v1/object/move",
            "no",
            body={"bucketId": BUCKET, "sourceKey": mine, "destinationKey": "{owner}/moved/photo.jpg"},
        ),
        "move a photo to the stranger": door(
            "POST",
            "/storage/v1/object/move",
            "no",
            body={"bucketId": BUCKET, "sourceKey": mine, "destinationKey": "{stranger}/moved/photo.jpg"},
        ),
        "sign a photo": door("POST", f"/storage/v1/object/sign/{BUCKET}/{mine}", body={"expiresIn": 60}),
        "sign an upload": door("POST", f"/storage/v1/object/upload/sign/{BUCKET}/{{owner}}/signed/photo.jpg"),
        "delete a photo": door("DELETE", f"{at}/{mine}"),
        "delete a photo in use": door("DELETE", f"{at}/{{path}}", "no"),
        "delete photos": door("DELETE", at, stranger="nothing", anon="nothing", body={"prefixes": [mine]}),
        "delete photos in use": door(
            "DELETE", at, "nothing", stranger="nothing", anon="nothing", body={"prefixes": ["{path}"]}
        ),
        "see the bucket": door("GET", f"/storage/v1/bucket/{BUCKET}", "no"),
        "list the buckets": door("GET", "/storage/v1/bucket", "nothing", stranger="nothing", anon="nothing"),
        "make the bucket public": door("PUT", f"/storage/v1/bucket/{BUCKET}", "no", body={"public": True}),
        "empty the bucket": door("POST", f"/storage/v1/bucket/{BUCKET}/empty", "no"),
        "make a bucket": door("POST", "/storage/v1/bucket", "no", body={"name": "{new}"}),
    }
