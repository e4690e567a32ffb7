"""The plan of a study before anything starts: each step's commands, requests, dollars, GPU-hours; what is missing.

Reads the steps, the ledgers of runs that exist, teachers' prices and the environment; draws prompts into a scratch
folder. Writes nothing that stays. Whatever is assumed is named in the plan.
"""

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.doctor import teacher_finding
from pipelines.errors import UserError
from pipelines.files import scratch_folder
from pipelines.judges.guard_forms import guard_of
from pipelines.runner.estimate import Kind, Known, Load, estimated, load_of, survey
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import load_judges
from pipelines.settings.overrides import settings_of
from pipelines.settings.teacher import Teacher, load_teachers
from pipelines.study import mean_length
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.vllm_server import NO_VLLM, vllm_program
from saferthoughts.studies.placement import (
    Placement,
    Pool,
    billions,
    placements,
    port_at,
    problems_of,
    served_gb,
    server_lines,
)
from saferthoughts.studies.steps import Step, Study, recipe_settings, untrained
from saferthoughts.studies.work import state_of

# Assumptions, where nothing was measured: output tokens of one answer by a reasoning model of 7 to 32 B.
_ANSWER = {"none": 800, "pap": 900, "pair": 900, "xstest": 600, "math500": 3500, "aime24": 11000, "livecodebench": 9000}
_PROMPT, _ROLE_TOKENS = 150, {"guard": (1200, 10), "judge": (700, 100), "attacker": (900, 350)}
# Output tokens a second that vLLM makes of a model of 1 B on one GPU at full batches; a model of N B makes 1/N of it.
_DECODED_PER_S = 17_500
_GPU = "A100"
# What two methods are taken to have, about; and by how much trainings of one differ, as a standard deviation.
_RATE, _SPREAD = 0.2, 0.03
_PAIR_REQUESTS = 25
_GATED = ("meta-llama/", "google/", "mistralai/")


class Takes(NamedTuple):
    """What a step takes. `hours` are GPU-hours, None where a model's size is unknown; `asked` are entries by name."""

    load: Load = Load()
    hours: float | None = 0.0
    asked: Mapping[str, Teacher] = {}
    note: str = ""

    def words(self) -> str:
        """For the terminal."""
        parts = [f"{self.load.requests:,.0f} requests, {self.load.words()}"] if self.load.requests else []
        parts += ["GPU-hours unknown"] if self.hours is None else []
        if self.hours:
            parts.append(f"{self.hours:,.2f} GPU-hours" if self.hours >= 0.01 else "under 0.01 GPU-hours")
        return "; ".join([*parts, *filter(None, [self.note])]) or "no requests"


def plan_lines(study: Study, pool: Pool, there: Collection[str] = ()) -> Iterator[str]:
    """The plan, line by line, on the GPUs of `pool`; steps that are `there` are kept elsewhere.

    Raises:
        UserError: a suite, task, judge or teacher that is not there.
    """
    todo = [step for step in study.steps.values() if not state_of(step).settled and step.name not in there]
    takes = {step.name: _takes(study, step) for step in todo}
    yield f"{study.spec.title or study.name}: {len(study.steps)} steps, {len(todo)} to do"
    for number, step in enumerate(study.steps.values(), 1):
        yield f"{number} {step.label}: {takes[step.name].words() if step in todo else 'done'}"
        for words in step.commands if step in todo else ():
            shown = [f"{word[:40]}..." if "\n" in word else word for word in words]
            program = f"{step.launch} -m saferthoughts" if step.launch else "saferthoughts"
            yield f"    {program} --runs {study.runs} {shlex.join(shown)}"
    hours = sum(one.hours or 0.0 for one in takes.values())
    yield f"In all: {Takes(sum((one.load for one in takes.values()), Load()), hours).words()}"
    yield from _assumed(hours, any(one.hours is None for one in takes.values()))
    yield from _further(study)
    placed = placements(study, {name: one.asked for name, one in takes.items()}, pool)
    yield from server_lines(study, placed, pool)
    yield "Missing:"
    started = {one.name for each in placed.values() for one in each.servers}
    asked = {name: entry for one in takes.values() for name, entry in one.asked.items() if name not in started}
    no_vllm = [NO_VLLM] if started and vllm_program() is None else []
    yield from (
        f"  {line}" for line in [*problems_of(placed), *no_vllm, *_missing(study, todo, asked, pool)] or ["nothing"]
    )
    yield "What it can show:"
    yield from (f"  {line}" for line in power_lines(study))


