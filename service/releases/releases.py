"""The releases here: those of runs, and those of others that were pulled from the Hub, with what each says of itself.

Reads runs/RUN/release and runs/.serve/pulled/ORG--NAME@VERSION/release, all through the gate for release folders;
the second are written by `saferthoughts pull` as a job, beside its log. Nothing of them runs.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.file_marks import folder_mark
from pipelines.runs import RUN_NAME, RunFolder
from service.app_state import AppState
from service.http.problems import Problem
from service.http.shapes import REPO_PATTERN
from service.http.tokens import Caller
from service.jobs import commands
from service.jobs.queue import Job
from service.store import home_of

_PULLED = ".serve/pulled"
_NEWEST = "newest"
_REPO = re.compile(REPO_PATTERN)
_ADDRESS = re.compile(r"([^@]+)@(newest|v\d{1,9}\.\d{1,9}\.\d{1,9})")
_LOADED = re.compile(r'revision="(v[\d.]+)"')
_COMMIT = re.compile(r"commit ([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Listed:
    """A release in a list. `key` names it in addresses of the page; `problem` says why it cannot be read."""

    key: str
    path: str
    name: str
    title: str = ""
    version: str = ""
    rows: int | None = None
    licence: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A version on the Hub."""

    repo: str
    tag: str
    at: float | None

    @property
    def url(self) -> str:
        """Where people look at it."""
        return f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/datasets/{self.repo}/tree/{self.tag}"


def own(runs: Path) -> list[Path]:
    """The release folders of runs, the newest first."""
    found = [path.parent for path in runs.glob("*/release/lineage.json") if RUN_NAME.fullmatch(path.parts[-3])]
    return sorted(found, key=lambda folder: -folder.stat().st_mtime)


def pulled(runs: Path) -> list[str]:
    """What was pulled or is being pulled, by the name of its folder."""
    return sorted(path.name for path in (home_of(runs) / "pulled").glob("*") if _repo_and_tag(path.name))


def pulled_name(repo: str, version: str) -> str:
    """The folder's name of a release on the Hub; the newest version where none is given.

    Raises:
        UserError: no repository or no version.
    """
    repo, version = repo.strip(), version.strip()
    name = f"{repo.replace('/', '--')}@{'v' + version.removeprefix('v') if version else _NEWEST}"
    if repo.count("/") != 1 or _repo_and_tag(name) != (repo, name.partition("@")[2]):
        raise UserError(
            f"'{one_line(f'{repo}@{version}' if version else repo, 80)}' is no release on the Hub: give ORG/NAME, and "
            "a version such as 1.0.0 or none for the newest."
        )
    return name


def _repo_and_tag(name: str) -> tuple[str, str] | None:
    found = _ADDRESS.fullmatch(name)
    repo = found[1].replace("--", "/") if found else ""
    return (repo, found[2]) if found and _REPO.fullmatch(repo) else None


def address_of(name: str) -> str:
    """ORG/NAME@VERSION of a pulled release by its folder's name, without a version where the newest was wanted.

    Raises:
        Problem: 404, no such name.
    """
    found = _repo_and_tag(name)
    if found is None:
        raise Problem(404, f"There is no pulled release '{one_line(name, 80)}'.")
    return found[0] if found[1] == _NEWEST else "@".join(found)


def run_of(name: str) -> str:
    """What the queue calls the work on a pulled release: its folder beside the runs."""
    address_of(name)
    return f"{_PULLED}/{name}"


def pulled_folder(runs: Path, name: str) -> Path:
    """Where a pulled release lies, or will."""
    return runs.absolute() / run_of(name) / "release"


def pull(state: AppState, repo: str, version: str, caller: Caller) -> str:
    """Queue a pull of a release of somebody else, where none of it is under way; the name of its folder.

    Raises:
        UserError: no repository or no version.
    """
    name = pulled_name(repo, version)
    folder, job = pulled_folder(state.runs, name), state.queue.latest(run_of(name))
    if job is not None and job.open:
        return name
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The newest version may be another one by now; of the others it is checked whether the tag was moved.
    if name.endswith(f"@{_NEWEST}"):
        shutil.rmtree(folder, ignore_errors=True)
    state.queue.put(run_of(name), "pull", ["pull", address_of(name), "--to", str(folder)], caller.name)
    state.supervisor.wake()
    return name


def remove(state: AppState, name: str) -> None:
    """Delete a pulled release.

    Raises:
        Problem: 404, there is none; 409, it is being pulled.
    """
    folder, job = here(state, name), state.queue.latest(run_of(name))
    if job is not None and job.open:
        raise Problem(409, f"{address_of(name)} is being pulled. Wait for it.")
    shutil.rmtree(folder.parent, ignore_errors=True)


