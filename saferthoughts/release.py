"""Releases: loading, reading, checking, comparing and publishing them.

Reads release folders and repositories on the Hub; `Release.publish` writes to the Hub.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.errors import UserError, unknown
from saferthoughts.settings import StoredPath
from saferthoughts.tables import Table

if TYPE_CHECKING:
    from cards.compare import ReleaseComparison
    from cards.publish import PublishingResult
    from cards.verify import VerificationResult


class Release:
    """A release folder.

    >>> import saferthoughts as st
    >>> release = st.load_release("runs/demo/release")
    >>> release.version, list(release.rows)
    ('1.0.0', ['direct', 'improved', 'benign'])
    >>> release.table("benign").columns[:5]
    ['id', 'messages', 'query', 'reasoning', 'answer']
    >>> st.verify(release).faults
    ()

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """How the release came to be: prompts, teachers, judges, settings, counts, hashes."""
        from cards.release_folder import lineage_now

        return lineage_now(self.path)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each configuration has."""
        return {name: count for name, count in self.lineage["rows"].items() if count}

    @property
    def version(self) -> str:
        """MAJOR.MINOR.PATCH."""
        return str(self.lineage["version"])

    def __repr__(self) -> str:
        return f"Release({str(self.path)!r}, version={self.version!r}, rows={self.rows})"

    def table(self, config: str) -> Table:
        """The rows of a configuration: a variant, or "benign".

        Raises:
            UserError: there is no such configuration, or it cannot be read.
        """
        from cards.shards import read_shards

        if config not in self.rows:
            raise unknown(f"configuration of {self.path}", config, self.rows)
        try:
            return Table(pa.concat_tables(read_shards(self.path, config)))
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"Configuration {config} of {self.path} cannot be read ({reason}). Check the release: saferthoughts "
                f"release verify {self.path}"
            ) from error

    def publish(
        self, repo: str, *, private: bool = False, gated: bool = False, dry_run: bool = False
    ) -> "PublishingResult":
        """Put the release on the Hub: one commit, its tag, and everything read back. The token is HF_TOKEN.

        Args:
            repo: ORG/NAME; made where there is none.
            private: Only for those whom the owner lets in.
            gated: People agree to the card's gating text first.
            dry_run: Compare, and write nothing.

        Raises:
            UserError: the release does not match itself, or its tag stands for something else there.
        """
        from cards.publish import publish

        return publish(self.path, repo, private, gated, dry_run)


def load_release(address: StoredPath, *, progress: Callable[[str], None] | None = None) -> Release:
    """A release by its folder, or by ORG/NAME@VERSION on the Hub, from where it is pulled into a cache.

    Args:
        address: The folder or the address; the newest version where none is named.
        progress: Is called with a line about what was pulled.

    Raises:
        UserError: neither is there, or what is there is refused or does not match itself.
    """
    release = Release(release_path(address, progress))
    release.lineage  # noqa: B018 - a folder that has none is refused here
    return release


def release_path(release: "Release | StoredPath", progress: Callable[[str], None] | None = None) -> Path:
    """The folder of a release that is given as one, as a folder, or as an address."""
    if isinstance(release, Release):
        return release.path
    from cards.pull import opened

    return opened(str(release), progress)


def compare(
    before: "Release | StoredPath", after: "Release | StoredPath", *, progress: Callable[[str], None] | None = None
) -> "ReleaseComparison":
    """What differs between two releases: rows, pattern rates, lengths, balance; and the version that makes.

    Args:
        before: A release, its folder, or its address on the Hub.
        after: A later one.
        progress: Is called with a line about what was pulled.

    Raises:
        UserError: one of them is no release, or cannot be read.
    """
    from cards.compare import compare as compare_folders

    return compare_folders(release_path(before, progress), release_path(after, progress))


def describe(release: "Release | StoredPath", trainer: str, *configs: str) -> str:
    """A release as another trainer's configuration names datasets: YAML for axolotl, JSON for LLaMA-Factory.

    Args:
        release: A release, its folder, or its address on the Hub, from where the entries then load it.
        trainer: "axolotl" or "llama-factory".
        configs: Configurations; the default one and "benign" where none is named.

    Raises:
        UserError: there is no such release, trainer or configuration.
    """
    from cards.describe import describe as describe_folder
    from cards.hub import address_of

    there = isinstance(release, Release) or Path(release).exists()
    return describe_folder(release_path(release), trainer, configs, None if there else address_of(str(release)))


def verify(release: "Release | StoredPath", *, progress: Callable[[str], None] | None = None) -> "VerificationResult":
    """Compute again what can be computed of a release; `faults` of the result names what does not match.

    Args:
        release: A release, its folder, or its address on the Hub.
        progress: Is called with a line about what was pulled.

    Raises:
        UserError: there is no such release.
    """
    from cards.verify import verify as verify_folder

    if isinstance(release, Release):
        return verify_folder(release.path)
    # A folder goes there as it is, so that everything that is refused is named and not the first thing alone.
    return verify_folder(Path(release) if Path(release).exists() else release_path(release, progress))
