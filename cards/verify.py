"""Is a release what it says it is: every hash, count and word of it that can be computed again.

Reads a release folder; writes nothing. Run it with `saferthoughts release verify FOLDER`.
"""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cards.card import dataset_card
from cards.rows import METADATA, PUBLIC, content_hash
from pipelines.errors import UserError
from pipelines.runs import file_hash
from pipelines.thinking import join


@dataclass(frozen=True, slots=True)
class Verified:
    """How many things were computed again, and a line for each that does not match."""

    checked: int
    faults: tuple[str, ...]


def verify(folder: Path) -> Verified:
    """Check a release folder.

    Raises:
        UserError: it is no release folder.
    """
    checks = Checks(folder)
    checks.files()
    checks.rows()
    checks.words()
    return Verified(checks.count, tuple(checks.faults))


def lineage_in(folder: Path) -> dict[str, Any]:
    """The lineage of a release folder.

    Raises:
        UserError: it has none that can be read.
    """
    path = folder / "lineage.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is no release folder: lineage.json cannot be read ({error}).") from error


class Checks:
    """The checks of one folder, counting as they go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lineage = lineage_in(folder)
        self.count = 0
        self.faults: list[str] = []

    def _hold(self, holds: bool, fault: str) -> bool:
        self.count += 1
        if not holds:
            self.faults.append(fault)
        return holds

    def files(self) -> None:
        """checksums.sha256 names every file, and every file has its hash."""
        path = self.folder / "checksums.sha256"
        if not self._hold(path.is_file(), "checksums.sha256 is missing"):
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}
        for name, expected in sorted(listed.items()):
            file = self.folder / name
            if self._hold(file.is_file(), f"{name} is missing"):
                self._hold(file_hash(file) == expected, f"{name} has another hash than checksums.sha256 says")
        found = {file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()}
        for name in sorted(found - set(listed) - {"checksums.sha256"}):
            if not name.startswith((".git", ".cache")):
                self._hold(False, f"{name} is not in checksums.sha256")

    def rows(self) -> None:
        """Counts and content hashes of each configuration, and the one string of each row."""
        ids: list[str] = []
        for name, count in self.lineage["rows"].items():
            if count:
                ids += self._config(name, count)
        metadata = self._read("metadata", METADATA)
        if metadata is not None:
            same = content_hash(metadata) == self.lineage["content"].get("metadata")
            self._hold(same, "metadata has other content than lineage.json says")
            same = sorted(metadata["id"].to_pylist()) == sorted(ids)
            self._hold(same, "metadata has other ids than the configurations")

    def _config(self, name: str, count: int) -> list[str]:
        table = self._read(name, PUBLIC)
        if table is None:
            return []
        self._hold(table.num_rows == count, f"{name} has {table.num_rows} rows, lineage.json says {count}")
        same = content_hash(table) == self.lineage["content"].get(name)
        self._hold(same, f"{name} has other content than lineage.json says")
        broken = sum(not _holds_together(row) for row in table.to_pylist())
        self._hold(not broken, f"{name}: in {broken} rows messages, query, reasoning and answer do not fit together")
        return [str(one) for one in table["id"].to_pylist()]

    def _read(self, name: str, schema: pa.Schema) -> pa.Table | None:
        paths = sorted((self.folder / "data" / name).glob("train-*.parquet"))
        if not self._hold(bool(paths), f"data/{name} has no parquet files"):
            return None
        try:
            table = pa.concat_tables([pq.read_table(path) for path in paths])
        except (OSError, pa.ArrowException) as error:
            self._hold(False, f"data/{name} cannot be read: {error}")
            return None
        fits = self._hold(table.schema.names == schema.names, f"{name} has other columns than a release")
        return table if fits else None

    def words(self) -> None:
        """The card says what the lineage says, and texts have the hashes that stand beside them."""
        card = self.folder / "README.md"
        if self._hold(card.is_file(), "README.md is missing"):
            same = card.read_text(encoding="utf-8") == dataset_card(self.lineage)
            self._hold(same, "README.md is not the card of lineage.json")
        for name, entry in self.lineage["variants"].items():
            same = sha256(entry["instruction"].encode()).hexdigest() == entry["instruction_sha256"]
            self._hold(same, f"the instruction of {name} has another hash than lineage.json says")
        for name, entry in self.lineage["judging"]["rubrics"].items():
            same = sha256(entry["text"].encode()).hexdigest() == entry["sha256"]
            self._hold(same, f"the rubric {name} has another hash than lineage.json says")


def _holds_together(row: dict[str, Any]) -> bool:
    user, assistant = row["messages"][0], row["messages"][-1]
    reply = join(row["reasoning"], row["answer"])
    return bool(
        len(row["messages"]) == 2
        and user == {"role": "user", "content": row["query"]}
        and assistant == {"role": "assistant", "content": reply}
    )