def placed_servers(study: Study, pool: Pool, there: Collection[str] = ()) -> dict[str, Placement]:
    """By step that is to do and not `there`, elsewhere, the servers that are started for it.

    Raises:
        UserError: they do not fit on the GPUs, or there is no such entry.
    """
    todo = [step for step in study.steps.values() if not state_of(step).settled and step.name not in there]
    placed = placements(study, {step.name: _asked(study, step) for step in todo}, pool)
    if problems := problems_of(placed):
        raise UserError(f"{'; '.join(problems)}. `saferthoughts study plan` shows where each goes.")
    return placed


def _asked(study: Study, step: Step) -> Mapping[str, Teacher]:
    if step.kind == "data":
        config = study.config(step)
        return {**config.teachers, **config.judge_teachers}
    return _roles(study.params[step.name])[1] if step.kind == "eval" else {}


def _takes(study: Study, step: Step) -> Takes:
    if step.kind == "data":
        config, asked = study.config(step), _asked(study, step)
        if step.needs:
            return Takes(asked=asked, note="asks only for what the reused run has no answer for; not counted")
        load, note = _run_load(study.runs / step.labels["folder"], study.params[step.name], config)
        return Takes(load, 0.0, asked, note)
    student, _ = study.parts(step)
    size = billions(untrained(student)) or billions(step.labels["student"])
    if step.kind == "train":
        return Takes(hours=None if size is None else _training_hours(study, step, size))
    tokens = sum(
        questions * each * (1 + _PAIR_REQUESTS * (task == "pair")) * min(_ANSWER.get(task, 200), most)
        for task, (questions, each, most) in questions_of(study.params[step.name]).items()
    )
    load, asked = _roles(study.params[step.name])
    return Takes(load, None if size is None else tokens * size / _DECODED_PER_S / 3600, asked)


def _run_load(there: Path, params: Mapping[str, Any], config: RunConfig) -> tuple[Load, str]:
    """What a run asks: by its ledger where there is one, else by prompts drawn aside, else by their number alone, with
    the reason."""
    from pipelines.prompts.stage import start

    note = ""
    with scratch_folder("plan") as work:
        if (there / "ledger.sqlite").exists() and (there / "prompts.parquet").exists():
            with Ledger.reading(there / "ledger.sqlite") as ledger:
                found = survey(RunFolder(there), config, ledger)
        else:
            ledger = Ledger(work / "ledger.sqlite")
            try:
                found = survey(start(work, "plan", config).run, config, ledger)
            except UserError as error:
                note = f"by the number of prompts alone: {error}"
                rows = [(name, False, params["harmful"] or 0) for name in config.variants]
                kinds = tuple(_counted([*rows, (config.benign_variant, True, params["benign"] or 0)], config))
                found = estimated(config, ledger, sum(kind.planned for kind in kinds), kinds)
    return found.generation + found.judging + found.repair, note


def _counted(rows: Sequence[tuple[str, bool, int]], config: RunConfig) -> Iterator[Kind]:
    """Rows whose prompts are not there yet, of the published lengths."""
    for name, benign, count in rows:
        teacher = config.teacher_of(name)
        if teacher and count:
            yield Kind(teacher, name, benign, count, count, 0, float(_PROMPT), mean_length(name, benign), None, 0)


