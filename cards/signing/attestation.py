"""What a signer states about a release or a student, as SLSA provenance v1 in an in-toto statement.

Reads lineage.json, or a student's training.json; writes nothing. `signing.py` here signs the statement, and compares a
signed one with what the files say now. The predicate of a `buildType` is made in the same way for ever, so that a
signature of any version can be checked: another mapping is another `buildType`.

Source: https://slsa.dev/spec/v1.0/provenance and https://github.com/in-toto/attestation/blob/main/spec/v1/.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards.card.model_card import RECORD
from cards.release_folder import open_release
from cards.signing.signatures import is_student
from pipelines.documents import read_json
from pipelines.errors import UserError, visible_value
from pipelines.runs import file_hash

PREDICATE = "https://slsa.dev/provenance/v1"
_RELEASE, _STUDENT = "urn:saferthoughts:release:v1", "urn:saferthoughts:student:v1"


@dataclass(frozen=True, slots=True)
class Claims:
    """What is stated of a folder: its name, the predicate, and the file that the predicate comes from."""

    name: str
    predicate: dict[str, Any]
    source: str


def claims_of(folder: Path) -> Claims:
    """What can be stated of a release or a student.

    Raises:
        UserError: it is neither, or its record lacks something.
    """
    source = RECORD if is_student(folder) else "lineage.json"
    try:
        if source == RECORD:
            facts = read_json(folder / RECORD)
            return Claims(folder.resolve().name, _student(facts), source)
        lineage = open_release(folder).lineage()
        return Claims(f"{lineage['title']} {lineage['version']}", _release(lineage), source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}/{source} cannot be read for a signature ({type(error).__name__}: {reason})."
        ) from error


def release_digest(folder: Path) -> str:
    """What a release is called by those who used it: the sha256 of its checksums.sha256."""
    return file_hash(folder / "checksums.sha256")


def _release(lineage: Mapping[str, Any]) -> dict[str, Any]:
    judging, code, objectives = lineage["judging"], lineage["source"], lineage.get("objectives")
    inputs = {name: entry for name, entry in lineage["inputs"].items() if name != "prompts"}
    used = [
        _used("prompts", lineage["content"]["prompts"], rows=lineage["inputs"]["prompts"]["rows"]),
        *(_used(f"instruction/{name}", entry["instruction_sha256"]) for name, entry in lineage["variants"].items()),
        *(_used(f"rubric/{name}", entry["sha256"]) for name, entry in judging["rubrics"].items()),
        # `inputs/reviews` is the human votes, `inputs/judgements` those of the judges.
        *(_used(f"inputs/{name}", entry["sha256"], rows=entry["rows"]) for name, entry in inputs.items()),
        {
            "name": "code",
            "digest": {"gitCommit": code["commit"]} if code["commit"] else {},
            "annotations": {"changed": code["dirty"]},
        },
    ]
    asked = {
        "version": lineage["version"],
        "license": lineage["license"],
        "seed": str(lineage["seed"]),
        "variants": {name: entry["teacher"] for name, entry in lineage["variants"].items()},
        "teachers": {name: _kept(entry, "model", "place", "sampling") for name, entry in lineage["teachers"].items()},
        "judges": {name: _kept(entry, "kind", "model", "place") for name, entry in judging["judges"].items()},
        "vote": judging["vote"],
        "rows": lineage["rows"],
        **({"objectives": {name: one["content"] for name, one in objectives.items()}} if objectives else {}),
        "human_votes": lineage["people"],
    }
    environment = {"packages": lineage["packages"]}
    return _provenance(_RELEASE, asked, environment, used, lineage["saferthoughts"], lineage["run_id"])


def _student(facts: Mapping[str, Any]) -> dict[str, Any]:
    dataset, student = facts["dataset"], facts["student"]
    release = dataset["release"]
    if not release or not release.get("digest"):
        raise ValueError("it names no release with a digest: train it again, on a release, with this version")
    name = f"{release['title']} {release['version']}"
    used = [
        {"name": "release", "digest": {"sha256": release["digest"]}, "annotations": {"name": name}},
        {"name": "rows", "digest": {"contentId": dataset["content"]}},
        _used("weights", student["weights_sha256"], model=student["model"]),
    ]
    return _provenance(_STUDENT, {"rows": facts["rows"]}, {}, used, facts["version"], facts["fingerprint"])


def _provenance(
    kind: str, asked: dict[str, Any], inside: dict[str, Any], used: list[dict[str, Any]], version: str, run: str
) -> dict[str, Any]:
    return {
        "buildDefinition": {
            "buildType": kind,
            "externalParameters": asked,
            "internalParameters": inside,
            "resolvedDependencies": used,
        },
        "runDetails": {
            "builder": {"id": "urn:saferthoughts", "version": {"saferthoughts": version}},
            "metadata": {"invocationId": run},
        },
    }


def _used(name: str, digest: str, **annotations: Any) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}, **({"annotations": annotations} if annotations else {})}


def _kept(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}


def in_words(predicate: Mapping[str, Any]) -> str:
    """What a checked predicate states, in a line."""
    asked = predicate["buildDefinition"]["externalParameters"]
    used = {entry["name"]: entry for entry in predicate["buildDefinition"]["resolvedDependencies"]}

    def digest(name: str) -> str:
        return f"sha256 {used[name]['digest']['sha256'][:16]}"

    if "release" in used:
        return f"trained on {used['release']['annotations']['name']} ({digest('release')})"
    who = [
        f"{what} {', '.join(str(entry['model'] or name) for name, entry in asked[what].items()) or 'none'}"
        for what in ("teachers", "judges")
    ]
    votes = used["inputs/reviews"]["annotations"]["rows"]
    commit = used["code"]["digest"].get("gitCommit")
    return (
        f"{used['prompts']['annotations']['rows']:.0f} prompts ({digest('prompts')}), {', '.join(who)}, "
        f"{votes:.0f} human votes ({digest('inputs/reviews')}), code {commit[:8] if commit else 'of no commit'}"
    )


def false_claims(signed: Any, claims: Claims) -> list[str]:
    """A line for each value of a signed predicate that is not what the folder's own record says."""
    stated, known = dict(_leaves(signed)), dict(_leaves(claims.predicate))
    return [
        f"the signer states {path or 'nothing'} {_shown(stated, path)}, {claims.source} says {_shown(known, path)}"
        for path in [*known, *(path for path in stated if path not in known)]
        if path not in stated or path not in known or stated[path] != known[path]
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value with the path to it; of a list, items go by their names."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            name = item["name"] if isinstance(item, Mapping) and "name" in item else at
            yield from _leaves(item, f"{path}[{name}]")
    else:
        yield path, value


def _shown(leaves: Mapping[str, Any], path: str) -> str:
    return repr(visible_value(leaves[path]))[:120] if path in leaves else "nothing"
