"""A release from the Hub, as a folder whose every byte was checked.

Reads a repository; writes the release's folder, whole or not at all, and a record of its commit into the cache, so that
the folder holds what was published and nothing else. Run it with `saferthoughts pull ORG/NAME@v1.0.0`. The Hub is
always asked which commit a version stands for: with the Hub down there is an error, never rows of another day.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub.utils.tqdm import disable_progress_bars

from cards.hub.hub import Address, Hub, Stored, address_of
from cards.release_folder import MOST_FILES, kind_fault, open_release, shown
from cards.verify import verify
from pipelines.errors import UserError
from pipelines.files import put_in_place, recover, write_json
from pipelines.progress import meter
from pipelines.records import content_id


@dataclass(frozen=True, slots=True)
class PulledRelease:
    """A release that is here. `fresh`: it was downloaded now; `mended`: files that were there and were not as they
    should be."""

    folder: Path
    address: Address
    commit: str
    checked: int
    fresh: bool
    mended: tuple[str, ...] = ()


def cache() -> Path:
    """The folder of releases that were pulled to be read."""
    root = os.environ.get("SAFERTHOUGHTS_CACHE") or Path.home() / ".cache" / "saferthoughts"
    return Path(root) / "releases"


def opened(text: str, report: Callable[[str], None] | None = None) -> Path:
    """A release folder by its path, or by its address on the Hub, from where it is pulled into a cache.

    Raises:
        UserError: neither is there, or what is there does not match itself.
    """
    if Path(text).exists():
        return open_release(Path(text)).path
    address = address_of(text)
    hub, address, commit = _resolved(address)
    done = _pull(hub, address, commit, cache() / address.repo.replace("/", "--") / commit)
    if report is not None:
        report(f"{address} ({commit[:8]}): {done.folder}")
    return done.folder


def pull(text: str, to: Path | None = None) -> PulledRelease:
    """Download a release and check it.

    Args:
        text: ORG/NAME@VERSION; the newest version where none is given.
        to: The folder; NAME-VERSION in the current one if not given.

    Raises:
        UserError: there is no such release, the folder holds something else, the tag was moved since it was pulled, or
            what arrives does not match itself.
    """
    hub, address, commit = _resolved(address_of(text))
    name = address.repo.split("/")[1]
    return _pull(
        hub, address, commit, to or Path(f"{name}-{str(address.revision).removeprefix('v').replace('/', '-')}")
    )


def _record(folder: Path) -> Path:
    """Where it is noted what was pulled into a folder: not in it, since a release is signed with every file in it."""
    inside = folder / ".cache" / "saferthoughts.json"  # where versions before had it
    return inside if inside.exists() else cache() / ".records" / f"{content_id(str(folder.resolve()))}.json"


def _resolved(address: Address) -> tuple[Hub, Address, str]:
    disable_progress_bars()
    hub = Hub(address.repo)
    revision = address.revision or hub.newest()
    return hub, Address(address.repo, revision), hub.commit_of(revision)


def _pull(hub: Hub, address: Address, commit: str, folder: Path) -> PulledRelease:
    folder.parent.mkdir(parents=True, exist_ok=True)
    locks = cache() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / content_id(str(folder.resolve()))):
        there = hub.tree(commit)
        if "lineage.json" not in there:
            raise UserError(
                f"{address} holds no release of SaferThoughts (it has no lineage.json). Load it as any dataset: "
                f'load_dataset("{address.repo}")'
            )
        recover(folder)
        _check_kinds(address, there)
        if folder.exists() and any(folder.iterdir()):
            wrong = tuple(_wrong(folder, there))
            if wrong or _record(folder).exists():
                _check_record(folder, address, commit)
            if not wrong:
                return PulledRelease(folder, address, commit, _verified(folder), fresh=False)
            return _downloaded(hub, address, commit, folder, there, wrong)
        return _downloaded(hub, address, commit, folder, there, ())


def _downloaded(
    hub: Hub, address: Address, commit: str, folder: Path, there: dict[str, Stored], mended: tuple[str, ...]
) -> PulledRelease:
    # One name for all attempts, so that one that was killed is gone on with.
    partial = folder.with_name(f".{folder.name}.partial")
    for name in _wrong(partial, there):
        (partial / name).unlink(missing_ok=True)
    total = sum(stored.size // 1000 for stored in there.values())
    with meter("download", total=total, unit="kB") as shown:
        for name, stored in there.items():
            if not (partial / name).is_file():
                fetch = hub.api.hf_hub_download
                hub.ask(fetch, address.repo, name, repo_type="dataset", revision=commit, local_dir=partial)
            shown.advance(stored.size // 1000)
    wrong = list(_wrong(partial, there))
    if wrong:
        shutil.rmtree(partial)
        raise UserError(
            f"{address}: {', '.join(wrong[:5])} arrived with another content than commit {commit[:8]} has. Try again."
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    (partial / ".gitattributes").unlink(missing_ok=True)
    try:
        checked = _verified(partial)
    except BaseException:
        # Every byte is as it was published: another attempt would bring the same.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    put_in_place(partial, folder)
    write_json(_record(folder), {"repo": address.repo, "revision": address.revision, "commit": commit})
    return PulledRelease(folder, address, commit, checked, fresh=True, mended=mended)


def _check_kinds(address: Address, there: dict[str, Stored]) -> None:
    """Whether a commit holds what releases do, before any of it is downloaded.

    Raises:
        UserError: a program, a pickle, a notebook, or more files than a release has.
    """
    if len(there) > MOST_FILES:
        raise UserError(f"{address} has {len(there):,} files; a release has at most {MOST_FILES:,}.")
    for name in there:
        fault = "is for what a download leaves" if name.startswith(".cache/") else kind_fault(name)
        if fault is not None:
            raise UserError(f"{address} is not pulled: {shown(name)} {fault}.")


def _wrong(folder: Path, there: dict[str, Stored]) -> list[str]:
    """Files of a commit that are missing in a folder, or have another content."""
    return [name for name, stored in there.items() if not ((folder / name).is_file() and stored.is_file(folder / name))]


def _verified(folder: Path) -> int:
    """How many things of the release were computed again.

    Raises:
        UserError: one of them does not match.
    """
    found = verify(folder)
    if found.faults:
        raise UserError(f"The release was published broken, it does not match itself: {'; '.join(found.faults[:5])}")
    return found.checked


def _check_record(folder: Path, address: Address, commit: str) -> None:
    """Whether a folder that is there was pulled from this address.

    Raises:
        UserError: it holds something else, or the version stood for another commit then.
    """
    try:
        # The record outlives the folder: what somebody put in its place is not to be overwritten.
        if not (folder / "lineage.json").exists():
            raise ValueError("no release")
        record = json.loads(_record(folder).read_text(encoding="utf-8"))
        was = Address(record["repo"], record["revision"])
        there = str(record["commit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is there and was not pulled from the Hub. Choose another folder: --to") from error
    if was != address:
        raise UserError(f"{folder} holds {was}, not {address}. Choose another folder: --to")
    if there != commit and address.revision not in ("main", commit):
        raise UserError(
            f"{address} stood for commit {there[:8]} when it was pulled and stands for {commit[:8]} now: somebody "
            f"moved the tag. Look at both: saferthoughts compare {folder} {address}"
        )
