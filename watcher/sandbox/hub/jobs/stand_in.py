"""Stands in for Watcher's training script: the same towards the outside, without a model, in a moment.

A program of its own, with nothing but the standard library. It reads the same environment, checks the same, prints
progress, makes one commit with the same files, whose weights are valid and mean nothing, and exits with the same codes.
Two variables are the sandbox's own: SANDBOX_SECONDS says how long it works, and SANDBOX_EXIT_CODE with which code it
ends after its checks.
"""

import base64
import gzip
import hashlib
import http
import http.client
import json
import os
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, NoReturn

FAILED, DOUBLED, TOKEN_REFUSED, BASE_REFUSED, NO_RIGHT, PUSH_REFUSED, NO_DATA = 1, 10, 11, 12, 13, 14, 17
_TRIES = 5
_LISTED_WITHIN = 90.0
"""Seconds that the Hub has to list this job."""
_SIDE = 64
_PROMPTS = ["portrait", "in a park", "at a desk", "in the rain"]


class Answered(Exception):
    """The Hub refused a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:300]}")
        self.status = status


class Lost(Exception):
    """The Hub did not answer, or with a failure of its own: the request may have been processed."""


def main(env: Mapping[str, str]) -> None:
    """Check, pretend to train, and commit."""
    repo, number = env["WATCHER_REPO"], env["WATCHER_TRAINING"]
    hub = Hub(env["HF_ENDPOINT"], env["HF_TOKEN"])
    only_the_oldest_goes_on(hub, env)
    say("the oldest job of this training")
    check(hub, f"/api/models/{repo}/auth-check/write", NO_RIGHT)
    if check(hub, f"/api/models/{repo}", NO_RIGHT)["sha"] != env["WATCHER_REVISION"]:
        end(PUSH_REFUSED, "the repo has a newer commit")
    check(hub, f"/{env['WATCHER_BASE']}/resolve/main/model_index.json", BASE_REFUSED)
    photos = sorted(Path(env["WATCHER_DATA"], "images").glob("*"))
    if not photos:
        end(NO_DATA, "there are no photos")
    say(f"checked: {len(photos)} photos")
    if "SANDBOX_EXIT_CODE" in env:
        end(int(env["SANDBOX_EXIT_CODE"]), "asked for by the sandbox")
    steps = int(env.get("WATCHER_STEPS") or 1000)
    for tenth in range(1, 11):
        time.sleep(float(env.get("SANDBOX_SECONDS", "0")) / 10)
        say(f"step {steps * tenth // 10}/{steps}")
    prompts = json.loads(env.get("WATCHER_PROMPTS") or json.dumps(_PROMPTS))
    files = {f"samples/sample_{place}.png": png(place) for place in range(1, len(prompts) + 1)}
    files["pytorch_lora_weights.safetensors"] = weights(number)
    commit(hub, env, files, f"Train a LoRA ({steps} steps)", f"Watcher training: {number}")
    say("done")


def only_the_oldest_goes_on(hub: "Hub", env: Mapping[str, str]) -> None:
    """End this job if an older one has its labels. It waits until it is listed itself: then older ones are, too."""
    labels = f"label=watcher%3D{env['WATCHER_PROJECT']}&label=training%3D{env['WATCHER_TRAINING']}"
    deadline = time.monotonic() + _LISTED_WITHIN
    while True:
        try:
            jobs = hub.get(f"/api/jobs/{env['WATCHER_NAMESPACE']}?{labels}")
        except Answered as refusal:
            if refusal.status == http.HTTPStatus.UNAUTHORIZED:
                end(TOKEN_REFUSED, f"the list of jobs: {refusal}")
            say(f"the list of jobs: {refusal}; it is not known whether another job trains the same")
            return
        found = sorted((job["createdAt"], job["id"]) for job in jobs)
        if env["JOB_ID"] in [job for _, job in found]:
            break
        if time.monotonic() > deadline:
            end(FAILED, "the Hub does not list this job")
        time.sleep(0.1)
    if found[0][1] != env["JOB_ID"]:
        end(DOUBLED, "an older job has this training")


def check(hub: "Hub", path: str, code: int) -> Any:
    """Return what the Hub answers; end this job with a code if it refuses."""
    try:
        return hub.get(path)
    except Answered as refusal:
        end(code, f"{path}: {refusal}")


def commit(hub: "Hub", env: Mapping[str, str], files: Mapping[str, bytes], title: str, message: str) -> None:
    """Upload the files and commit them with a card, once, also if an answer is lost."""
    repo = env["WATCHER_REPO"]
    try:
        hub.upload(repo, files)
    except Answered as refusal:
        end(PUSH_REFUSED, f"the upload: {refusal}")
    header = {"summary": title, "description": message, "parentCommit": env["WATCHER_REVISION"]}
    card = base64.b64encode(readme(env).encode()).decode()
    entries: list[tuple[str, dict[str, Any]]] = [
        ("header", header),
        ("file", {"path": "README.md", "content": card, "encoding": "base64"}),
        *(
            ("lfsFile", {"path": path, "algo": "sha256", "oid": digest(content), "size": len(content)})
            for path, content in files.items()
        ),
    ]
    body = "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in entries).encode()
    for _ in range(_TRIES):
        try:
            hub.send("POST", f"/api/models/{repo}/commit/main", body, "application/x-ndjson")
        except Answered as refusal:
            # The answer to an earlier try may have been lost.
            if not committed(hub, repo, message):
                end(PUSH_REFUSED, f"the commit: {refusal}")
        except Lost:
            if not committed(hub, repo, message):
                time.sleep(0.1)
                continue
        return
    end(FAILED, "the Hub does not answer to the commit")


def committed(hub: "Hub", repo: str, message: str) -> bool:
    """Return whether the repo has a commit with this line."""
    return any(message in one["message"].split("\n") for one in hub.get(f"/api/models/{repo}/commits/main"))


class Hub:
    """The Hub's API, with a token."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint
        self._token = token

    def get(self, path: str) -> Any:
        """Return what the Hub answers to a GET, which is repeated if need be."""
        return self._again("GET", path)

    def send(self, method: str, url: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """Send one request; raises Answered or Lost."""
        inside = url.startswith("/")
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._token}"} if inside else {})
        full = self._endpoint + url if inside else url
        request = urllib.request.Request(full, body, headers, method=method)  # noqa: S310 - the Hub's
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the Hub's
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            if error.code in {408, 429} or error.code >= 500:
                raise Lost(f"HTTP {error.code}: {said[:300]}") from error
            raise Answered(error.code, said) from error
        except (OSError, http.client.HTTPException) as error:
            raise Lost(str(error)) from error
        return json.loads(text) if text and inside else None

    def upload(self, repo: str, files: Mapping[str, bytes]) -> None:
        """Store files as LFS objects of the repo."""
        objects = [{"oid": digest(content), "size": len(content)} for content in files.values()]
        body = {"operation": "upload", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
        contents = {digest(content): content for content in files.values()}
        url = f"/{repo}.git/info/lfs/objects/batch"
        answer = self._again("POST", url, json.dumps(body).encode(), "application/vnd.git-lfs+json")
        for one in answer["objects"]:
            actions = one.get("actions", {})
            if "upload" in actions:
                self._again("PUT", actions["upload"]["href"], contents[one["oid"]])
            if "verify" in actions:
                path = actions["verify"]["href"].removeprefix(self._endpoint)
                self._again("POST", path, json.dumps({name: one[name] for name in ("oid", "size")}).encode())

    def _again(self, method: str, url: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """Send a request that can be repeated."""
        for left in reversed(range(_TRIES)):
            try:
                return self.send(method, url, body, kind)
            except Lost as error:
                if not left:
                    end(FAILED, f"{method} {url}: {error}")
                time.sleep(0.1)
        return None


def weights(number: str) -> bytes:
    """Return a valid safetensors file of two small tensors."""
    tensors = {
        f"transformer.single_transformer_blocks.0.attn.to_q.lora_{side}.weight": shape
        for side, shape in (("A", [4, 8]), ("B", [8, 4]))
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "training": number}}
    offset = 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + struct.pack(f"<{offset // 4}f", *[0.01] * (offset // 4))


def png(number: int) -> bytes:
    """Return a small picture, another one for each number."""
    rows = b"".join(
        b"\0" + bytes(shade for x in range(_SIDE) for shade in (4 * x, 4 * y, 60 * number % 256))
        for y in range(_SIDE)
    )
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def readme(env: Mapping[str, str]) -> str:
    """Return the card that the job was given, filled in as Watcher's script does."""
    template = Template(gzip.decompress(base64.b64decode(env["WATCHER_CARD"])).decode())
    published = Path(env["WATCHER_DATA"], "README.md").read_text(encoding="utf-8")
    title = next((line for line in published.splitlines() if line.startswith("# ")), "")
    return template.safe_substitute(
        name="".join(title.partition("`")[1:]) or "a person",
        repo=env["WATCHER_REPO"],
        count=len(list(Path(env["WATCHER_DATA"], "images").glob("*"))),
        steps=env.get("WATCHER_STEPS") or 1000,
        learning_rate=env.get("WATCHER_LEARNING_RATE") or 0.0004,
        resolution=512,
        widget="",
        gallery="<Gallery />\n",
        photos="The weights and pictures mean nothing: the sandbox made them in the place of a training.\n",
    )


def digest(content: bytes) -> str:
    """Return the name of an LFS object."""
    return hashlib.sha256(content).hexdigest()


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def end(code: int, words: str) -> NoReturn:
    """Exit with a code, and say why."""
    say(f"Exit {code}: {words}")
    sys.exit(code)


if __name__ == "__main__":
    main(os.environ)  # noqa: TID251 - not the daemon's
