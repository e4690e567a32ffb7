"""The checks of one release folder: what `verify` computes again, and what does not match.

Reads a release folder that was let through, in batches; writes nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cards.card.dataset_card import dataset_card, template_hash
from cards.card.validator import faults_of
from cards.objectives.schema import columns_of, reasoning_key_of
from cards.objectives.verify import objective_faults
from cards.release_folder import ReleaseFolder, name_fault, shown
from cards.rows.prompts_file import prompts_file, prompts_fit, read_prompts
from cards.rows.rows import assistant_turn, conversations, user_turn
from cards.rows.schema import FIRST_METADATA, FIRST_PUBLIC
from cards.rows.shards import ContentHash, read_shards, shards_of, tables_in
from cards.signing.attestation import in_words
from cards.signing.signatures import SIGNATURE, SIGNED_WITH, changes, read_signature
from pipelines.documents import read_json
from pipelines.judges.tallies import NOT_APPLICABLE
from pipelines.records import PATTERNS
from pipelines.runs import file_hash

if TYPE_CHECKING:
    from cards.signing.signing import Identity


def message_of(error: Exception) -> str:
    """An error of reading something odd, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class ReleaseChecks:
    """The checks of one folder, counting as they go."""

    def __init__(self, found: ReleaseFolder) -> None:
        self.folder = found.path
        self._found = found.files
        self.lineage = found.lineage()
        self._key = reasoning_key_of(self.lineage)
        self.count = 0
        self.faults: list[str] = []
        self._sources: Counter[tuple[str, str]] = Counter()
        self._hashes: dict[str, str] = {}
        self.signed: str | None = None

    def _hold(self, holds: bool, fault: str) -> bool:
        self.count += 1
        if not holds:
            self.faults.append(fault)
        return holds

    def guarded(self, part: Callable[[], None]) -> None:
        """Do some of the checks; a lineage that cannot be read on is a fault."""
        try:
            part()
        except (KeyError, TypeError, AttributeError, ValueError, jinja2.UndefinedError) as error:
            self._hold(False, f"lineage.json is not as a release of this version has it ({message_of(error)})")

    def signature(self, identity: "Identity | None") -> None:
        """The files are those that the signature names, if there is one; with an identity, it is theirs."""
        if identity is not None:
            from cards.signing.signing import check_signature

            checked = check_signature(self.folder, identity)
            self.count += 1
            self.faults += checked.faults
            self.signed = None if checked.faults else f"signed by {checked.signer}: {in_words(checked.predicate)}"
        elif self._found.intersection(SIGNED_WITH):
            try:
                found = read_signature(self.folder / SIGNATURE)
                here = {name: self._hash(name) for name in self._found if name != SIGNATURE and not _of_download(name)}
                differing = changes(found.resources(), here)
                self.signed = f"signed with {found.words()}; by whom is not checked without --identity"
                self._hold(not differing, "; ".join(differing))
            except (ValueError, KeyError, TypeError) as error:
                self._hold(False, f"the signature cannot be read: {message_of(error)}")

    def _hash(self, name: str) -> str:
        """A file's sha256, read once."""
        return self._hashes.get(name) or self._hashes.setdefault(name, file_hash(self.folder / name))

    def files(self) -> None:
        """checksums.sha256 names every file, and every file has its hash."""
        path = self.folder / "checksums.sha256"
        if not self._hold(path.is_file(), "checksums.sha256 is missing"):
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}
        for name, expected in sorted(listed.items()):
            # What is opened was seen in the folder; a list can name anything.
            fault = name_fault(name)
            if fault is not None:
                self._hold(False, f"checksums.sha256 names {shown(name)}, which {fault}")
            elif self._hold(name in self._found, f"{name} is missing"):
                self._hold(self._hash(name) == expected, f"{name} has another hash than checksums.sha256 says")
        for name in sorted(self._found - set(listed) - {"checksums.sha256", *SIGNED_WITH}):
            if not _of_download(name):
                self._hold(False, f"{name} is not in checksums.sha256")

    def rows(self) -> None:
        """Counts and content hashes of each configuration, and the one string of each row."""
        first = self.lineage.get("format", 1) == 1
        columns = FIRST_PUBLIC if first else tuple(column.name for column in columns_of("improved", self._key))
        released = set[bytes]() if first else None
        for name, count in self.lineage["rows"].items():
            if count:
                self._config(name, count, columns, released)
        if released is not None:
            self._metadata(released)
        recorded = Counter({(entry["source"], entry["license"]): entry["rows"] for entry in self.lineage["sources"]})
        self._hold(
            self._sources == recorded,
            "the rows are from other sources, or under other licences, than lineage.json says",
        )

    def _metadata(self, released: set[bytes]) -> None:
        """The table that releases of format 1 have beside the configurations."""
        listed: set[bytes] = set()
        read = self._read("metadata", FIRST_METADATA, listed)
        if read is not None:
            same = read.content == self.lineage["content"].get("metadata")
            self._hold(same, "metadata has other content than lineage.json says")
            self._hold(listed == released, "metadata has other ids than the configurations")

    def _config(self, name: str, count: int, columns: tuple[str, ...], released: set[bytes] | None) -> None:
        read = self._read(name, columns, released)
        if read is None:
            return
        self._hold(read.rows == count, f"{name} has {read.rows} rows, lineage.json says {count}")
        same = read.content == self.lineage["content"].get(name)
        self._hold(same, f"{name} has other content than lineage.json says")
        message = f"{name}: in {read.torn} rows messages, query, reasoning and answer do not fit together"
        self._hold(not read.torn, message)
        unsafe = read.unsafe if "unsafe" in self._checks() else 0
        self._hold(
            not unsafe, f"{name} holds {unsafe} rows whose own verdict says unsafe, and the card does not say why"
        )
        self._patterns(name, read.flagged)

    def _patterns(self, name: str, flagged: int) -> None:
        """A configuration has no rows with a pattern, or the card says that it is a baseline with so many of them."""
        entry = self.lineage["variants"].get(name, {})
        if not entry.get("pattern_checked", True):
            same = flagged == entry.get("flagged")
            self._hold(same, f"{name} holds {flagged} rows with a pattern, the card says {entry.get('flagged')}")
        elif "pattern_flagged" in self._checks():
            message = f"{name} holds {flagged} rows whose own verdict has a pattern, and the card does not say why"
            self._hold(not flagged, message)

    def _checks(self) -> set[str]:
        """The checks that a row had to pass; the card names those that were left out."""
        checks = self.lineage["config"]["checks"]
        left_out = set() if checks["flagged"] else {"pattern_flagged"}
        # Without patterns that reject a row, nobody had to give a verdict on them.
        return set(self.lineage["queries"]) - left_out - (set() if checks.get("patterns", True) else {"unscored"})

    def _read(self, name: str, columns: tuple[str, ...], ids: set[bytes] | None) -> "_Read | None":
        """Read one table through, adding its ids to `ids` where they are wanted."""
        if not self._hold(bool(shards_of(self.folder, name)), f"data/{name} has no parquet files"):
            return None
        content, rows, torn, unsafe, flagged, unscored = ContentHash(), 0, 0, 0, 0, 0
        checked = self.lineage["variants"].get(name, {}).get("pattern_checked", True)
        patterns = self.lineage["config"]["checks"].get("patterns", PATTERNS) if checked else PATTERNS
        try:
            for batch in read_shards(self.folder, name):
                if tuple(batch.schema.names) != columns:
                    self._hold(False, f"{name} has other columns than a release")
                    return None
                content.update(batch)
                rows += batch.num_rows
                if ids is not None:
                    ids.update(str(one).encode() for one in batch["id"].to_pylist())
                if "unscored_reason" in columns:
                    unscored += _unscored(batch)
                if "messages" in columns:
                    torn += _torn(batch, self._key)
                    unsafe += pc.sum(pc.cast(pc.equal(batch["safety_verdict"], "unsafe"), pa.int64())).as_py() or 0
                    flagged += _flagged(batch, patterns)
                    for found in (
                        batch.group_by(["source", "source_license"]).aggregate([([], "count_all")]).to_pylist()
                    ):
                        self._sources[found["source"], found["source_license"]] += found["count_all"]
        except (OSError, ValueError, pa.ArrowException) as error:
            self._hold(False, f"data/{name} cannot be read: {error}")
            return None
        objections = unscored if "unscored" in self._checks() else 0
        self._hold(
            not objections,
            f"{name}: {objections} rows have no verdict that could be read, and the card does not say why",
        )
        return _Read(rows, content.hexdigest(), torn, unsafe, flagged)

    def prompts(self) -> None:
        """The prompts' file holds those of the lineage."""
        path = prompts_file(self.folder)
        if not self._hold(path.is_file(), f"{path.name} is missing"):
            return
        try:
            prompts = read_prompts(path)
        except (OSError, ValueError, pa.ArrowException, KeyError) as error:
            self._hold(False, f"{path.name} cannot be read: {error}")
            return
        self._hold(prompts_fit(prompts, self.lineage), f"{path.name} has other prompts than lineage.json says")
        for fault in objective_faults(self.folder, self.lineage, prompts):
            self._hold(not fault, fault)

    def counts(self) -> None:
        """What the steps took in and gave out adds up."""
        counts, rows = self.lineage["counts"], self.lineage["rows"]
        made, checked = counts["generate"], counts["check"]
        self._hold(made["kept"] + made["failed"] == made["planned"], "responses kept and failed are not those planned")
        sums = checked["accepted"] + checked["rejected"] == checked["responses"]
        self._hold(sums, "responses accepted and rejected are not those checked")
        self._hold(sum(rows.values()) <= checked["accepted"], "more rows were released than accepted")
        if imported := self.lineage.get("imported"):
            answers = Counter[str]()
            for line in imported["answers"]:
                answers[line["config"]] += line["rows"]
            self._hold(answers == Counter(rows), "the card's imported and mended rows are not those released")

    def croissant(self) -> None:
        """croissant.json describes the files that are here."""
        path = self.folder / "croissant.json"
        if not self._hold(path.is_file(), "croissant.json is missing"):
            return
        try:
            entries = read_json(path)["distribution"]
            recorded = {entry["contentUrl"]: entry["sha256"] for entry in entries}
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._hold(False, f"croissant.json cannot be read ({message_of(error)})")
            return
        data = [file.relative_to(self.folder).as_posix() for file in tables_in(self.folder)]
        found = {name: self._hash(name) for name in data}
        self._hold(recorded == found, "croissant.json has other files or hashes than data")

    def words(self) -> None:
        """The card agrees with the lineage, and texts have the hashes that are recorded beside them."""
        card = self.folder / "README.md"
        if self._hold(card.is_file(), "README.md is missing"):
            words = card.read_text(encoding="utf-8", errors="replace")
            # Another version of this project words its cards otherwise.
            if self.lineage["card_sha256"] == template_hash():
                self._hold(words == dataset_card(self.lineage), "README.md is not the card of lineage.json")
            faults = faults_of(words, self.folder)
            self._hold(not faults, f"README.md: {'; '.join(faults)}")
        for name, entry in self.lineage["variants"].items():
            same = sha256(entry["instruction"].encode()).hexdigest() == entry["instruction_sha256"]
            self._hold(same, f"the instruction of {name} has another hash than lineage.json says")
        for name, entry in self.lineage["judging"]["rubrics"].items():
            same = sha256(entry["text"].encode()).hexdigest() == entry["sha256"]
            self._hold(same, f"the rubric {name} has another hash than lineage.json says")


