"""Keys and certificates for tests of signatures, made anew each time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def write_key(path: Path, key: Any = None, passphrase: bytes | None = None) -> Any:
    """Write NAME.pem and NAME.pub, of a new key on P-256 if none is given; returns the key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.with_suffix(".pem").write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, hidden))
    public = key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return key


def write_odd_keys(folder: Path) -> None:
    """Keys that model-signing does not sign with: RSA, Ed25519, and the curve of Bitcoin."""
    write_key(folder / "rsa", rsa.generate_private_key(65537, 2048))
    write_key(folder / "ed25519", ed25519.Ed25519PrivateKey.generate())
    write_key(folder / "k1", ec.generate_private_key(ec.SECP256K1()))


def write_certificates(folder: Path, since: int = -1, days: int = 365) -> None:
    """root.crt, middle.crt and leaf.crt with leaf.pem; the leaf is valid from `since` days from now for `days`."""
    now = datetime.now(UTC)
    long = (now - timedelta(days=3650), now + timedelta(days=36_500))
    short = (now + timedelta(days=since), now + timedelta(days=since + days))
    issuer_name, issuer_key = None, None
    for name, (begins, ends) in (("root", long), ("middle", long), ("leaf", short)):
        key = write_key(folder / name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{folder.name} {name}")])
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        issues = name != "leaf"
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=issues, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=issues, crl_sign=issues, decipher_only=False, **usage
                ),
                critical=True,
            )
            .sign(issuer_key or key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(_PEM))
        issuer_name, issuer_key = subject, key
