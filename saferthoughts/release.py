"""Releases: loading, reading, checking, comparing and publishing them.

Reads release folders and repositories on the Hub; `Release.publish` writes to the Hub.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.errors import UserError, unknown
from saferthoughts.settings import StoredPath
from saferthoughts.tables import Table

if TYPE_CHECKING:
    from cards.compare import ReleaseComparison
    from cards.hub.publish import PublishingResult
    from cards.verify import VerificationResult


class Release:
    """A release folder.

    >>> import saferthoughts as st
    >>> release = st.load_release("runs/demo/release")
    >>> release.version, list(release.rows)
    ('1.0.0', ['direct', 'improved', 'benign'])
    >>> ", ".join(release.table("benign").columns[:5])
    'id, messages, query, reasoning, answer'
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
        from cards.objectives.schema import all_rows

        return all_rows(self.lineage)

    @property
    def version(self) -> str:
        """MAJOR.MINOR.PATCH."""
        return str(self.lineage["version"])

    def __repr__(self) -> str:
        return f"Release({str(self.path)!r}, version={self.version!r}, rows={self.rows})"

    def table(self, config: str) -> Table:
        """The rows of a configuration: a variant, "benign", or one of `release.configs`.

        Raises:
            UserError: there is no such configuration, or it cannot be read.
        """
        from cards.rows.shards import read_shards

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

    def sign(self, **given: Any) -> str:
        """Sign the release; the arguments are those of `saferthoughts.sign`."""
        return sign(self, **given)

    def publish(
        self, repo: str, *, private: bool = False, gated: bool = False, dry_run: bool = False
    ) -> "PublishingResult":
        """Put the release on the Hub: one commit, its tag, and everything read back. The token is HF_TOKEN.

        Args:
            repo: ORG/NAME; made where there is none.
            private: Make the repository private.
            gated: People agree to the card's gating text first.
            dry_run: Compare, and write nothing.

        Raises:
            UserError: the release does not match itself, or its tag stands for something else there.
        """
        from cards.hub.publish import publish

        return publish(self.path, repo, private, gated, dry_run)


def sign(
    folder: "Release | StoredPath",
    *,
    key: StoredPath | None = None,
    certificate: StoredPath | None = None,
    chain: Iterable[StoredPath] = (),
    passphrase_env: str | None = None,
    sigstore: bool = False,
    identity_token_env: str | None = None,
) -> str:
    """Sign a release or a student: every file in the folder, and what is recorded of how it came to be.

    Args:
        folder: A release or its folder, or the folder of a student.
        key: A private key in PEM, on the curve P-256, P-384 or P-521.
        certificate: The key's certificate in PEM, where it has one.
        chain: Files of the certificates that issued it.
        passphrase_env: The environment variable with the key's passphrase.
        sigstore: Sign by Sigstore, which needs a network and an OpenID token, instead of a key.
        identity_token_env: The environment variable with that token; that of the CI job if not given.

    Returns:
        What it was signed with, in words.

    Raises:
        UserError: the folder does not match itself, or a key, certificate or token is not right.
    """
    from cards.signing.signatures import is_student
    from cards.signing.signing import key_signer, sigstore_signer
    from cards.signing.signing import sign as sign_folder
    from cards.verify import verify as verify_folder

    path = folder.path if isinstance(folder, Release) else Path(folder)
    if (key is None) != sigstore:
        raise UserError(
            "Sign with what? Give either --key FILE, with --certificate and --chain if it has them, or --sigstore."
        )
    if key is not None and Path(key).resolve().is_relative_to(path.resolve()):
        raise UserError(f"{key} is in {path}, and would be published with it. Move the private key elsewhere.")
    if sigstore:
        signer = sigstore_signer(identity_token_env)
    else:
        own = None if certificate is None else Path(certificate)
        signer = key_signer(Path(str(key)), passphrase_env, own, [Path(one) for one in chain])
    if not is_student(path):
        # A signature that is there is replaced, whatever it holds.
        found = verify_folder(path, signature=False)
        if found.faults:
            raise UserError(f"{path} is not signed, it does not match itself: {'; '.join(found.faults[:5])}")
    return f"{len(sign_folder(path, signer))} files signed with {signer.name}"


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
    from cards.hub.pull import opened

    return opened(str(release), progress)


def compare(
    before: "Release | StoredPath", after: "Release | StoredPath", *, progress: Callable[[str], None] | None = None
) -> "ReleaseComparison":
    """List the differences between two releases (rows, pattern rates, lengths, balance) and the resulting version.

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
    from cards.hub.describe import describe as describe_folder
    from cards.hub.hub import address_of

    there = isinstance(release, Release) or Path(release).exists()
    return describe_folder(release_path(release), trainer, configs, None if there else address_of(str(release)))


def verify(
    release: "Release | StoredPath",
    *,
    identity: str | None = None,
    issuer: str | None = None,
    at: date | None = None,
    trained_on: "Release | StoredPath | None" = None,
    progress: Callable[[str], None] | None = None,
) -> "VerificationResult":
    """Compute again what can be computed of a release; `faults` of the result names what does not match.

    Args:
        release: A release, its folder, or its address on the Hub; or, with an identity, the folder of a student.
        identity: Who is to have signed it: a file with a public key or with the certificates of a root, or, with
            `issuer`, a name that Sigstore certified. An unsigned release then has a fault.
        issuer: Who vouched for that name to Sigstore.
        at: The day on which certificates have to be valid; today if not given.
        trained_on: The release of a student, which is then checked as well.
        progress: Is called with a line about what was pulled.

    Raises:
        UserError: there is no such release, or the identity cannot be read.
    """
    from cards.signing.signatures import is_student
    from cards.verify import verify as verify_folder
    from cards.verify import verify_student

    # A folder goes there as it is, so that everything that is refused is named and not the first thing alone.
    here = isinstance(release, Release) or Path(release).exists()
    path = Path(str(release)) if here and not isinstance(release, Release) else release_path(release, progress)
    if identity is None and (issuer or at):
        raise UserError("--issuer and --at go with --identity, which says whose signature it is to be.")
    if identity is None:
        if is_student(path):
            raise UserError(
                f"{path} is a student. Whose is it to be? saferthoughts release verify {path} --identity FILE"
            )
        return verify_folder(path)
    from cards.signing.signing import identity_of

    day = None if at is None else datetime.combine(at, time.max, UTC)
    who = identity_of(identity, issuer, day)
    if is_student(path):
        return verify_student(path, who, None if trained_on is None else release_path(trained_on, progress))
    return verify_folder(path, who)