def _of_download(name: str) -> bool:
    """Whether a file is what git and the Hub's client leave beside the files of a release."""
    return name.startswith(".cache/") or name in (".gitattributes", ".gitignore")


@dataclass(frozen=True, slots=True)
class _Read:
    """What one configuration holds: rows, their hash, and how many of them are not of a piece, are unsafe or carry a
    pattern by their own verdict."""

    rows: int
    content: str
    torn: int
    unsafe: int
    flagged: int


def _unscored(rows: pa.Table) -> int:
    """How many rows have a reason for being unscored; a text of the run's own needs no verdict, and patterns are not
    judged where there is no reasoning."""
    reasons = pc.fill_null(rows["unscored_reason"], "")
    ours = pc.equal(rows["reasoning_source"], "fixed")
    inapplicable = pc.match_substring_regex(reasons, NOT_APPLICABLE)
    unread = pc.and_not(pc.and_not(pc.not_equal(reasons, ""), ours), inapplicable)
    return int(pc.sum(pc.cast(unread, pa.int64())).as_py() or 0)


def _flagged(rows: pa.Table, patterns: Sequence[str]) -> int:
    """How many rows carry one of the patterns by their own verdict."""
    found = pa.chunked_array([pa.array([False] * rows.num_rows)])
    for pattern in patterns:
        found = pc.or_(found, pc.fill_null(rows[pattern], False))
    return int(pc.sum(pc.cast(found, pa.int64())).as_py() or 0)


def _torn(rows: pa.Table, key: str) -> int:
    """How many rows' messages are not the query, and reasoning and answer as one string or by the key."""
    messages = rows["messages"].combine_chunks()
    if not pc.all(pc.equal(pc.list_value_length(messages), 2)).as_py():
        raise pa.ArrowInvalid("a row has not two messages")
    turns = [user_turn(rows["query"]), assistant_turn(rows["reasoning"], rows["answer"], key)]
    found, expected = (pc.list_flatten(one) for one in (messages, conversations(turns, key)))
    same = np.ones(len(found), dtype=bool)
    for part in expected.type:
        texts = (pc.fill_null(pc.struct_field(one, part.name), "\0") for one in (found, expected))
        same &= np.asarray(pc.equal(*texts))
    return int((~same.reshape(-1, 2).all(axis=1)).sum())
