"""A recorded publication: the requests of the real client and the answers to them, with what was cut off restored.

The recorder kept 1500 characters of a preupload, 600 of a commit, 1200 of an answer, and no bytes of an image. What it
cut off is restored from what it kept elsewhere: oids, sizes and paths, the contents of small files, and the first bytes
of some images, which preupload contains. The other bytes of the images are made up, so their digests differ from the
recorded ones; `swaps` maps those to the new ones.
"""

import base64
import hashlib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded" / "hub"
_SAMPLE = 512
_IMAGE = re.compile(r'"path": "(images/[^"]+)", "sample": "([^"]+)"')


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    """A dict, text that was cut off, or None."""
    status: int
    answer_headers: dict[str, str]
    answer: str
    """Cut off at 1200 characters."""

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def json(self) -> Any:
        """Return the answer; if it was cut off, up to the last complete element."""
        try:
            return json.loads(self.answer)
        except ValueError:
            return json.loads(_closed(self.answer))

    @property
    def is_json(self) -> bool:
        return self.answer_headers.get("content-type", "").endswith("json")

    @property
    def is_cut(self) -> bool:
        return len(self.answer) == 1200


class Recording:
    """The exchanges of one publication, in order."""

    def __init__(self, name: str) -> None:
        lines = (FOLDER / f"{name}.jsonl").read_text().splitlines()
        self.exchanges = [_exchange(json.loads(line)) for line in lines]
        self.name: str = self.exchanges[0].body["name"]
        self.repo = f"{self.exchanges[0].body['organization']}/{self.name}"
        self.swaps: dict[str, str] = {}
        self.files = self._restored()
        """All files of the commit by path, in the order of the preupload."""

    def swap(self, text: str) -> str:
        """Return a text with the new digests, ids and URLs in place of the recorded ones."""
        for recorded in sorted(self.swaps, key=len, reverse=True):
            text = text.replace(recorded, self.swaps[recorded])
        return text

    def sent(self, exchange: Exchange) -> bytes:
        """Return the body of a request, as the client would have sent it here."""
        if exchange.method == "PUT":
            return self.content(exchange)
        if exchange.body is None:
            return b""
        if exchange.path.endswith("/preupload/main"):
            return self._preupload()
        if exchange.path.endswith("/commit/main"):
            return self._commit(json.loads(exchange.body.splitlines()[0]))
        return self.swap(json.dumps(exchange.body, separators=(",", ":"))).encode()

    def content(self, exchange: Exchange) -> bytes:
        """Return the bytes of the LFS object in a request's path."""
        return self.files[self._paths[exchange.path.split("/")[-1]]]

    def one(self, path: str) -> Exchange:
        """Return the one exchange whose path ends with `path`."""
        [found] = [one for one in self.exchanges if one.path.endswith(path)]
        return found

    def _restored(self) -> dict[str, bytes]:
        preupload = self.one("/preupload/main")
        samples = {path: base64.b64decode(sample) for path, sample in _IMAGE.findall(preupload.body)}
        objects = iter(self.one("/objects/batch").body["objects"])
        files: dict[str, bytes] = {}
        self._paths: dict[str, str] = {}
        for path in re.findall(r'"path":"([^"]+)"', preupload.answer):
            if not path.startswith("images/"):
                files[path] = next(
                    one.answer.encode()
                    for one in self.exchanges
                    if one.method == "GET" and one.path.endswith(path)
                )
                continue
            announced = next(objects)
            noise = random.Random(path).randbytes(announced["size"])
            start = samples.get(path, b"\xff\xd8\xff\xe0" + noise[: _SAMPLE - 4])
            files[path] = start + noise[len(start) :]
            oid = hashlib.sha256(files[path]).hexdigest()
            self._paths[announced["oid"]] = path
            self.swaps[announced["oid"]] = oid
            self.swaps[announced["oid"][:32]] = oid[:32]
            size = announced["size"]
            self.swaps[_pointer_blob(announced["oid"], size)] = _pointer_blob(oid, size)
        return files

    def _preupload(self) -> bytes:
        files = [
            {"path": path, "sample": base64.b64encode(content[:_SAMPLE]).decode(), "size": len(content)}
            for path, content in self.files.items()
        ]
        return json.dumps({"files": files}, separators=(",", ":")).encode()

    def _commit(self, header: Any) -> bytes:
        header["value"]["parentCommit"] = self.swap(header["value"]["parentCommit"])
        lines = [header]
        for path, content in self.files.items():
            if path.startswith("images/"):
                oid = hashlib.sha256(content).hexdigest()
                value = {"path": path, "algo": "sha256", "oid": oid, "size": len(content)}
                lines.append({"key": "lfsFile", "value": value})
            else:
                value = {
                    "content": base64.b64encode(content).decode(),
                    "path": path,
                    "encoding": "base64",
                }
                lines.append({"key": "file", "value": value})
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def blob(content: bytes) -> str:
    """Return the git blob id of a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _pointer_blob(oid: str, size: int) -> str:
    return blob(f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n".encode())


def _exchange(line: Any) -> Exchange:
    return Exchange(
        line["method"],
        line["path"],
        line["query"],
        line["req_headers"],
        line["req_body"],
        line["status"],
        line["resp_headers"],
        line["resp_body"],
    )


def _closed(text: str) -> str:
    """Return the beginning of a JSON text, up to the last complete element of a list, with all brackets closed."""
    open_: list[str] = []
    whole, in_string, escaped = "", False, False
    for position, character in enumerate(text):
        if in_string:
            in_string = character != '"' or escaped
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string, escaped = True, False
        elif character in "{[":
            open_.append("}" if character == "{" else "]")
        elif character in "}]":
            open_.pop()
            if open_ and open_[-1] == "]":
                whole = text[: position + 1] + "".join(reversed(open_))
    return whole
