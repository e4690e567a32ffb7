"""Which release folders are opened: the gate for everything that reads one.

A release found somewhere is data: texts, tables and pictures that lie in its own folder. Links, programs, pickles,
notebooks, git's own folder, odd names and files beyond all size are refused by name before anything of them is read,
and no name that a file of the release holds is opened unless the folder was seen to have it. Reads folders; writes
nothing.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from cards.card.validator import front_matter_of
from cards.objectives.schema import OBJECTIVES
from cards.rows.schema import FORMAT
from pipelines.documents import check_parquet, read_json
from pipelines.errors import UserError
from pipelines.settings.old_names import all_names_now

_KINDS = (
    *(".md", ".json", ".jsonl", ".parquet", ".sha256", ".txt", ".csv", ".tsv", ".yaml", ".yml"),
    *(".svg", ".png", ".jpg", ".jpeg", ".bib", ".cff", ".arrow"),
)
_PLAIN = ("LICENSE", "NOTICE", "README", "CHANGELOG", ".gitattributes", ".gitignore")
# What a download leaves beside the files, at the top of the folder alone.
_OF_DOWNLOADS = (".json", ".metadata", ".lock", ".gitignore", ".tag", ".TAG")
_WORDS = {
    "a program": (".py", ".pyc", ".pyd", ".so", ".dll", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".js", ".jar", ".whl"),
    "a notebook": (".ipynb",),
    "a pickle, which runs what it holds": (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".npy", ".joblib"),
    "an archive": (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z"),
}
_RESERVED = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
_PROGRAM = (b"#!", b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_CONFIG = re.compile(r"\w[\w.-]{0,99}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
MOST_FILES = 20_000
_DEEPEST = 8
_MOST_TEXT = 64_000_000
_MOST_PICTURE = 64_000_000
_MOST_NAMED = 20
# What every lineage has, whatever else it holds.
_SHAPE = {
    **dict.fromkeys(("version", "title", "run_id", "prompt_ids", "card_sha256", "license"), str),
    **dict.fromkeys(("rows", "content", "variants", "teachers", "judging", "prompts", "counts", "funnel"), dict),
    "sources": list,
}


@dataclass(frozen=True, slots=True)
class ReleaseFolder:
    """A folder that may be read, and its files by their paths in it, as POSIX writes them."""

    path: Path
    files: frozenset[str]

    def lineage(self) -> dict[str, Any]:
        """How the release came to be.

        Raises:
            UserError: lineage.json cannot be read, or is not a release's.
        """
        path = self.path / "lineage.json"
        try:
            found = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.path} is no release folder: lineage.json cannot be read ({error}).") from error
        wrong = [name for name, kind in _SHAPE.items() if not isinstance(found.get(name), kind)]
        if wrong or not _VERSION.fullmatch(found["version"]):
            raise UserError(
                f"{self.path}/lineage.json is not a release's: {', '.join(wrong) or 'version'} cannot be read."
            )
        if not isinstance(made := found.get("format", 1), int) or not 1 <= made <= FORMAT:
            raise UserError(
                f"{self.path} is a release of format {made!r:.20}, and this version reads 1 to {FORMAT}. Use the "
                "version of SaferThoughts that made it."
            )
        odd = next((name for name in found["rows"] if not _CONFIG.fullmatch(name) or ".." in name), None)
        if odd is not None:
            raise UserError(f"{self.path}/lineage.json names a configuration {odd[:80]!r}, which no folder is called.")
        objectives = found.get("objectives", {})
        if not isinstance(objectives, dict) or not all(_is_objective(*item) for item in objectives.items()):
            raise UserError(f"{self.path}/lineage.json is not a release's: objectives cannot be read.")
        return found


def _is_objective(name: str, entry: Any) -> bool:
    return name in OBJECTIVES and isinstance(entry, dict) and type(entry.get("rows")) is int


def lineage_now(folder: Path) -> dict[str, Any]:
    """The lineage of a release folder, variants by the names that they have now, whichever version made it.

    Raises:
        UserError: it is refused, or has none that can be read.
    """
    try:
        return dict(all_names_now(open_release(folder).lineage()))
    except ValueError as error:
        raise UserError(f"{folder}/lineage.json is not a release's: {error}.") from error


def open_release(folder: Path) -> ReleaseFolder:
    """A folder that is safe to read as a release.

    Raises:
        UserError: there is no such folder, or what in it is refused.
    """
    found, faults = inspected(folder)
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise UserError(f"{folder} is not opened as a release: {'; '.join(faults[:3])}{more}.")
    return found


def inspected(folder: Path) -> tuple[ReleaseFolder, list[str]]:
    """The folder's files, and a line for each thing in it that is refused; nothing is opened but footers of tables.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no release folder: there is no such folder.")
    files: dict[str, str] = {}
    faults: list[str] = []
    for name, entry, depth in _walk(folder):
        if len(files) >= MOST_FILES or (depth == _DEEPEST and entry.is_dir(follow_symlinks=False)):
            faults.append(f"it has more than {MOST_FILES:,} files, or folders more than {_DEEPEST} deep")
            break
        fault = name_fault(name) or _entry_fault(name, entry, folder)
        if fault:
            faults.append(f"{shown(name)} {fault}")
            if len(faults) >= _MOST_NAMED:
                break
        elif not entry.is_dir(follow_symlinks=False):
            twin = files.setdefault(name.casefold(), name)
            if twin != name:
                faults.append(f"{shown(name)} and {shown(twin)} are one file where case does not count")
            files[name.casefold()] = name
    found = ReleaseFolder(folder, frozenset(files.values()))
    if not faults:
        faults += _card_faults(found)
    return found, faults


