"""Release verification: recomputes every hash, count and text that can be recomputed.

Reads a release folder, in batches; writes nothing. Run it with `saferthoughts release verify FOLDER_OR_REPO`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards.release_checks import ReleaseChecks, message_of
from cards.release_folder import inspected, open_release
from cards.signing.attestation import in_words, release_digest
from pipelines.errors import UserError

if TYPE_CHECKING:
    from cards.signing.signing import Identity


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """How many things were computed again, and a line for each that does not match.

    `signature` says in words whose signature the release carries and whether that was checked; None without one.
    """

    checked: int
    faults: tuple[str, ...]
    signature: str | None = None


def verify(folder: Path, identity: "Identity | None" = None, signature: bool = True) -> VerificationResult:
    """Check a release folder.

    Args:
        identity: Who is to have signed it (`cards.signing.signing.identity_of`); not asked if not given.
        signature: Whether to look at the signature that it may carry.

    Raises:
        UserError: it is no release folder.
    """
    found, refused = inspected(folder)
    if not os.path.lexists(folder / "lineage.json"):
        raise UserError(f"{folder} is no release folder: it has no lineage.json.")
    if refused:
        # Of a folder that is refused nothing is read.
        return VerificationResult(len(found.files) + len(refused), tuple(refused))
    checks = ReleaseChecks(found)
    if signature:
        checks.signature(identity)
    checks.files()
    for part in (checks.rows, checks.prompts, checks.counts, checks.croissant, checks.words):
        checks.guarded(part)
    return VerificationResult(checks.count, tuple(checks.faults), checks.signed)


def verify_student(folder: Path, identity: "Identity", release: Path | None = None) -> VerificationResult:
    """Check a student's signature and, with its release, follow the student back to prompts and votes.

    Args:
        folder: A model that was trained here and signed.
        identity: Who is to have signed it, and the release.
        release: The release that it is to be trained on; not looked at if not given.

    Raises:
        UserError: there is no such release.
    """
    from cards.signing.signing import check_signature, release_of_student

    checked = check_signature(folder, identity)
    if checked.faults:
        return VerificationResult(1, checked.faults)
    words = f"signed by {checked.signer}: {in_words(checked.predicate)}"
    if release is None:
        return VerificationResult(1, (), words)
    there = verify(release, identity)
    if (trained := release_of_student(checked)) != (digest := release_digest(release)):
        line = f"{folder} was trained on another release (sha256 {trained[:16]}) than {release} (sha256 {digest[:16]})"
        return VerificationResult(there.checked + 2, (line, *there.faults))
    return VerificationResult(there.checked + 2, there.faults, f"{words}; that release is {there.signature}")


def lineage_in(folder: Path) -> dict[str, Any]:
    """The lineage of a release folder.

    Raises:
        UserError: it is refused, or has none that can be read.
    """
    return open_release(folder).lineage()


@contextmanager
def shaped_like_ours(*folders: Path) -> Iterator[None]:
    """Report a lineage with a missing or malformed key in one line.

    Raises:
        UserError: with what it lacks.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        where = ", ".join(f"{folder}/lineage.json" for folder in folders)
        raise UserError(f"{where}: not as a release of this version has it ({message_of(error)}).") from error
