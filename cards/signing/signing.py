"""Sign a release or a student, and check whose signature one carries: OpenSSF model-signing over the whole folder.

Reads keys, certificates and the folder; writes signature.sigstore.json (model-signing's statement of every file) and
provenance.sigstore.json (`cards.signing.attestation`'s claims, a DSSE envelope by the same key) into it. Run it with
`saferthoughts release sign` and `saferthoughts release verify --identity`.

model-signing signs and checks the envelopes; which files there are and what they hold is compared here, since its own
comparison leaves out git's files, empty folders and whatever else a signature says is left out. Its certificates are
held to their dates here as well (sigstore/model-transparency#663: version 1.1.1 accepts expired ones).
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from model_signing import manifest
from model_signing._hashing.hashing import Digest
from model_signing._signing import sign_certificate, sign_ec_key, sign_sigstore, sign_sigstore_pb, signing
from OpenSSL import crypto
from sigstore.errors import Error as SigstoreError
from sigstore.oidc import IdentityError, detect_credential

from cards.signing.attestation import PREDICATE, Claims, claims_of, false_claims
from cards.signing.signatures import (
    PROVENANCE,
    SIGNATURE,
    SIGNED_WITH,
    Signature,
    changes,
    read_signature,
    signed_files,
)
from pipelines.documents import json_of
from pipelines.errors import UserError
from pipelines.files import write_text

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAKE_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE"
_MOST_KEY = 1_000_000
# How model-signing is to have put the folder together: every file, whole, and nothing left out but the signature.
_WHOLE = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
# What model-signing, OpenSSL and the parsers below them raise on a signature that somebody made by hand.
_BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    UnsupportedAlgorithm,
    crypto.Error,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose signature is accepted.

    Attributes:
        kind: key, certificate or sigstore.
        name: How it was given: a file, or a Sigstore identity.
        data: The file's PEM; the issuer of a Sigstore identity.
        at: When certificates have to be valid.
    """

    kind: str
    name: str
    data: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Signer:
    """Something that signs statements. `name` says with what, without a secret."""

    name: str
    sign: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Held:
    """A file's content that model-signing reads as if it were a path, so that no key is written to a disk."""

    data: bytes

    def read_bytes(self) -> bytes:
        return self.data


def identity_of(text: str, issuer: str | None = None, at: datetime | None = None) -> Identity:
    """Whose signature is wanted, from `--identity`: a file of a public key or of certificates; with `--issuer`, the
    name that Sigstore certified.

    Raises:
        UserError: the file is missing or holds neither, or a name comes without its issuer.
    """
    day = at or datetime.now(UTC)
    if issuer is not None:
        return Identity("sigstore", text, issuer.encode(), day)
    if "@" in text and not Path(text).exists():
        raise UserError(f"Who certified '{text}'? Name it, for example --issuer https://github.com/login/oauth.")
    data = _read(Path(text), "public key or certificate")
    if b"PRIVATE KEY" in data:
        raise UserError(f"{text} holds a private key. A public key checks: openssl pkey -in {text} -pubout -out FILE")
    kind = "certificate" if b"BEGIN CERTIFICATE" in data else "key"
    try:
        if kind == "key":
            _check_curve(serialization.load_pem_public_key(data), text)
        elif not x509.load_pem_x509_certificates(data):
            raise ValueError("no certificate")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{text} holds neither a public key nor certificates in PEM ({_line(error)}).") from error
    return Identity(kind, text, data, day)


def key_signer(
    key: Path, passphrase_env: str | None = None, certificate: Path | None = None, chain: Sequence[Path] = ()
) -> Signer:
    """A signer by a private key, whose certificate goes into the signature where there is one.

    Raises:
        UserError: a file is missing or of the wrong kind, the passphrase is missing or wrong, the certificate is not
            this key's, not valid today, or not issued by the chain.
    """
    held: Any = _Held(_private_key(key, passphrase_env))
    if certificate is None:
        if chain:
            raise UserError("--chain goes with --certificate, the certificate that it issued.")
        return Signer(f"the key {key}", sign_ec_key.Signer(held, None).sign)
    files: list[Any] = [_Held(_read(path, "certificate")) for path in chain]
    own: Any = _Held(_read(certificate, "certificate"))
    try:
        _check_certificates(
            x509.load_pem_x509_certificates(own.data + b"".join(f.data for f in files)), datetime.now(UTC)
        )
        return Signer(f"the certificate {certificate}", sign_certificate.Signer(held, own, files).sign)
    except _BROKEN as error:
        raise UserError(f"{certificate} cannot be signed with: {_line(error)}") from error


def sigstore_signer(token_env: str | None = None) -> Signer:
    """A signer by Sigstore: the identity token of an environment variable, or that of the CI job this runs in.

    Raises:
        UserError: there is no token, or Sigstore cannot be reached.
    """
    with _network():
        token = os.environ.get(token_env) if token_env else detect_credential("sigstore")
        if not token:
            where = f"The environment variable {token_env} is empty" if token_env else "No identity is found here"
            raise UserError(
                f"{where}. Sigstore signs for an OpenID token: give --identity-token-env NAME, or run it in CI."
            )
        return Signer("Sigstore", sign_sigstore.Signer(identity_token=token, use_ambient_credentials=False).sign)


