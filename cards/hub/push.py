"""A folder to a repository on the Hub: one commit that holds it and nothing else, read back by hash.

Reads a folder and a repository; writes one commit. `publish.py` sends releases with it, `push_model.py` models. Killed
at any point, the same push goes on: files that arrived are not sent again, and a commit whose answer was lost is found
by its content.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from cards.hub.hub import Hub, Stored, hub_error, repeated
from pipelines.errors import UserError
from pipelines.progress import meter
from pipelines.public_names import check_public


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


class Push:
    """One folder on its way into one repository.

    Args:
        hub: The repository.
        folder: What it is to hold.
        title: The commit's.
        description: The commit's.
        leaves: Which files of the folder, by name, are for the repository.

    Raises:
        UserError: a file names a path of this machine.
    """

    # A command that shows another user's push.
    look = ""

    def __init__(
        self, hub: Hub, folder: Path, title: str, description: str, leaves: Callable[[str], bool] = lambda name: True
    ) -> None:
        self.hub = hub
        self.folder = folder
        self.title = title
        self.description = description
        found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.files = {n: path for n, path in found.items() if not n.startswith((".git", ".cache")) and leaves(n)}
        check_public(folder, self.files)

    def prepare(self, private: bool, gated: bool) -> None:
        """The repository, made and set before anything is in it."""
        hub = self.hub
        hub.ask(hub.api.whoami)
        hub.ask(hub.api.create_repo, hub.repo, repo_type=hub.kind, private=private or None, exist_ok=True)
        info = hub.ask(hub.api.repo_info, hub.repo, repo_type=hub.kind)
        if private and not info.private:
            raise UserError(f"{hub.repo} is public already. Leave --private out, or choose another name.")
        if gated and not info.gated:
            hub.ask(hub.api.update_repo_settings, hub.repo, repo_type=hub.kind, gated="auto")

    def difference(self, there: dict[str, Stored]) -> Difference:
        """The folder against what is there."""
        added = tuple(name for name in self.files if name not in there)
        changed = tuple(name for name, path in self.files.items() if name in there and not there[name].is_file(path))
        removed = tuple(name for name in sorted(there) if name not in self.files)
        size = sum(self.files[name].stat().st_size for name in (*added, *changed))
        return Difference(added, changed, removed, size)

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
                    commit_message=self.title,
                    commit_description=self.description,
                    repo_type=self.hub.kind,
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
            raise hub_error(error, self.hub) or error from error

    def _send(self, additions: list[CommitOperationAdd]) -> None:
        """Every large file, one after the other; what the Hub has already is not sent again."""
        sizes = [self.files[item.path_in_repo].stat().st_size // 1000 for item in additions]
        with meter("upload", total=sum(sizes), unit="kB") as shown:
            for item, size in zip(additions, sizes, strict=True):
                send = self.hub.api.preupload_lfs_files
                self.hub.ask(send, self.hub.repo, additions=[item], repo_type=self.hub.kind, free_memory=False)
                shown.advance(size)

    def _landed(self, parent: str) -> str | None:
        """The commit after `parent` that holds this folder: ours, even if the server's answer was lost."""
        history = self.hub.ask(self.hub.api.list_repo_commits, self.hub.repo, repo_type=self.hub.kind)
        for entry in history:
            if entry.commit_id == parent:
                return None
            if self.difference(self.hub.tree(entry.commit_id)).empty:
                return str(entry.commit_id)
        return None

    def _overtaken(self, parent: str) -> UserError:
        history = self.hub.ask(self.hub.api.list_repo_commits, self.hub.repo, repo_type=self.hub.kind)
        newer = next((entry for entry in history if entry.commit_id != parent), None)
        who = f" ('{newer.title}' by {', '.join(newer.authors) or 'somebody'})" if newer else ""
        return UserError(
            f"Somebody else pushed to {self.hub.repo} while {self.folder} was on its way{who}. Nothing of it is in the "
            f"repository. Look at theirs, then run the same command again{self.look}."
        )

    def check(self, commit: str, revision: str) -> None:
        """Compare every file's hash as the Hub has it under `revision`, and the bytes of those that it keeps in git.

        Raises:
            UserError: something differs.
        """
        there = self.hub.tree(commit)
        difference = self.difference(there)
        wrong = [*difference.added, *difference.changed, *difference.removed]
        with tempfile.TemporaryDirectory() as folder:
            for name in [name for name, stored in there.items() if not stored.large and name not in wrong]:
                download = self.hub.api.hf_hub_download
                path = self.hub.ask(
                    download, self.hub.repo, name, repo_type=self.hub.kind, revision=commit, local_dir=folder
                )
                if Path(path).read_bytes() != self.files[name].read_bytes():
                    wrong.append(name)
        if wrong:
            raise UserError(
                f"{self.hub.repo}@{revision} was read back and differs from {self.folder}: {', '.join(wrong[:5])}. "
                "Somebody changed it, or the Hub damaged it: pull it and look."
            )
