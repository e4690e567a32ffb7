"""The signature that a release or a student carries: which files it is, what it names, and what differs from it.

Reads signature.sigstore.json and the names and hashes of a folder's files; writes nothing and needs no cryptography:
whose signature it is, `signing.py` here checks. Everything in the folder is signed but the signature itself, and of a
student `eval/` (its measurements) and local.json, which are not pushed with it.
"""

import base64
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.card.model_card import RECORD
from cards.release_folder import shown
from pipelines.documents import json_of, read_json
from pipelines.public_names import LOCAL
from pipelines.runs import file_hash

SIGNATURE = "signature.sigstore.json"
PROVENANCE = "provenance.sigstore.json"
SIGNED_WITH = (SIGNATURE, PROVENANCE)
_KINDS = {"publicKey": "key", "x509CertificateChain": "certificate", "certificate": "sigstore"}
_WORDS = {"key": "a public key", "certificate": "a certificate", "sigstore": "a Sigstore identity"}
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature says before anybody has checked it.

    Attributes:
        kind: key, certificate or sigstore.
        hint: sha256 of the public key where the signature names it, else empty.
        statement: The in-toto statement that is signed.
    """

    kind: str
    hint: str
    statement: dict[str, Any]

    def words(self) -> str:
        """By what kind of key it was made."""
        return _WORDS[self.kind] + (f" (sha256 {self.hint[:16]})" if self.hint else "")

    def resources(self) -> dict[str, str]:
        """sha256 of each signed file."""
        return {str(entry["name"]): str(entry["digest"]) for entry in self.statement["predicate"]["resources"]}


def read_signature(path: Path) -> Signature:
    """A Sigstore bundle with an in-toto statement, not verified.

    Raises:
        ValueError: it is none; with why.
    """
    try:
        bundle = read_json(path)
        material = bundle["verificationMaterial"]
        kind = next(word for name, word in _KINDS.items() if name in material)
        hint = str(material["publicKey"]["hint"]) if kind == "key" else ""
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)
        return Signature(kind, hint, dict(json_of(payload, path.name)))
    except StopIteration as error:
        raise ValueError(f"{path.name} is no signature: it names neither a key nor a certificate") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path.name} is no signature that can be read ({type(error).__name__}: {reason})") from error


def is_student(folder: Path) -> bool:
    """Whether a folder is a model that was trained here."""
    return (folder / RECORD).is_file() and not (folder / "lineage.json").exists()


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """Every file of a folder that a signature is about, by name, with its sha256; and a line for each thing in the
    folder that no signature can be about."""

    hashes: dict[str, str]
    faults: tuple[str, ...]


def signed_files(folder: Path) -> SignedFiles:
    """Read and hash a folder, hidden files too, but for the signature and, of a student, `eval/` and local.json."""
    found: dict[str, str] = {}
    faults: list[str] = []
    skipped = ("eval", LOCAL) if is_student(folder) else ()
    waiting = [("", folder)]
    while waiting:
        prefix, path = waiting.pop()
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        if prefix and not entries:
            faults.append(f"{shown(prefix)} is an empty folder, which no signature holds")
        for entry in entries:
            name = f"{prefix}{entry.name}"
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                waiting += [] if name in skipped else [(f"{name}/", Path(entry.path))]
            elif not stat.S_ISREG(mode):
                faults.append(f"{shown(name)} is a link or no file, which no signature holds")
            elif name != SIGNATURE and name not in skipped:
                found[name] = file_hash(Path(entry.path))
    return SignedFiles(found, tuple(faults))


def changes(signed: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """A line for each file that is missing, was changed or was added since it was signed."""
    lines = [f"{shown(name)} is signed and missing" for name in sorted(signed.keys() - found.keys())]
    lines += [
        f"{shown(name)} is not as it was signed"
        for name in sorted(signed.keys() & found.keys())
        if signed[name] != found[name]
    ]
    for name in sorted(found.keys() - signed.keys()):
        download = name.startswith(".cache/") or name in (".gitattributes", ".gitignore")
        lines.append(
            f"{shown(name)} is not signed" + (" (a download leaves such a file: remove it)" if download else "")
        )
    more = len(lines) - _MOST_NAMED
    return [*lines[:_MOST_NAMED], *([f"and {more} more files differ from what was signed"] if more > 0 else [])]