def sign(folder: Path, signer: Signer) -> dict[str, str]:
    """Sign everything in a folder; what it was signed with before is replaced.

    Returns:
        The sha256 of each signed file.

    Raises:
        UserError: it is neither a release nor a student, holds what cannot be signed, or Sigstore does not answer.
    """
    claims = claims_of(folder)
    found = signed_files(folder)
    if found.faults:
        raise UserError(f"{folder} cannot be signed: {'; '.join(found.faults[:3])}.")
    hashes = {name: digest for name, digest in found.hashes.items() if name != PROVENANCE}
    with _network():
        provenance = _bundle(signer.sign(SimpleNamespace(statement=_statement(claims, hashes))))
        hashes[PROVENANCE] = sha256(provenance.encode()).hexdigest()
        signature = _bundle(signer.sign(signing.Payload(_manifest(claims.name, hashes))))
    write_text(folder / PROVENANCE, provenance)
    write_text(folder / SIGNATURE, signature)
    return hashes


@dataclass(frozen=True, slots=True)
class CheckedSignature:
    """What is wrong with a signature, a line each; and who signed, where it is right."""

    faults: tuple[str, ...]
    signer: str
    predicate: dict[str, Any]


def check_signature(folder: Path, identity: Identity) -> CheckedSignature:
    """Whether all of a folder is as somebody signed it, and what they state of it is what its record says."""
    if not (folder / SIGNATURE).exists():
        line = f"{folder} is not signed (it has no {SIGNATURE}), so it is not known to be by {identity.name}"
        return CheckedSignature((line,), "", {})
    found = signed_files(folder)
    faults, signer, predicate = list(found.faults), "", {}
    try:
        statement, signer = _verified(folder / SIGNATURE, identity)
        # That the digest of all files is the subject's is checked in here.
        signed = signing.dsse_payload_to_manifest(statement)
        if signed.serialization_type != _WHOLE:
            raise ValueError(f"{SIGNATURE} is not over the whole folder: {json.dumps(signed.serialization_type)[:200]}")
        faults += changes({rd.identifier: rd.digest.digest_hex for rd in signed.resource_descriptors()}, found.hashes)
        stated, other = _verified(folder / PROVENANCE, identity)
        if other != signer:
            raise ValueError(f"{PROVENANCE} is by {other}, and {SIGNATURE} by {signer}")
        subjects = {entry["name"]: entry["digest"]["sha256"] for entry in stated["subject"]}
        about = {name: digest for name, digest in found.hashes.items() if name not in SIGNED_WITH}
        if stated["predicateType"] != PREDICATE or (subjects != about and not faults):
            raise ValueError(f"{PROVENANCE} is about other files than these")
        predicate = dict(stated["predicate"])
        faults += false_claims(predicate, claims_of(folder))
    except UserError as error:
        faults.append(str(error))
    except _BROKEN as error:
        faults.append(_line(error))
    return CheckedSignature(tuple(faults), signer, predicate)


def release_of_student(checked: CheckedSignature) -> str:
    """The digest of the release that a checked student was trained on."""
    used = checked.predicate["buildDefinition"]["resolvedDependencies"]
    return str(next(entry["digest"]["sha256"] for entry in used if entry["name"] == "release"))


def _verified(path: Path, identity: Identity) -> tuple[dict[str, Any], str]:
    """The statement of a bundle that this identity signed, and who that is.

    Raises:
        ValueError: it is not theirs, or no bundle.
        UserError: Sigstore cannot be reached.
    """
    claimed = read_signature(path)
    if claimed.kind != identity.kind:
        raise ValueError(f"{path.name} was made with {claimed.words()}, which {identity.name} cannot check")
    kind: Any = sign_sigstore if identity.kind == "sigstore" else sign_sigstore_pb
    bundle = kind.Signature.read(path)
    if bundle.bundle.to_json() != path.read_text(encoding="utf-8"):
        raise ValueError(f"{path.name} is not written as a signature is")
    who = identity.name
    if identity.kind == "certificate":
        who = _checked_chain(bundle, identity)
    try:
        # model-signing prints what it has to say of old formats.
        with _network(), redirect_stdout(StringIO()):
            media, payload = _verifier(identity, claimed)._verify_signed_content(bundle)
    except InvalidSignature as error:
        raise ValueError(f"{path.name} does not fit what it signs, or another key made it") from error
    except crypto.X509StoreContextError as error:
        raise ValueError(
            f"the certificate of {path.name} was not issued by {identity.name} ({_line(error)})"
        ) from error
    statement = json_of(payload, path.name)
    if media != "application/vnd.in-toto+json" or statement["_type"] != "https://in-toto.io/Statement/v1":
        raise ValueError(f"{path.name} holds no in-toto statement")
    return statement, who