def here(state: AppState, name: str) -> Path:
    """Where a release lies that was pulled, or is being pulled.

    Raises:
        Problem: 404, it was not.
    """
    folder = pulled_folder(state.runs, name)
    if not folder.parent.is_dir():
        raise Problem(404, f"{address_of(name)} was not pulled here.")
    return folder


def verified(state: AppState, name: str) -> dict[str, Any]:
    """What `release verify` finds of a pulled release, computed again in a child process.

    Raises:
        Problem: 404, it is not here; 503, others are being waited for.
    """
    folder = pulled_folder(state.runs, name)
    if not (folder / "lineage.json").exists():
        raise Problem(404, f"{address_of(name)} is not here yet.")
    mark = partial(folder_mark, folder)
    found: dict[str, Any] = commands.answer(state.runs, mark, "release", "verify", str(folder))
    return found


def usable(state: AppState, key: str) -> Path:
    """The folder of a release to train on or to measure with, by its key: run:NAME, or pulled:NAME, which is verified.

    Raises:
        Problem: 404, nothing of ours; 409, it is being pulled, or does not match itself.
    """
    kind, _, name = key.partition(":")
    if kind == "hub":
        raise Problem(409, f"{one_line(name, 80)} is not here yet. Pull it first.")
    folder = Path(folder_or_address(state.runs, key))
    if kind == "pulled":
        job = state.queue.latest(run_of(name))
        if job is not None and job.open:
            raise Problem(409, f"{address_of(name)} is being pulled. Wait for it.")
        if faults := verified(state, name)["faults"]:
            raise Problem(409, f"{address_of(name)} is not used, since it does not match itself: {one_line(faults[0])}")
    return folder


def commit_of(job: Job | None) -> str:
    """The commit that a pull compared every byte with; "" where its last word names none."""
    found = _COMMIT.search(job.message) if job is not None else None
    return found[1] if found else ""


def listed(folder: Path) -> Listed:
    """A release in a list, by its lineage."""
    from cards.release_folder import lineage_now

    foreign = folder.parent.parent.name == "pulled"
    name = address_of(folder.parent.name) if foreign else folder.parent.name
    key = f"pulled:{folder.parent.name}" if foreign else f"run:{name}"
    path = f"/ui/releases/pulled/{folder.parent.name}" if foreign else f"/ui/runs/{name}/release"
    if not (folder / "lineage.json").exists():
        return Listed(key, path, name, problem="Not here yet.")
    try:
        found = lineage_now(folder)
    except UserError as error:
        return Listed(key, path, name, problem=one_line(str(error)))
    counts = [count for count in found["rows"].values() if isinstance(count, int)]
    return Listed(key, path, name, found["title"], found["version"], sum(counts), found["license"])


def folder_or_address(runs: Path, key: str) -> str:
    """What a key stands for, as the command line takes it: run:NAME, pulled:NAME, or hub:ORG/NAME@VERSION.

    Raises:
        Problem: 404, nothing of ours.
    """
    kind, _, name = key.partition(":")
    if kind == "run" and RUN_NAME.fullmatch(name) and (runs / name / "release" / "lineage.json").exists():
        return str(runs.absolute() / name / "release")
    if kind == "pulled" and (folder := pulled_folder(runs, name)).is_dir():
        return str(folder)
    repo, _, tag = name.partition("@")
    if kind == "hub" and _repo_and_tag(f"{repo.replace('/', '--')}@{tag}") == (repo, tag):
        return name
    raise Problem(404, f"There is no release '{one_line(key, 80)}' here.")


def choices(state: AppState, but: str, repos: tuple[Published, ...] = ()) -> dict[str, str]:
    """Releases to compare with by their keys: what was published, what was pulled, and those of other runs."""
    found = {f"hub:{one.repo}@{one.tag}": f"{one.repo}@{one.tag} on the Hub" for one in repos}
    found |= {f"pulled:{name}": f"{address_of(name)}, pulled" for name in pulled(state.runs)}
    found |= {f"run:{folder.parent.name}": f"run {folder.parent.name}" for folder in own(state.runs)}
    found.pop(but, None)
    return found


def published(state: AppState, name: str) -> tuple[Published, ...]:
    """What this service published of a run, the newest first, each version once."""
    found: dict[tuple[str, str], Published] = {}
    for job in state.queue.done(name, "publish"):
        tag = _LOADED.search(job.message)
        if tag is not None and "--dry-run" not in job.arguments:
            repo = job.arguments[job.arguments.index("--repo") + 1]
            found.setdefault((repo, tag[1]), Published(repo, tag[1], job.finished))
    return tuple(found.values())


