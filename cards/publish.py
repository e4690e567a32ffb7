"""A release folder to the Hub: one commit, then its tag, then everything read back.

Reads a release folder and a repository; writes one commit and one tag. Run it with `saferthoughts publish RUN --repo
ORG/NAME`. What is there is never moved or overwritten: a tag that stands for something else is an error, and so is a
push by somebody else between reading and writing. Killed at any point, the same command goes on: files that arrived are
not sent again, a commit whose answer was lost is found by its content, and a commit without its tag gets it.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from cards.hub import Hub, Stored, repeated, told
from cards.verify import lineage_in, verify
from pipelines.errors import UserError
from pipelines.progress import meter
from pipelines.runs import file_hash


@dataclass(frozen=True, slots=True)
class Difference:
    """What a commit changes: files by path, and the bytes to send."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    size: int

    @property
    def empty(self) -> bool:
        """Whether the repository holds the release already."""
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Published:
    """What came of it. `commit` is None for a dry run; `news` tells whether commit and tag were made now."""

    repo: str
    tag: str
    commit: str | None
    difference: Difference
    new_commit: bool
    new_tag: bool


def publish(folder: Path, repo: str, private: bool = False, gated: bool = False, dry_run: bool = False) -> Published:
    """Publish a release.

    Args:
        folder: A release folder.
        repo: ORG/NAME; made where there is none.
        private: Only for those whom the owner lets in.
        gated: People agree to the card's gating text before they may download.
        dry_run: Look and compare, write nothing.

    Raises:
        UserError: the release is not whole, its version or tag stands for something else there, somebody else pushed in
            between, the Hub refuses, or does not answer.
    """
    disable_progress_bars()
    found = verify(folder)
    if found.faults:
        raise UserError(f"{folder} is not published, it does not match itself: {'; '.join(found.faults[:5])}")
    version = str(lineage_in(folder)["version"])
    push = _Push(Hub(repo), folder, version)
    if not dry_run:
        push.prepare(private, gated)
    head = push.hub.head()
    if head is None:
        return push.planned(push.difference({}))
    there = push.hub.tree(head)
    difference = push.difference(there)
    tagged = push.tagged()
    if tagged is None and not difference.empty:
        push.check_head(head, there)
    if dry_run:
        return push.planned(difference)
    if tagged is not None:
        push.read_back(tagged)
        nothing = push.difference(push.hub.tree(tagged))
        return Published(repo, push.tag, tagged, nothing, new_commit=False, new_tag=False)
    commit = head if difference.empty else push.commit(head, difference)
    new_tag = push.make_tag(commit)
    push.read_back(commit)
    return Published(repo, push.tag, commit, difference, not difference.empty, new_tag)