def questions_of(params: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """By task of an evaluation, given its command's parameters: questions, answers to each, most tokens of one."""
    from eval.protocols import PAPER, SHORT, parsed, settings
    from eval.report.paper_results import QUESTIONS
    from eval.suites import QUICK, TASKS, chosen_tasks

    found, overrides = {}, parsed(params["sets"] or (), TASKS)
    for task in chosen_tasks(params["suite"], params["tasks"] or ()):
        bundled = params["suite"] == QUICK and not any(one.startswith(f"{task}=") for one in params["data"] or ())
        chosen = settings(params["protocol"] or (SHORT if bundled else PAPER), task, overrides)
        number = _bundled(task) if bundled else QUESTIONS.get(task, 0)
        number = min(number, params["limit"] or number)
        found[task] = number, int(chosen.get("epochs", 1)), int(chosen.get("max_tokens", 4096))
    return found


@cache
def _bundled(task: str) -> int:
    from eval.run.planning import Wanted
    from eval.run.planning import plan as planned

    return planned(Wanted(tasks=(task,), trained=frozenset()))[0].built.data.questions


def _roles(params: Mapping[str, Any]) -> tuple[Load, dict[str, Teacher]]:
    """What guard, judge and attacker of an evaluation are asked at most, and their entries."""
    judges = {task: name for task, _, name in (one.rpartition("=") for one in params["judge"] or ())}
    counts: Counter[tuple[str, str | None]] = Counter()
    for task, (questions, each, _) in questions_of(params).items():
        turns = _PAIR_REQUESTS if task == "pair" else 1
        if task in ("none", "pap", "pair"):
            counts["guard", params["guard"]] += questions * each
        if task in ("pair", "xstest"):
            counts["judge", judges.get(task, judges.get(""))] += questions * each * turns
        if task == "pair":
            counts["attacker", params["attacker"]] += questions * each * turns
    entries, known, load, asked = load_teachers(params["teachers"]), load_judges(), Load(), {}
    for (role, who), count in counts.items():
        if who is None or who == "rules":
            continue
        entry = str(known[who].teacher) if who in known else who
        if entry not in entries:
            raise UserError(f"The study's evaluations ask '{who}', which is no judge and no teacher.")
        asked[entry] = entries[entry]
        if role == "guard" and who in known and known[who].form:
            count *= len(guard_of(known[who]).parts)
        load += load_of(entry, entries[entry], Known({}, {}), count, *_ROLE_TOKENS[role])
    return load, asked


def _training_hours(study: Study, step: Step, size: float) -> float:
    from training.mixtures.mixture_rows import load_blend
    from training.recipes.recipe import load_recipe
    from training.trainer.estimate import PEAKS, USUAL_SHARE, flops_of

    student, method = study.parts(step)
    recipe = load_recipe(str(student.recipe), settings_of(recipe_settings(student, method, step.labels["seed"])))
    blend = load_blend(recipe.mixture)
    tokens = sum(rows * (_PROMPT + mean_length(name, name == "benign")) for name, rows in blend.release.items())
    tokens += sum(part.rows for part in blend.further) * mean_length("benign", True)
    trained = size * 1e9 if recipe.lora is None else 0
    flops = flops_of(int(size * 1e9), int(trained), int(tokens * recipe.epochs))
    return flops / (PEAKS[_GPU] * USUAL_SHARE["cuda"]) / 3600


def _assumed(hours: float, unknown: bool) -> Iterator[str]:
    from training.trainer.estimate import PEAKS, USUAL_SHARE

    if unknown:
        yield "  GPU-hours of models without a size in their name are not counted"
    if hours:
        answers = ", ".join(f"{task} {tokens}" for task, tokens in _ANSWER.items())
        yield (
            f"  assumed, not measured: trainings at {USUAL_SHARE['cuda']:.0%} of {PEAKS[_GPU] / 1e12:.0f} TFLOP/s "
            f"({_GPU}); {_DECODED_PER_S / 7:,.0f} output tokens/s of a model of 7 B there, in proportion to size; "
            f"answers of {answers} tokens; rows as long as the study's"
        )


def _further(study: Study) -> Iterator[str]:
    """What a seed more, and as many questions again, would take."""
    first = str(study.spec.seeds[0])
    seed = [_takes(study, step) for step in study.steps.values() if step.labels.get("seed") == first]
    asked = [_takes(study, step) for step in study.of("eval")]
    for what, takes in ((f"a seed more (--set seeds=[{first},...])", seed), ("as many questions again", asked)):
        if takes:
            load, hours = sum((one.load for one in takes), Load()), sum(one.hours or 0.0 for one in takes)
            yield f"  {what} would take {Takes(load, hours).words()} more"


def _missing(study: Study, todo: Sequence[Step], asked: Mapping[str, Teacher], pool: Pool) -> Iterator[str]:
    for name, entry in asked.items():
        found = teacher_finding(name, entry)
        port, gb = port_at(entry), served_gb(entry.model)
        serve = f"; start it: saferthoughts teachers serve {entry.model} --port {port} --run" if port else ""
        if not found.there:
            yield f"{found.thing}: {found.state}{serve}" + (f" ({gb:.0f} GB)" if gb and port else "")
    for step in todo:
        for key in ("prompts", "harmful_file", "templates_file", "benign_file") if step.kind == "data" else ():
            place = str(study.params[step.name][key] or "bundled").partition("?")[0]
            if place != "bundled" and not Path(place).exists() and (Path(place).suffix or "/" not in place):
                yield f"{step.label}: there is no file {place}; docs/prompts.md says where it comes from"
    models = [untrained(study.parts(step)[0]) for step in todo if step.kind != "data"]
    gated = sorted({one for one in (*models, *(entry.model for entry in asked.values())) if one.startswith(_GATED)})
    if gated and not os.environ.get("HF_TOKEN"):
        yield f"HF_TOKEN is not set; gated on the Hub, whose terms you accept there: {', '.join(gated)}"
    large = sorted({name for name in models if (billions(name) or 0) >= 1})
    if large and not pool.names:
        yield f"no GPU is seen, for {', '.join(large)}"
    for number, labels in sorted(_too_many(todo, pool).items()):
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield f"{labels[0]}{more}: written for {number} GPUs, and {len(pool.names)} are there"
    weights = sum(2 * (billions(untrained(study.parts(step)[0])) or 0) for step in todo if step.kind == "train")
    place = next(str(path) for path in (study.folder, *study.folder.resolve().parents) if path.exists())
    if weights > (free := shutil.disk_usage(place).free / 1e9):
        yield f"disk: the students take about {weights:,.0f} GB, and {place} has {free:,.0f} GB free"


def _too_many(todo: Sequence[Step], pool: Pool) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for step in todo:
        if 0 < len(pool.names) < step.gpus:
            found.setdefault(step.gpus, []).append(step.label)
    return found


def power_lines(study: Study, spread: float | None = None) -> Iterator[str]:
    """Which differences so many questions cannot show at all (exact McNemar, p < 0.05, paired by question), and which
    so many seeds are likely to; `spread` is how much trainings were seen to differ, as a standard deviation."""
    from pipelines.crossed import needed
    from pipelines.statistics import detectable

    least_for_ten = next(number for number in range(20, 1000) if (detectable(number) or 1) <= 0.1)
    tasks = {name: one[0] for step in study.of("eval") for name, one in questions_of(study.params[step.name]).items()}
    for task, number in tasks.items():
        least = detectable(number)
        below = "no difference" if least is None else f"no difference below {100 * least:.0f} points"
        yield (
            f"{task}, {number} questions: {below} between two students can show; 10 points take {least_for_ten} at "
            "least"
        )
    if not study.of("train"):
        return
    if len(study.spec.seeds) == 1:
        yield "one seed: what shows is a difference of these trainings; one of methods takes 2 seeds or more"
    trainings = _SPREAD if spread is None else spread
    for number in dict.fromkeys(number for number in tasks.values() if number > 1):
        seeds = sorted({2, 3, 5, max(2, len(study.spec.seeds))})
        shown = [f"{_points(needed(one, number, _RATE, trainings))} with {one}" for one in seeds]
        more = f"{_points(needed(3, 4 * number, _RATE, trainings))} with 3 and {4 * number} questions"
        yield f"{number} questions, by seeds: {', '.join([*shown, more])} (points of difference found 8 times of 10)"
    how = "measured" if spread is not None else "assumed, not measured"
    yield (
        f"{how}: trainings of one method differ by {100 * trainings:.1f} points (standard deviation); assumed: rates "
        f"about {_RATE:.0%}, half of an answer's variance is its question's, of which methods share half"
    )


def _points(share: float) -> str:
    return f"{100 * share:.0f}" if share < 1 else "no difference"