def gate_of(run: RunFolder) -> tuple[bool, str]:
    """Whether a run's release may be built by what it requires of people's review, and in words what it waits for."""
    from curation.review.gate import gate_gaps
    from pipelines.settings.config import load_config

    requires = load_config(run).release.requires
    if requires == type(requires)():
        return True, "Nothing is required of people's review (release.requires in run.yaml)."
    gaps = gate_gaps(run)
    return not gaps, "; ".join(gaps) or "People's review shows what the run requires of it."


def answers(state: AppState, name: str) -> list[tuple[str, list[str], bool]]:
    """The questions to ask of somebody's release, with what the machine found, and whether that is reassuring.

    Raises:
        Problem: 404, it is not here; 503, others are being waited for.
        UserError: its lineage cannot be read.
    """
    from cards.release_folder import lineage_now
    from cards.verify import shaped_like_ours

    whole, folder = verified(state, name), pulled_folder(state.runs, name)
    found = lineage_now(folder)
    with shaped_like_ours(folder):
        return _answers(folder, found, whole, commit_of(state.queue.latest(run_of(name))))


def compared(state: AppState, before: str, after: str) -> dict[str, Any]:
    """What `compare` finds of two releases by their keys, in a child process, and the version that makes: `proposed`.

    Raises:
        Problem: 404, nothing of ours; 503, others are being waited for.
        UserError: what the command says.
    """
    from cards.compare import proposed

    paths = [folder_or_address(state.runs, key) for key in (before, after)]
    here = [Path(path) for path in paths if path.startswith("/")]
    found: dict[str, Any] = commands.answer(state.runs, lambda: list(map(folder_mark, here)), "compare", *paths)
    return {**found, "proposed": proposed(found["versions"][0], found["step"])}


def _answers(
    folder: Path, found: Mapping[str, Any], verified: Mapping[str, Any], commit: str
) -> list[tuple[str, list[str], bool]]:
    from cards.release_folder import open_release

    faults = list(verified["faults"])
    whole = f"{verified['checked']} things were computed again from its files: hashes, counts, the card's words."
    files = open_release(folder).files
    size = sum((folder / name).stat().st_size for name in files)
    sources = [f"{one['source']}: {one['license']}, {one['rows']:,} rows" for one in found["sources"]]
    signature = verified.get("signature")
    return [
        ("Is it whole?", [whole, *(faults or ["All match."])], not faults),
        (
            "Is it what lies on the Hub?",
            [f"Every file has the hash that commit {commit} has for it." if commit else "Pull it again to compare."],
            bool(commit),
        ),
        ("Who signed it?", [f"It is {signature}." if signature else _UNSIGNED], bool(signature)),
        ("What would run?", [_NOTHING_RUNS, *_texts_sent(found)], True),
        ("What is in it?", [f"{len(files)} files, {size / 1e6:.1f} MB.", *_contents(found)], True),
        ("Who answered, and who judged?", list(_people(found)), True),
        ("Under which licence?", [f"The whole: {found['license']}.", *sources], found["license"] != "unknown"),
    ]


_UNSIGNED = "Nobody. Whoever may write to the repository may have put it there; ask them for a signed one."
_NOTHING_RUNS = (
    "Nothing. It holds texts, tables and pictures; a folder with a program, a pickle, a notebook or an archive is "
    "refused before it is downloaded. Its card is shown as text."
)


def _texts_sent(found: Mapping[str, Any]) -> Iterator[str]:
    from pipelines.prompts.variant import load_variants

    shipped = {sha256(entry.instruction.encode()).hexdigest() for entry in load_variants().values()}
    odd = [name for name, entry in found["variants"].items() if entry["instruction_sha256"] not in shipped]
    if odd:
        yield f"To make it again, instructions that are not ours would be sent to your teacher: those of {_list(odd)}."
    else:
        yield "To make it again, only instructions that are shipped with this version would be sent to your teacher."


def _contents(found: Mapping[str, Any]) -> Iterator[str]:
    prompts = found["prompts"]
    yield f"{prompts['harmful']:,} harmful and {prompts['benign']:,} benign prompts, of {prompts['name']}."
    yield "Rows: " + ", ".join(f"{name} {count:,}" for name, count in found["rows"].items()) + "."


def _people(found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("rehearsal"):
        yield "The rehearsal teacher, a program that stands in for a model: do not train anything for use on it."
    yield f"Answered by {_list(one['model'] for one in found['teachers'].values()) or 'nobody that was asked'}."
    judges = found["judging"]["judges"].items()
    yield f"Judged by {_list(_judge(*one) for one in judges) or 'nobody'}."


def _judge(name: str, entry: Mapping[str, Any]) -> str:
    return f"{name} ({entry['model']})" if entry["model"] else name


def _list(words: Any) -> str:
    return ", ".join(dict.fromkeys(str(word) for word in words))
