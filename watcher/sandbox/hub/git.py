"""Git's ids of blobs, trees and commits, LFS pointers, and the patterns of .gitattributes."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

REGULAR_LIMIT = 10 * 1024 * 1024
"""The largest regular file, in bytes; the Hub requires LFS above that."""

_LFS = "filter=lfs diff=lfs merge=lfs -text"

DEFAULT_ATTRIBUTES = "".join(
    f"{pattern} {_LFS}\n"
    for pattern in re.findall(
        r"\S+",
        """
        *.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack
        *.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors
        saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*
        """,
    )
)
"""The `.gitattributes` of a new model repo: 1519 bytes, blob a6344aac8c09253b3b630fb776ae94478aa0275b."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a commit."""

    path: str
    oid: str
    """The id of the git blob, which for an LFS file is that of its pointer."""
    size: int
    """The bytes of the content, not of the pointer."""
    sha256: str | None
    """The digest of an LFS file's content; None for a regular file."""
    last_commit: str = ""
    """The commit that last changed it."""

    @property
    def pointer_size(self) -> int:
        """The bytes of the LFS pointer."""
        return len(pointer(self.sha256 or "", self.size))


def blob_oid(content: bytes) -> str:
    """Return the id of a blob."""
    return _object("blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """Return the pointer that git has in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_oids(files: Iterable[File]) -> dict[str, str]:
    """Return the ids of all folders by path; the root is the empty path."""
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for file in files:
        parts = file.path.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), {})
        folders["/".join(parts[:-1])][parts[-1]] = ("100644", file.oid)
    oids: dict[str, str] = {}
    for path in sorted(folders, key=lambda path: path.count("/") + bool(path), reverse=True):
        entries = folders[path]
        # Git sorts folders as if their names ended with a slash.
        ordered = sorted(entries.items(), key=lambda one: one[0] + ("/" if one[1][0] == "40000" else ""))
        oids[path] = _object(
            "tree",
            b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, (mode, oid) in ordered),
        )
        if path:
            parent, _, name = path.rpartition("/")
            folders[parent][name] = ("40000", oids[path])
    return oids


def commit_oid(*, tree: str, parent: str | None, author: str, when: int, message: str) -> str:
    """Return the id of a commit; `when` is in Unix seconds."""
    signature = f"{author} <{author}@users.noreply.huggingface.co> {when} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), f"author {signature}"]
    return _object("commit", "\n".join([*lines, f"committer {signature}", "", message]).encode())


def is_lfs(attributes: str, path: str) -> bool:
    """Return whether these `.gitattributes` assign a path to LFS; the last matching line decides."""
    lfs = False
    for line in attributes.splitlines():
        pattern, *words = line.split() or ["#"]
        filters = [word for word in words if re.fullmatch(r"filter=.*|[-!]filter", word)]
        if filters and not pattern.startswith("#") and _glob(pattern).fullmatch(path):
            lfs = filters[-1] == "filter=lfs"
    return lfs


def attribute_line(path: str) -> str:
    """Return the line that the Hub adds to `.gitattributes` for a path."""
    return f"{path.replace(' ', '[[:space:]]')} {_LFS}\n"


def _object(kind: str, content: bytes) -> str:
    name = hashlib.sha1(usedforsecurity=False)
    name.update(f"{kind} {len(content)}\0".encode())
    name.update(content)
    return name.hexdigest()


def _glob(pattern: str) -> re.Pattern[str]:
    anywhere = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    translated = re.sub(
        r"\*\*/|/\*\*$|\*\*|\*|\?|\[\[:space:\]\]|\[[^]]*\]|.",
        lambda found: _PIECES.get(found[0], found[0] if found[0].startswith("[") else re.escape(found[0])),
        pattern.lstrip("/"),
    )
    return re.compile(anywhere + translated)


_PIECES = {
    "**/": "(?:.*/)?",
    "/**": "/.*",
    "**": ".*",
    "*": "[^/]*",
    "?": "[^/]",
    "[[:space:]]": r"\s",
}
