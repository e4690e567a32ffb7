"""Signing and checking by the real commands: what was changed, who signed, what they state, which keys."""

import base64
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cards.card.model_card import release_of
from cards.signing import signing
from cards.signing.attestation import Claims, claims_of
from cards.signing.signatures import PROVENANCE, SIGNATURE
from cards.verify import verify
from pipelines.runs import file_hash
from tests.cards.conftest import REPO
from tests.cards.keys import write_certificates, write_key, write_odd_keys
from tests.cards.test_model_card import FACTS
from tests.commands import command

# A release and a student, with the key that signed them, as each version left them.
OLD = Path(__file__).parents[1] / "signatures"


@pytest.fixture(scope="module")
def signed_once(released_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key.pem, key.pub, other.pub and the release that the key signed."""
    home = tmp_path_factory.mktemp("signed")
    shutil.copytree(released_once / "release", home / "release")
    write_key(home / "key")
    write_key(home / "other")
    done = command(["release", "sign", "release", "--key", "key.pem"], home)
    assert (done.returncode, done.stdout) == (0, "release: 22 files signed with the key key.pem\n"), done.stderr
    return home


@pytest.fixture
def home(signed_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(signed_once, tmp_path / "home")


def faults(home: Path, key: str = "key.pub") -> tuple[str, ...]:
    return signing.check_signature(home / "release", signing.identity_of(str(home / key))).faults


def refused(home: Path, *words: str) -> tuple[int, str]:
    """What `release WORDS` ends with, and its last line; no traceback."""
    done = command(["release", *words], home)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_signed_release_says_who_signed_it_and_how_it_came_to_be(home: Path) -> None:
    done = command(["release", "verify", "release", "--identity", "key.pub"], home)
    assert done.returncode == 0, done.stdout
    assert "release: signed by key.pub: 18 prompts (sha256 " in done.stdout
    assert "teachers rehearsal-" in done.stdout
    assert "judges rules, 0 human votes" in done.stdout
    unchecked = command(["release", "verify", "release"], home)
    assert (unchecked.returncode, "signed with a public key (sha256 " in unchecked.stdout) == (0, True)
    assert "by whom is not checked without --identity" in unchecked.stdout
    for name in (SIGNATURE, PROVENANCE):
        (home / "release" / name).unlink()
    code, lines = refused(home, "verify", "release", "--identity", "key.pub")
    assert (code, f"release is not signed (it has no {SIGNATURE})" in lines) == (1, True)


def test_the_signature_is_model_signings_own(home: Path) -> None:
    from model_signing.verifying import Config

    release = home / "release"
    verifier = Config().use_elliptic_key_verifier(public_key=home / "key.pub")
    verifier.verify(release, release / SIGNATURE)
    (release / "LICENSE").write_text("Another licence.\n")
    with pytest.raises(ValueError, match="LICENSE"):
        verifier.verify(release, release / SIGNATURE)


def test_the_statement_is_slsa_provenance_of_every_file(home: Path) -> None:
    bundle = json.loads((home / "release" / PROVENANCE).read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    files = {path.relative_to(home / "release").as_posix() for path in (home / "release").rglob("*") if path.is_file()}
    assert {entry["name"] for entry in statement["subject"]} == files - {SIGNATURE, PROVENANCE}
    used = {entry["name"]: entry for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    lineage = json.loads((home / "release" / "lineage.json").read_text())
    assert used["prompts"]["digest"]["sha256"] == lineage["content"]["prompts"]
    assert used["inputs/reviews"]["digest"]["sha256"] == lineage["inputs"]["reviews"]["sha256"]
    assert used["code"]["digest"].get("gitCommit") == lineage["source"]["commit"]


def test_any_byte_that_is_changed_is_found(home: Path) -> None:
    """A byte of every file, the ends too, and more of the signature's own; `benchmarks.signatures` does every byte."""
    drawn = random.Random(5)
    release = home / "release"
    identity = signing.identity_of(str(home / "key.pub"))
    missed = []
    for number, path in enumerate(sorted(path for path in release.rglob("*") if path.is_file())):
        size, content = path.stat().st_size, path.read_bytes()
        places = {(0, size - 1, size // 2)[number % 3]}
        if path.name == SIGNATURE:
            places = {0, size - 1, *drawn.sample(range(size), 20)}
        for place in sorted(places):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            if not signing.check_signature(release, identity).faults:
                missed.append((path.name, place))
        path.write_bytes(content)
    assert missed == []
    assert faults(home) == ()


_SHARD = "data/improved/train-00000-of-00001.parquet"
CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "added": (lambda at: (at / "more.txt").write_text("x"), "more.txt is not signed"),
    "added where git looks": (
        lambda at: (at / ".gitattributes").write_text("x"),
        ".gitattributes is not signed (a down",
    ),
    "added where downloads are": (
        lambda at: ((at / ".cache").mkdir(), (at / ".cache" / "x.json").write_text("{}")),
        ".cache/x.json is not signed",
    ),
    "added beside the signature": (lambda at: (at / f"{SIGNATURE}.json").write_text("x"), "json.json is not signed"),
    "removed": (lambda at: (at / _SHARD).unlink(), f"{_SHARD} is signed and missing"),
    "renamed": (lambda at: (at / "LICENSE").rename(at / "NOTICE"), "LICENSE is signed and missing"),
    "cut": (lambda at: os.truncate(at / "README.md", 9), "README.md is not as it was signed"),
    "lengthened": (lambda at: (at / "LICENSE").open("a").write("\n"), "LICENSE is not as it was signed"),
    "emptied folder": (lambda at: (at / "empty").mkdir(), "empty/ is an empty folder"),
    "link": (lambda at: (at / "x.txt").symlink_to("LICENSE"), "x.txt is a link"),
    "link in place": (
        lambda at: ((at / "LICENSE").rename(at.parent / "L"), (at / "LICENSE").symlink_to(at.parent / "L")),
        "LICENSE is a link",
    ),
    "pipe": (lambda at: os.mkfifo(at / "x.txt"), "x.txt is a link or no file"),
    "socket": (lambda at: socket.socket(socket.AF_UNIX).bind(str(at / "x.txt")), "x.txt is a link or no file"),
    "provenance removed": (lambda at: (at / PROVENANCE).unlink(), f"{PROVENANCE} is signed and missing"),
    "signature removed": (lambda at: (at / SIGNATURE).unlink(), "is not signed"),
    "signature emptied": (lambda at: (at / SIGNATURE).write_text(""), "no signature that can be read"),
    "signature of JSON": (lambda at: (at / SIGNATURE).write_text("[" * 9000), "no signature that can be read"),
    "signature with a space": (lambda at: (at / SIGNATURE).open("a").write(" "), "is not written as a signature is"),
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_whatever_else_is_changed_is_found(
    change: Callable[[Path], object], expected: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    change(Path("release"))
    assert expected in "\n".join(faults(home))


def test_who_changes_and_signs_again_is_found(home: Path) -> None:
    other = shutil.copytree(home / "release", home / "other")
    (home / "release" / "data" / "improved").joinpath("x.txt").write_text("x")
    signing.sign(home / "release", signing.key_signer(home / "other.pem"))
    assert verify(home / "release").faults == ("data/improved/x.txt is not in checksums.sha256",)
    assert "signed with a public key (sha256 " in faults(home)[0]
    # With the hint of the right key, and with another release's signature by the right one.
    ours = (home / "other" / SIGNATURE).read_text()
    hint = json.loads(ours)["verificationMaterial"]["publicKey"]["hint"]
    for name in (SIGNATURE, PROVENANCE):
        text = (home / "release" / name).read_text()
        theirs = json.loads(text)["verificationMaterial"]["publicKey"]["hint"]
        (home / "release" / name).write_text(text.replace(theirs, hint))
    assert "another key made it" in faults(home)[0]
    (other / "LICENSE").write_text("Another licence.\n")
    signing.sign(other, signing.key_signer(home / "key.pem"))
    for name in (SIGNATURE, PROVENANCE):
        shutil.copy(other / name, home / "release" / name)
    assert "LICENSE is not as it was signed" in faults(home)


def test_a_false_statement_is_named_value_by_value(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = home / "release"
    true = claims_of(release)
    false = json.loads(json.dumps(true.predicate))
    asked, used = (false["buildDefinition"][name] for name in ("externalParameters", "resolvedDependencies"))
    next(iter(asked["teachers"].values()))["model"] = "other-r1"
    next(entry for entry in used if entry["name"] == "inputs/reviews")["annotations"]["rows"] = 500
    next(entry for entry in used if entry["name"] == "code")["digest"] = {"gitCommit": "0" * 40}
    asked["vouched_by"] = "nobody"
    with monkeypatch.context() as patch:
        patch.setattr(signing, "claims_of", lambda folder: Claims(true.name, false, true.source))
        signing.sign(release, signing.key_signer(home / "key.pem"))
    code, lines = refused(home, "verify", "release", "--identity", "key.pub")
    assert code == 1
    where = "the signer states buildDefinition."
    assert f"{where}externalParameters.teachers.rehearsal.model 'other-r1', lineage.json says 'rehearsal-r1'" in lines
    assert f"{where}resolvedDependencies[inputs/reviews].annotations.rows 500.0, lineage.json says 0" in lines
    assert f"{where}resolvedDependencies[code].digest.gitCommit '{'0' * 40}', lineage.json says" in lines
    assert f"{where}externalParameters.vouched_by 'nobody', lineage.json says nothing" in lines
    assert "saferthoughts: 4 of " in lines


def test_keys_that_cannot_be_used_are_refused_in_a_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_odd_keys(home)
    write_key(home / "hidden", passphrase=b"hush-hush")
    monkeypatch.setenv("WRONG", "loud")
    monkeypatch.setenv("RIGHT", "hush-hush")
    before = (home / "release" / SIGNATURE).read_bytes()
    for words, expected in (
        ((), "Sign with what?"),
        (("--key", "key.pem", "--sigstore"), "Sign with what?"),
        (("--key", "rsa.pem"), "rsa.pem is a key of the kind RSA"),
        (("--key", "ed25519.pem"), "model-signing takes P-256, P-384 and P-521"),
        (("--key", "k1.pem"), "of the kind secp256k1"),
        (("--key", "key.pub"), "no private key in PEM"),
        (("--key", "gone.pem"), "The private key gone.pem cannot be read (No such file"),
        (("--key", "hidden.pem"), "--passphrase-env NAME"),
        (("--key", "hidden.pem", "--passphrase-env", "WRONG"), "the passphrase is another one"),
        (("--key", "hidden.pem", "--passphrase-env", "UNSET"), "UNSET is empty"),
        (("--key", "key.pem", "--passphrase-env", "RIGHT"), "has no passphrase: leave out"),
        (("--key", "key.pem", "--chain", "key.pub"), "--chain goes with --certificate"),
        (("--key", "release/LICENSE"), "would be published with it"),
        (("--sigstore", "--identity-token-env", "UNSET"), "UNSET is empty. Sigstore signs for an OpenID token"),
    ):
        code, lines = refused(home, "sign", "release", *words)
        assert (code, expected in lines, lines.count("\n")) == (2, True, 1), lines
        assert "hush-hush" not in lines
    for identity, expected in (
        ("key.pem", "holds a private key"),
        ("ed25519.pub", "model-signing takes"),
        ("release/LICENSE", "neither a public key nor certificates"),
        ("gone.pub", "cannot be read (No such file"),
        ("me@example.org", "--issuer https://"),
    ):
        code, lines = refused(home, "verify", "release", "--identity", identity)
        assert (code, expected in lines, lines.count("\n")) == (2, True, 1), lines
    assert (home / "release" / SIGNATURE).read_bytes() == before
    assert refused(home, "sign", "release", "--key", "hidden.pem", "--passphrase-env", "RIGHT")[0] == 0
    assert faults(home, "hidden.pub") == ()


def test_sigstore_without_a_network_is_refused_in_a_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_CI", "not-a-token")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(home))
    code, lines = refused(home, "sign", "release", "--sigstore", "--identity-token-env", "TOKEN_OF_CI")
    assert (code, "Sigstore: " in lines, "--key needs none" in lines) == (2, True, True), lines


def test_certificates_are_held_to_their_chain_and_their_dates(home: Path) -> None:
    for name, since, days in (("ours", -1, 365), ("theirs", -1, 365), ("past", -30, 10)):
        (home / name).mkdir()
        write_certificates(home / name, since, days)

    def sign(name: str, chain: str, key: str = "leaf") -> tuple[int, str]:
        words = ("--key", f"{name}/{key}.pem", "--certificate", f"{name}/leaf.crt", "--chain", f"{chain}/middle.crt")
        return refused(home, "sign", "release", *words)

    def check(*words: str) -> tuple[int, str]:
        return refused(home, "verify", "release", "--identity", *words)

    assert (sign("past", "past")[0], "not at 2" in sign("past", "past")[1]) == (2, True)
    assert "CN=ours leaf is not issued by CN=theirs middle" in sign("ours", "theirs")[1]
    assert "does not match" in sign("ours", "ours", key="middle")[1]
    code, lines = sign("ours", "ours")
    assert (code, lines.splitlines()[0]) == (0, "release: 22 files signed with the certificate ours/leaf.crt")
    code, lines = check("ours/root.crt")
    assert (code, "release: signed by CN=ours leaf (certificate " in lines) == (0, True)
    assert "was not issued by theirs/root.crt" in check("theirs/root.crt")[1]
    assert "was made with a certificate, which key.pub cannot check" in check("key.pub")[1]
    assert check("ours/root.crt", "--at", "2001-01-01")[0] == 1
    # Every byte of the chain that the signature carries counts.
    text = (home / "release" / SIGNATURE).read_text()
    chain = json.loads(text)["verificationMaterial"]["x509CertificateChain"]["certificates"]
    identity = signing.identity_of(str(home / "ours" / "root.crt"))
    for entry in chain:
        for place in range(0, len(entry["rawBytes"]) - 4, 97):
            raw = entry["rawBytes"]
            other = raw[:place] + ("B" if raw[place] != "B" else "C") + raw[place + 1 :]
            (home / "release" / SIGNATURE).write_text(text.replace(raw, other))
            assert signing.check_signature(home / "release", identity).faults, place
    # A root of the same name is another root.
    (home / "again" / "ours").mkdir(parents=True)
    write_certificates(home / "again" / "ours")
    (home / "release" / SIGNATURE).write_text(text)
    assert "CN=ours middle is not issued by CN=ours root" in check("again/ours/root.crt")[1]


def test_a_student_is_followed_back_to_prompts_and_votes(home: Path) -> None:
    student = home / "student"
    (student / "eval").mkdir(parents=True)
    (student / "eval" / "results.json").write_text("{}")
    (student / "model.safetensors").write_bytes(b"weights")
    facts = FACTS | {"fingerprint": "abc", "dataset": FACTS["dataset"] | {"release": release_of(home / "release")}}
    (student / "training.json").write_text(json.dumps(facts))
    lines = refused(home, "sign", "student", "--key", "key.pem")[1]
    assert lines.splitlines()[0] == "student: 3 files signed with the key key.pem"
    check = ("verify", "student", "--identity", "key.pub")
    code, lines = refused(home, *check, "--release", "release")
    assert code == 0, lines
    digest = file_hash(home / "release" / "checksums.sha256")[:16]
    assert f"signed by key.pub: trained on {facts['dataset']['release']['title']} 1.0.0 (sha256 {digest})" in lines
    assert "that release is signed by key.pub: 18 prompts (sha256 " in lines
    # What is measured later is no part of it; all else is.
    (student / "eval" / "logs.json").write_text("{}")
    assert refused(home, *check)[0] == 0
    assert "is a student" in refused(home, "verify", "student")[1]
    (student / "model.safetensors").write_bytes(b"Weights")
    assert "model.safetensors is not as it was signed" in refused(home, *check)[1]
    # A release that is another one, or by somebody else, ends the chain.
    (student / "model.safetensors").write_bytes(b"weights")
    signing.sign(home / "release", signing.key_signer(home / "other.pem"))
    code, lines = refused(home, *check, "--release", "release")
    assert (code, "not with key.pub" in lines) == (1, True)
    sums = home / "release" / "checksums.sha256"
    sums.write_text("".join(reversed(sums.read_text().splitlines(keepends=True))))
    signing.sign(home / "release", signing.key_signer(home / "key.pem"))
    code, lines = refused(home, *check, "--release", "release")
    assert (code, "student was trained on another release (sha256 " in lines) == (1, True), lines
    facts["dataset"]["release"] = None
    (student / "training.json").write_text(json.dumps(facts))
    assert "names no release with a digest" in refused(home, "sign", "student", "--key", "key.pem")[1]


def test_a_signed_release_is_published_pulled_and_still_signed(hub: Any, home: Path) -> None:
    assert hub.run("publish", str(home / "release"), "--repo", REPO).returncode == 0
    assert hub.run("pull", f"{REPO}@v1.0.0", "--to", "pulled").returncode == 0
    done = hub.run("release", "verify", "pulled", "--identity", str(home / "key.pub"))
    assert (done.returncode, "signed by " in done.stdout) == (0, True), done.stdout
    by_address = hub.run("release", "verify", REPO, "--identity", str(home / "key.pub"))
    assert (by_address.returncode, "signed by " in by_address.stdout) == (0, True), by_address.stdout
    # Signed anew it is another content of the same version.
    signing.sign(home / "release", signing.key_signer(home / "other.pem"))
    again = hub.run("publish", str(home / "release"), "--repo", REPO)
    assert (again.returncode, "a tag is never moved" in again.stderr) == (2, True)
    (home / "release" / SIGNATURE).unlink()
    broken = hub.run("publish", str(home / "release"), "--repo", "acme/other")
    assert (broken.returncode, "the signature cannot be read" in broken.stderr) == (2, True)


@pytest.mark.parametrize("version", sorted(path.name for path in OLD.iterdir()))
def test_signatures_of_every_version_hold_for_ever(version: str) -> None:
    at = OLD / version
    code, lines = refused(at, "verify", "student", "--identity", "key.pub", "--release", "release")
    assert (code, "student: signed by key.pub: trained on " in lines) == (0, True), lines
    code, lines = refused(at, "verify", "release", "--identity", "key.pub")
    assert (code, "release: signed by key.pub: 2 prompts (sha256 " in lines) == (0, True), lines
