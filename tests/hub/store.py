"""What the Hub of the tests keeps: content-addressed blobs, immutable commits, and a repository's branches and tags.

ROOT/blobs/<sha256>                     the bytes of every file
ROOT/repos/<type>/<org>/<name>.json     branches, tags, private, gated
ROOT/commits/<sha1>.json                a tree (path to entry), parents, title, author
"""

import hashlib
import json
import os
import re
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LARGE = (".parquet", ".png", ".zip", ".bin", ".safetensors")
_ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE).encode()


class Refusal(Exception):
    """An answer that is an error: status, message, the Hub's own error code, further headers."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(digest: str, size: int) -> bytes:
    """The text that git keeps in the place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()


class Store:
    """All of it, on disk; one lock, as writes are rare."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        for name in ("blobs", "commits", "repos"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def blob(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Refusal(400, f"{digest} is no sha256")
        return self.root / "blobs" / digest

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        _write(self.blob(digest), data)
        return digest

    def small(self, data: bytes) -> dict[str, Any]:
        """The entry of a file that git keeps itself."""
        return {"size": len(data), "oid": git_hash(data), "sha256": self.put(data), "large": False}

    def large(self, digest: str, xet: str | None = None) -> dict[str, Any]:
        """The entry of a file that was sent beforehand."""
        if not self.blob(digest).exists():
            raise Refusal(400, f"the object {digest} was never uploaded")
        size = self.blob(digest).stat().st_size
        oid = git_hash(pointer(digest, size))
        return {"size": size, "oid": oid, "sha256": digest, "large": True, "xet": xet}

    def _path(self, kind: str, name: str) -> Path:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
            raise Refusal(400, f"{name} cannot be a repository")
        return self.root / "repos" / kind / f"{name}.json"

    def exists(self, kind: str, name: str) -> bool:
        return self._path(kind, name).exists()

    def repo(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._path(kind, name).read_text())
        return found

    def save(self, repo: dict[str, Any]) -> None:
        _write(self._path(repo["kind"], repo["name"]), json.dumps(repo).encode())

    def create(self, kind: str, name: str, private: bool, user: str) -> None:
        repo = {"kind": kind, "name": name, "private": private, "gated": False, "created": now(), "tags": {}}
        first = self.add({".gitattributes": self.small(_ATTRIBUTES)}, None, "initial commit", "", user)
        self.save({**repo, "branches": {"main": first}})

    def add(self, tree: dict[str, Any], parent: str | None, title: str, message: str, user: str) -> str:
        """A new commit; its name is the hash of what it says."""
        commit = {"tree": tree, "parent": parent, "title": title, "message": message, "author": user, "date": now()}
        data = json.dumps(commit, sort_keys=True).encode()
        name = hashlib.sha1(data).hexdigest()
        _write(self.root / "commits" / f"{name}.json", data)
        return name

    def commit(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "commits" / f"{name}.json").read_text())
        return found

    def resolve(self, repo: dict[str, Any], revision: str) -> str:
        """The commit that a branch, a tag or the beginning of a commit's name stands for."""
        revision = re.sub(r"^refs/(heads|tags)/", "", revision)
        for names in (repo["branches"], repo["tags"]):
            if revision in names:
                return str(names[revision])
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [name for name, _ in self.history(repo["branches"]["main"]) if name.startswith(revision)]
            if found:
                return found[0]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, name: str | None) -> list[tuple[str, dict[str, Any]]]:
        """A commit and those before it."""
        found = []
        while name:
            commit = self.commit(name)
            found.append((name, commit))
            name = commit["parent"]
        return found


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(temporary).replace(path)