def _verifier(identity: Identity, claimed: Signature) -> Any:
    held: Any
    if identity.kind == "sigstore":
        return sign_sigstore.Verifier(identity=identity.name, oidc_issuer=identity.data.decode())
    if identity.kind == "certificate":
        held = _Held(identity.data)
        return sign_certificate.Verifier([held])
    ours = serialization.load_pem_public_key(identity.data).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if claimed.hint != (known := sha256(ours).hexdigest()):
        raise ValueError(f"signed with {claimed.words()}, not with {identity.name} (sha256 {known[:16]})")
    held = _Held(identity.data)
    return sign_ec_key.Verifier(held)


def _checked_chain(bundle: Any, identity: Identity) -> str:
    """Whose certificate it is; every certificate in the bundle and the one that issued the last has to be valid."""
    carried = bundle.bundle.verification_material.x509_certificate_chain.certificates
    chain = [x509.load_der_x509_certificate(entry.raw_bytes) for entry in carried]
    trusted = x509.load_pem_x509_certificates(identity.data)
    # Up to the root, which the identity's own file has to hold as it is.
    for issuer in trusted * len(trusted):
        if chain[-1].subject != chain[-1].issuer == issuer.subject:
            chain.append(issuer)
    if chain[-1] not in trusted or chain[-1].subject != chain[-1].issuer:
        raise ValueError(f"the certificate of {SIGNATURE} was not issued by {identity.name}")
    _check_certificates(chain, identity.at)
    return f"{chain[0].subject.rfc4514_string()[:200]} (certificate {chain[0].fingerprint(SHA256()).hex()[:16]})"


def _check_certificates(chain: Sequence[x509.Certificate], at: datetime) -> None:
    """Each certificate is valid at a time and issued by the next.

    Raises:
        ValueError: one is not.
    """
    for one, issuer in zip(chain, (*chain[1:], None), strict=True):
        name = one.subject.rfc4514_string()[:100]
        if not one.not_valid_before_utc <= at <= one.not_valid_after_utc:
            raise ValueError(
                f"the certificate {name} is valid from {one.not_valid_before_utc:%Y-%m-%d} to "
                f"{one.not_valid_after_utc:%Y-%m-%d}, not at {at:%Y-%m-%d}"
            )
        if issuer is None:
            continue
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ValueError(f"{name} is not issued by {issuer.subject.rfc4514_string()[:100]}") from error


def _statement(claims: Claims, hashes: dict[str, str]) -> Statement:
    subjects = [ResourceDescriptor(name=name, digest={"sha256": digest}).pb for name, digest in sorted(hashes.items())]
    return Statement(subjects=subjects, predicate_type=PREDICATE, predicate=claims.predicate)


def _manifest(name: str, hashes: dict[str, str]) -> manifest.Manifest:
    whole = manifest.SerializationType.from_args(_WHOLE)
    items = [whole.new_item(file, Digest("sha256", bytes.fromhex(digest))) for file, digest in hashes.items()]
    return manifest.Manifest(name, items, whole)


def _bundle(signed: Any) -> str:
    return str(signed.bundle.to_json())


def _private_key(path: Path, passphrase_env: str | None) -> bytes:
    """The key as PEM without its passphrase, in memory alone: model-signing takes no passphrase with a certificate."""
    data = _read(path, "private key")
    passphrase = os.environ.get(passphrase_env) if passphrase_env else None
    if passphrase_env and not passphrase:
        raise UserError(
            f"The environment variable {passphrase_env} is empty, and was to hold the passphrase of {path}."
        )
    try:
        key = serialization.load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError as error:
        missing = f"{path} has a passphrase. Name the environment variable that holds it: --passphrase-env NAME"
        raise UserError(f"{path} has no passphrase: leave out --passphrase-env." if passphrase else missing) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        reason = "the passphrase is another one, or the file is damaged" if passphrase else "no private key in PEM"
        raise UserError(f"{path} cannot be read as a private key ({reason}). Make one: {_MAKE_KEY}") from error
    _check_curve(key, str(path))
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_curve(key: Any, name: str) -> None:
    """What model-signing signs with: elliptic curves P-256, P-384 and P-521."""
    if not isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        kind = getattr(getattr(key, "curve", None), "name", type(key).__name__.strip("_").removesuffix("Key"))
        raise UserError(
            f"{name} is a key of the kind {kind}; model-signing takes P-256, P-384 and P-521. Make one: {_MAKE_KEY}"
        )


def _read(path: Path, what: str) -> bytes:
    try:
        if path.stat().st_size > _MOST_KEY:
            raise UserError(f"{path} is larger than any {what}.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The {what} {path} cannot be read ({error.strerror}).") from error


@contextmanager
def _network() -> Iterator[None]:
    """Errors of Sigstore in one line."""
    try:
        yield
    except (SigstoreError, IdentityError) as error:
        cause = error.__cause__ or error.__context__
        raise UserError(
            f"Sigstore: {_line(error)}{f' ({_line(cause)})' if cause else ''}. It needs the network; --key needs none."
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