class _Push:
    """One release on its way into one repository."""

    def __init__(self, hub: Hub, folder: Path, version: str) -> None:
        self.hub = hub
        self.folder = folder
        self.version = version
        self.tag = f"v{version}"
        self.digest = file_hash(folder / "checksums.sha256")
        self.files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.relative_to(folder).as_posix().startswith((".git", ".cache"))
        }

    def planned(self, difference: Difference) -> Published:
        """What would be done."""
        return Published(self.hub.repo, self.tag, None, difference, not difference.empty, new_tag=True)

    def prepare(self, private: bool, gated: bool) -> None:
        """The repository, made and set before anything is in it."""
        hub = self.hub
        hub.ask(hub.api.whoami)
        hub.ask(hub.api.create_repo, hub.repo, repo_type="dataset", private=private or None, exist_ok=True)
        info = hub.ask(hub.api.repo_info, hub.repo, repo_type="dataset")
        if private and not info.private:
            raise UserError(f"{hub.repo} is public already. Leave --private out, or choose another name.")
        if gated and not info.gated:
            hub.ask(hub.api.update_repo_settings, hub.repo, repo_type="dataset", gated="auto")

    def difference(self, there: dict[str, Stored]) -> Difference:
        """The folder against what is there."""
        added = tuple(name for name in self.files if name not in there)
        changed = tuple(name for name, path in self.files.items() if name in there and not there[name].is_file(path))
        removed = tuple(name for name in sorted(there) if name not in self.files)
        size = sum(self.files[name].stat().st_size for name in (*added, *changed))
        return Difference(added, changed, removed, size)

    def tagged(self) -> str | None:
        """The commit of this version's tag, None where there is no such tag.

        Raises:
            UserError: the tag stands for another content.
        """
        if self.tag not in self.hub.tags():
            return None
        commit = self.hub.commit_of(self.tag)
        if not self.difference(self.hub.tree(commit)).empty:
            raise UserError(
                f"{self.hub.repo} has {self.tag} already, at {commit[:8]}, with another content; a tag is never moved. "
                f"Build a higher version: saferthoughts release build RUN --since {self.hub.repo}@{self.tag}"
            )
        return commit

    def check_head(self, head: str, there: dict[str, Stored]) -> None:
        """Whether this version may follow what is there.

        Raises:
            UserError: something else is in the repository, or this version or a higher one.
        """
        if not there or set(there) == {"README.md"}:
            return
        if "lineage.json" not in there:
            raise UserError(
                f"{self.hub.repo} holds files that are no release ({', '.join(sorted(there)[:3])}). Choose another "
                "name."
            )
        with tempfile.TemporaryDirectory() as folder:
            download = self.hub.api.hf_hub_download
            path = self.hub.ask(
                download, self.hub.repo, "lineage.json", repo_type="dataset", revision=head, local_dir=folder
            )
            theirs = str(json.loads(Path(path).read_text(encoding="utf-8"))["version"])
        if _numbers(self.version) <= _numbers(theirs):
            state = "is being published there" if f"v{theirs}" not in self.hub.tags() else "is there"
            raise UserError(
                f"{self.hub.repo}: version {theirs} {state} with another content, and {self.version} does not follow "
                f"it. Build a higher version: saferthoughts release build RUN --since {self.hub.repo}"
            )

    def commit(self, parent: str, difference: Difference) -> str:
        """Send what differs, then commit it on top of `parent` and nothing else.

        Raises:
            UserError: somebody else pushed in between, or the Hub refuses.
        """
        additions = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=self.files[name])
            for name in (*difference.added, *difference.changed)
        ]
        self._send(additions)
        deletions = [CommitOperationDelete(path_in_repo=name) for name in difference.removed]

        def once() -> str:
            try:
                done = self.hub.api.create_commit(
                    self.hub.repo,
                    [*additions, *deletions],
                    commit_message=f"Release {self.version}",
                    commit_description=f"checksums {self.digest}",
                    repo_type="dataset",
                    parent_commit=parent,
                )
            except Exception as error:
                landed = self._landed(parent)
                if landed is not None:
                    return landed
                if isinstance(error, HfHubHTTPError) and error.response.status_code in (409, 412):
                    raise self._overtaken(parent) from error
                raise
            return str(done.oid)

        try:
            return repeated(once)
        except Exception as error:
            raise told(error, self.hub) or error from error

    def _send(self, additions: list[CommitOperationAdd]) -> None:
        """Every large file, one after the other; what the Hub has already is not sent again."""
        sizes = [self.files[item.path_in_repo].stat().st_size // 1000 for item in additions]
        with meter("upload", total=sum(sizes), unit="kB") as shown:
            for item, size in zip(additions, sizes, strict=True):
                send = self.hub.api.preupload_lfs_files
                self.hub.ask(send, self.hub.repo, additions=[item], repo_type="dataset", free_memory=False)
                shown.advance(size)

    def _landed(self, parent: str) -> str | None:
        """The commit that holds this release and came after `parent`: ours, though no answer said so."""
        history = self.hub.ask(self.hub.api.list_repo_commits, self.hub.repo, repo_type="dataset")
        for entry in history:
            if entry.commit_id == parent:
                return None
            if self.difference(self.hub.tree(entry.commit_id)).empty:
                return str(entry.commit_id)
        return None

    def _overtaken(self, parent: str) -> UserError:
        history = self.hub.ask(self.hub.api.list_repo_commits, self.hub.repo, repo_type="dataset")
        newer = next((entry for entry in history if entry.commit_id != parent), None)
        who = f" ('{newer.title}' by {', '.join(newer.authors) or 'somebody'})" if newer else ""
        return UserError(
            f"Somebody else pushed to {self.hub.repo} while this release was on its way{who}. Nothing of it is in the "
            f"repository. Look at theirs, then run the same command again: saferthoughts compare "
            f"{self.hub.repo}@main {self.folder}"
        )

    def make_tag(self, commit: str) -> bool:
        """Tag the commit; False where somebody did so already.

        Raises:
            UserError: the tag stands for another commit.
        """
        create = self.hub.api.create_tag
        try:
            repeated(lambda: create(self.hub.repo, tag=self.tag, revision=commit, repo_type="dataset"))
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise told(error, self.hub) or error from error
        except Exception as error:
            raise told(error, self.hub) or error from error
        else:
            return True
        there = self.hub.commit_of(self.tag)
        if there != commit:
            raise UserError(
                f"{self.hub.repo} has {self.tag} already, at {there[:8]}, while this release is at {commit[:8]}; a tag "
                "is never moved. Build a higher version."
            )
        return False

    def read_back(self, commit: str) -> None:
        """Compare every file's hash as the Hub has it under the tag, and the bytes of those that it keeps in git.

        Raises:
            UserError: something differs.
        """
        if self.hub.commit_of(self.tag) != commit:
            raise UserError(f"{self.hub.repo}: {self.tag} does not stand for commit {commit[:8]}, as it should.")
        there = self.hub.tree(commit)
        difference = self.difference(there)
        wrong = [*difference.added, *difference.changed, *difference.removed]
        with tempfile.TemporaryDirectory() as folder:
            for name in [name for name, stored in there.items() if not stored.large and name not in wrong]:
                download = self.hub.api.hf_hub_download
                path = self.hub.ask(
                    download, self.hub.repo, name, repo_type="dataset", revision=commit, local_dir=folder
                )
                if Path(path).read_bytes() != self.files[name].read_bytes():
                    wrong.append(name)
        if wrong:
            raise UserError(
                f"{self.hub.repo}@{self.tag} was read back and differs from {self.folder}: {', '.join(wrong[:5])}. "
                "Somebody changed it, or the Hub damaged it: pull it and look."
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