def _walk(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]", int]]:
    waiting = [("", str(folder), 0)]
    while waiting:
        prefix, path, depth = waiting.pop()
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                name = f"{prefix}{entry.name}"
                yield name, entry, depth
                if entry.is_dir(follow_symlinks=False) and not name_fault(name) and depth < _DEEPEST:
                    waiting.append((f"{name}/", entry.path, depth + 1))


def name_fault(name: str) -> str | None:
    """Why a path in a release is refused, by its name alone; None where it may be there."""
    if not name or len(name) > 500:
        return "has no name that can be used"
    if not name.isprintable():
        return "has a name with characters that do not show"
    if "\\" in name or ":" in name:
        return "has a backslash or a colon in its name"
    path = PurePosixPath(name)
    parts = name.split("/")
    if path.is_absolute() or any(part in ("", ".", "..") for part in parts):
        return "leads out of the folder"
    for part in parts:
        if part.endswith((".", " ")) or part.startswith(" ") or part.partition(".")[0].casefold() in _RESERVED:
            return "has a name that is another file's, or none, on other systems"
        if part.casefold() in (".git", ".githooks", "hooks"):
            return "is git's own folder, whose hooks are programs; get the release by: saferthoughts pull"
    return None


def kind_fault(name: str) -> str | None:
    """Why a file is refused by its name; None where a release may hold such a file."""
    path = PurePosixPath(name)
    suffix = path.suffix.casefold()
    if path.parts[0] == ".cache" and suffix in (*_OF_DOWNLOADS, ""):
        return None
    if path.name in _PLAIN or suffix in _KINDS:
        return None
    word = next((word for word, kinds in _WORDS.items() if suffix in kinds), "of a kind that no release has")
    return f"is {word}"


def _entry_fault(name: str, entry: "os.DirEntry[str]", folder: Path) -> str | None:
    """Why an entry of the folder is refused by what it is, without reading it; None where it may be there."""
    if entry.is_symlink():
        return f"is a link (to {shown(os.readlink(entry.path))})"
    state = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(state.st_mode):
        return None
    if not stat.S_ISREG(state.st_mode):
        return "is neither a file nor a folder"
    if state.st_mode & 0o111:
        return "is marked as a program (executable)"
    fault = kind_fault(name)
    suffix = PurePosixPath(name).suffix.casefold()
    if fault or name.startswith(".cache/"):
        return fault
    if suffix == ".parquet":
        return _parquet_fault(folder / name)
    most = _MOST_PICTURE if suffix in (".png", ".jpg", ".jpeg", ".svg") else _MOST_TEXT
    if suffix not in (".jsonl", ".csv", ".tsv") and state.st_size > most:
        return f"has {state.st_size:,} bytes, more than {most:,}"
    return _program_fault(folder / name)


def _program_fault(path: Path) -> str | None:
    with path.open("rb") as file:
        begins = file.read(4)
    return "is a program, by its first bytes" if begins.startswith(_PROGRAM) else None


def _parquet_fault(path: Path) -> str | None:
    try:
        check_parquet(path)
    except ValueError as error:
        # Arrow's own errors are ValueErrors too: a file that is no parquet is reported where its rows are read.
        return None if isinstance(error, pa.ArrowException) else f"unfolds too far: {error}"
    except OSError:
        return None
    return None


def _card_faults(found: ReleaseFolder) -> list[str]:
    """What README.md has `datasets` read: files of the folder, and neither another's nor an address."""
    if "README.md" not in found.files:
        return []
    text = (found.path / "README.md").read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return []
    try:
        front = front_matter_of(text)
    except ValueError:
        return []  # reported by `verify`; nothing of it is used
    named = _paths(front.get("configs"))
    return [f"README.md names {shown(path)}, which leads out of the folder" for path in named if not _inside(path)]


def _paths(configs: Any) -> list[str]:
    """Every text of `configs` that `datasets` takes for a path."""
    found: list[str] = []
    waiting = [(configs, False)]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, dict):
            waiting += [(item, path or key in ("data_files", "data_dir")) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(item, path) for item in value]
        elif path:
            found.append(str(value))
    return found


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return not (path.startswith(("/", "~")) or ".." in parts or ":" in path or "\\" in path or not path.isprintable())


def shown(name: str) -> str:
    """A name as it can be printed."""
    return name[:120] if name.isprintable() else ascii(name)[1:-1][:120]
