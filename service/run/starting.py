"""Requests for runs turned into what the command line does: a new run, an estimate, a release's recipe again."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.prompts.prompt_files import load_pool
from pipelines.prompts.prompt_sets import draw
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import load_judges
from pipelines.settings.old_names import current_name
from pipelines.settings.parts import validated
from pipelines.settings.resolving import resolve
from saferthoughts.regeneration import regenerate
from saferthoughts.run import Run
from saferthoughts.settings import Agreement
from service.app_state import AppState
from service.http.downloads import plain
from service.http.problems import Problem
from service.http.shapes import AnsweredAgain, Budget, NewRun, PulledAgain, Wanted
from service.http.tokens import Caller
from service.jobs.jobs import cli_arguments
from service.jobs.queue import Job
from service.releases import releases


def configured(state: AppState, wanted: Wanted) -> RunConfig:
    """A request's configuration, resolved: teachers, judges and prompt sets by name.

    Raises:
        UserError: an unknown name, or values that do not go together.
    """
    values: dict[str, Any] = wanted.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    prompts = values.setdefault("prompts", {})
    if prompts.get("files"):
        raise UserError("prompts.files names places, and a request takes none: name a prompt set as prompts.source.")
    prompts["source"] = state.prompt_source(prompts.get("source", "bundled"))
    return resolve(validated(RunConfig, values, "the request"), state.known_teachers())


def start(state: AppState, wanted: NewRun, caller: Caller) -> Job:
    """Make a run's folder and queue its work.

    Raises:
        Problem: 409, there is a run of that name.
        UserError: what the command line would say.
    """
    _check_free(state, wanted.name)
    config = configured(state, wanted.config)
    with state.starting:
        _check_free(state, wanted.name)
        run = Run.from_config(wanted.name, config, runs=state.runs).folder
    return go_on(state, run, "run", wanted.budget, caller)


def again(
    state: AppState,
    wanted: AnsweredAgain,
    folder: Path,
    caller: Caller,
    judges: Mapping[str, str] | None = None,
    agree: Agreement = True,
) -> Job:
    """The recipe of a release with another teacher.

    Args:
        folder: The release.
        judges: Who judges in a judge's name.
        agree: As `saferthoughts.regenerate` has it; of this service's own releases the request is consent enough.

    Raises:
        Problem: 409, there is a run of the new name.
        UserError: what the command line would say.
    """
    with state.starting:
        _check_free(state, wanted.name)
        regenerate(
            folder,
            wanted.name,
            teacher=wanted.teacher,
            general_teacher=wanted.general_teacher,
            teachers=state.settings.teachers,
            judges=judges,
            runs=state.runs,
            agree=agree,
        )
    return go_on(state, state.run(wanted.name), "run", wanted.budget, caller)


class Preview(UserError):
    """What will be asked of whom, and its digest, which agrees to it."""

    def __init__(self, text: str, digest: str) -> None:
        super().__init__("Nothing was begun: agree to what is shown.")
        self.text, self.digest = text, digest


def pulled_again(state: AppState, name: str, wanted: PulledAgain, caller: Caller) -> Job:
    """The recipe of a pulled release with a teacher of ours, in the very words that were agreed to.

    Raises:
        Preview: they were not, or are others by now.
        Problem: 404, it is not here; 409, there is a run of the new name.
        UserError: what the command line would say.
    """
    folder = releases.here(state, name)

    def agree(text: str) -> None:
        shown = text.replace(str(folder), releases.address_of(name))
        digest = sha256(shown.encode("utf-8", "replace")).hexdigest()
        if digest != wanted.agreed:
            raise Preview(shown, digest)

    return again(state, wanted, folder, caller, wanted.judges, agree)


def go_on(state: AppState, run: RunFolder, action: str, budget: Budget, caller: Caller) -> Job:
    """Queue every stage of a run that is missing."""
    arguments = cli_arguments("run", run.name, max_cost=budget.max_cost, max_tokens=budget.max_tokens)
    return state.put(run, action, arguments, caller.name)


def _check_free(state: AppState, name: str) -> None:
    if (state.runs / name).exists():
        raise Problem(409, f"There is a run '{name}' under {state.runs.name}/ already. Give the new one another name.")


def release_of(run: RunFolder) -> Path:
    """The folder of a run's release.

    Raises:
        Problem: 409, there is none yet.
    """
    folder = plain(run.path / "release")
    if not (folder / "lineage.json").exists():
        raise Problem(409, f"{run.name} has no release yet. Build one: saferthoughts release build {run.name}")
    return folder


@dataclass(frozen=True, slots=True)
class Forecast:
    """Responses planned and to be asked for, and tokens and US dollars for those where `sampled` answers tell.

    `asked` names the teachers, `unpriced` those among them whose answers have no known cost.
    """

    planned: int
    missing: int
    sampled: int
    tokens: float | None
    cost: float | None
    asked: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()

    def message(self) -> str:
        """One line for a page."""
        asked = f"{self.missing} of {self.planned} responses are to be asked for"
        if self.tokens is None:
            return f"{asked}; how many tokens that takes is not known before each variant has an answer"
        cost = "" if self.cost is None else f" and ${self.cost:.2f}"
        without = f" (no price for {', '.join(self.unpriced)})" if self.unpriced else ""
        return f"{asked}: about {self.tokens:,.0f} tokens{cost}{without}, by the mean of {self.sampled} answers"


LOOKS_FOR = {
    "local": "the five patterns, by a classifier on this machine's CPU; not whether a response is unsafe",
    "rules": "the five patterns and refusals, by rules, without asking anybody; not whether a response is unsafe",
    "patterns": "the five patterns, and over-refusal of benign prompts",
    "safety": "whether a response is unsafe as a whole",
}
"""What a judge of each kind looks for."""


def warnings(state: AppState, wanted: Wanted) -> list[str]:
    """What a run like this would lack.

    Raises:
        UserError: what starting it would say.
    """
    config = configured(state, wanted)
    known = load_judges() | config.judges
    kinds = {known[name].kind for name in config.judging.judges if name in known}
    if "safety" in kinds:
        return []
    safety = ", ".join(name for name, entry in known.items() if entry.kind == "safety")
    return [
        "Nobody looks for unsafe responses: none of these judges judges safety, so rows that are unsafe as a whole are "
        f"kept, and the release cannot say how many they are. Judges of safety: {safety}."
    ]


def estimate(state: AppState, wanted: Wanted) -> Forecast:
    """What a run like this would ask for, and take by the answers that other runs here have of the same models.

    Raises:
        UserError: what starting it would say.
    """
    config = configured(state, wanted)
    pool = load_pool(config.prompts.source, config.prompts.kind)
    drawn = draw(pool, config.prompts.harmful, config.prompts.benign, config.seed, config.prompts.bare_share)
    harmful = sum(prompt.kind == "harmful" for prompt in drawn)
    wanted_rows = [*((name, harmful) for name in config.variants), (config.benign_variant, len(drawn) - harmful)]
    known = _means(state, {teacher.model for teacher in config.teachers.values()})
    planned = missing = sampled = 0
    tokens: float | None = 0.0
    cost: float | None = 0.0
    asked: set[str] = set()
    for variant, prompts in wanted_rows:
        teacher = config.teacher_of(variant)
        planned += prompts * (1 if teacher is None else config.samples)
        if teacher is None or not prompts:
            continue
        asked.add(teacher)
        requests = prompts * config.samples
        missing += requests
        entry = config.teachers[teacher]
        mean = known.get((entry.model, variant))
        if mean is None:
            tokens = cost = None
            continue
        count, given, taken = mean
        sampled += count
        if tokens is not None:
            tokens += requests * (given + taken)
        if cost is not None and entry.price is not None:
            cost += requests * entry.price.of(round(given), round(taken))
    unpriced = tuple(sorted(name for name in asked if config.teachers[name].price is None))
    if len(unpriced) == len(asked):
        cost = None
    return Forecast(planned, missing, sampled, tokens, cost, tuple(sorted(asked)), unpriced)


def _means(state: AppState, models: set[str]) -> dict[tuple[str, str], tuple[int, float, float]]:
    """By model and variant: how many answers of other runs were looked at, and their mean tokens in and out."""
    import duckdb

    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    with duckdb.connect(config={"threads": 1, "memory_limit": "256MB"}) as db:
        for path in state.runs.glob("*/responses.parquet"):
            # A run whose table is broken is shown as that; an estimate goes by the others.
            with suppress(duckdb.Error):
                found = db.execute(
                    "SELECT model, variant, count(*), sum(input_tokens), sum(output_tokens) FROM read_parquet($path) "
                    "WHERE attempt = 0 AND model IN (SELECT unnest($models)) GROUP BY ALL",
                    {"path": str(path), "models": sorted(models)},
                ).fetchall()
                for model, name, *counted in found:
                    variant = current_name(name)
                    rows, given, taken = sums.get((model, variant), (0, 0, 0))
                    sums[model, variant] = (rows + counted[0], given + int(counted[1]), taken + int(counted[2]))
    return {key: (rows, given / rows, taken / rows) for key, (rows, given, taken) in sums.items()}
