"""Xet without its servers: huggingface_hub is told of a `local://` store, which client and Hub then share on one disk.

The client writes chunks into the store, and shards that say which sha256 is which Xet hash. A file is read out of a
copy of the store, since the client holds the lock of the original.
"""

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER = 48
_ENTRY = 48
_END = b"\xff" * 32
_HAS_VERIFICATION, _HAS_SHA256 = 1 << 31, 1 << 30


class XetFile(NamedTuple):
    """A file in the store: its sha256, Xet's own hash, its size in bytes."""

    sha256: str
    name: str
    size: int


def _hex(data: bytes) -> str:
    """A hash as Xet prints it: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", data))


def files(store: Path) -> Iterator[XetFile]:
    """Every file that the store's shards name."""
    for shard in (store / "xet" / "xorbs" / "shards").glob("*.mdb"):
        data, at = shard.read_bytes(), _HEADER
        while data[at : at + 32] != _END:
            name = _hex(data[at : at + 32])
            flags, segments = struct.unpack("<II", data[at + 32 : at + 40])
            sizes = (data[at + _ENTRY * part + 84 : at + _ENTRY * part + 88] for part in range(segments))
            size = sum(int(struct.unpack("<I", part)[0]) for part in sizes)
            at += _ENTRY * (1 + segments * (2 if flags & _HAS_VERIFICATION else 1))
            if flags & _HAS_SHA256:
                yield XetFile(_hex(data[at : at + 32]), name, size)
                at += _ENTRY


def fetch(store: Path, sha256: str, target: Path) -> str | None:
    """Copy a file out of the store to `target` and give its Xet hash; None where the store has no such file."""
    found = next((file for file in files(store) if file.sha256 == sha256), None)
    if found is None or target.exists():
        return found and found.name
    import hf_xet

    with tempfile.TemporaryDirectory(dir=store.parent) as view:
        shutil.copytree(store, view, copy_function=_copy, dirs_exist_ok=True)
        part = target.with_name(f".{sha256}")
        with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{view}") as group:
            group.start_download_file(hf_xet.XetFileInfo(found.name, found.size), str(part))
        if hashlib.sha256(part.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"Xet gave other bytes than {sha256}")
        part.replace(target)
    return found.name


def _copy(source: str, target: str) -> None:
    (shutil.copy2 if source.endswith(".redb") else os.link)(source, target)
