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

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from cards.hub.hub import Hub, Stored, hub_error, repeated
from cards.hub.push import Difference, Push
from cards.verify import lineage_in, verify
from pipelines.errors import UserError
from pipelines.runs import file_hash


@dataclass(frozen=True, slots=True)
class PublishingResult:
    """What came of it. `commit` is None for a dry run; `news` tells whether commit and tag were made now."""

    repo: str
    tag: str
    commit: str | None
    difference: Difference
    new_commit: bool
    new_tag: bool


def publish(
    folder: Path, repo: str, private: bool = False, gated: bool = False, dry_run: bool = False
) -> PublishingResult:
    """Publish a release.

    Args:
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
    lineage = lineage_in(folder)
    if lineage.get("repo") not in (None, repo):
        raise UserError(
            f"The card of {folder} says that it is {lineage['repo']}, not {repo}. Publish it there, or build it with "
            f"another `repo` under `release` in run.yaml."
        )
    version = str(lineage["version"])
    push = _Release(Hub(repo), folder, version)
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
        return PublishingResult(repo, push.tag, tagged, nothing, new_commit=False, new_tag=False)
    commit = head if difference.empty else push.commit(head, difference)
    new_tag = push.make_tag(commit)
    push.read_back(commit)
    return PublishingResult(repo, push.tag, commit, difference, not difference.empty, new_tag)


class _Release(Push):
    """One release on its way into one repository."""

    def __init__(self, hub: Hub, folder: Path, version: str) -> None:
        super().__init__(hub, folder, f"Release {version}", f"checksums {file_hash(folder / 'checksums.sha256')}")
        self.version = version
        self.tag = f"v{version}"
        self.look = f": saferthoughts compare {hub.repo}@main {folder}"

    def planned(self, difference: Difference) -> PublishingResult:
        """What would be done."""
        return PublishingResult(self.hub.repo, self.tag, None, difference, not difference.empty, new_tag=True)

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
                download, self.hub.repo, "lineage.json", repo_type=self.hub.kind, revision=head, local_dir=folder
            )
            theirs = str(json.loads(Path(path).read_text(encoding="utf-8"))["version"])
        if _numbers(self.version) <= _numbers(theirs):
            state = "is being published there" if f"v{theirs}" not in self.hub.tags() else "is there"
            raise UserError(
                f"{self.hub.repo}: version {theirs} {state} with another content, and {self.version} does not follow "
                f"it. Build a higher version: saferthoughts release build RUN --since {self.hub.repo}"
            )

    def make_tag(self, commit: str) -> bool:
        """Tag the commit; False where somebody did so already.

        Raises:
            UserError: the tag stands for another commit.
        """
        create = self.hub.api.create_tag
        try:
            repeated(lambda: create(self.hub.repo, tag=self.tag, revision=commit, repo_type=self.hub.kind))
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise hub_error(error, self.hub) or error from error
        except Exception as error:
            raise hub_error(error, self.hub) or error from error
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
        """Compare everything with what the tag stands for on the Hub.

        Raises:
            UserError: something differs.
        """
        if self.hub.commit_of(self.tag) != commit:
            raise UserError(f"{self.hub.repo}: {self.tag} does not stand for commit {commit[:8]}, as it should.")
        self.check(commit, self.tag)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
