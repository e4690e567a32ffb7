"""The report of a study: its table beside the published one, over seeds and questions, and what it does not show.

Reads the results of the steps that are done, and the tables of its queries. Writes

    studies/NAME/report.html     the study's tables first, then the evaluation report of everything that was measured
    studies/NAME/report.md  report.json  plots/          as `eval/report/page.py` has them
    studies/NAME/study.json      every figure of the study's own table, and how it departs from the paper

Rows stand in the study's order and are never ranked.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from eval.protocols import EXCLUDE, PAPER
from eval.protocols import settings as protocol_settings
from eval.report.cells import Cells
from eval.report.figures import COLUMNS, Report
from eval.report.page import page_of, read_sources, write_evaluation_report
from eval.report.paper_results import QUESTIONS, difference, study_row
from eval.report.paper_results import study as published_rows
from eval.report.words import points, share
from eval.run.results import Answer, TaskRun
from eval.sources import BUNDLED
from pipelines.crossed import Table, crossed_difference, crossed_share, spread_of
from pipelines.errors import UserError
from pipelines.files import write_json, write_text
from pipelines.settings.overrides import settings_of
from pipelines.statistics import Interval, clustered_share
from saferthoughts.studies.planning import power_lines
from saferthoughts.studies.steps import Study, recipe_settings
from saferthoughts.studies.work import state_of

_NOTE = (
    "95 % intervals over questions, with several seeds over seeds and questions (crossed random effects). Answers "
    "without a verdict may have been either. diff. is ours minus the study's, with Newcombe's interval."
)
_GUARD = {"guard": "llama-guard-3"}
_ROLES = {"none": _GUARD, "pap": _GUARD, "pair": {**_GUARD, "judge": "gpt-4o-mini", "attacker": "mixtral-8x7b"}}
_ROLES |= {"xstest": {"judge": "gpt-4o"}}
_PAPER_RECIPE = {"epochs": 1, "learning_rate": 5e-6, "effective_batch": 48, "max_length": 4096, "rows": 1100}


class StudyReport(NamedTuple):
    """The tables as words, what differs or was not measured, and the page."""

    tables: tuple[Cells, ...]
    honesty: tuple[str, ...]
    page: Path


@dataclass(slots=True)
class _Asked:
    """One task of one row: how it was asked, and each seed's answers."""

    run: TaskRun
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def table(self, missing: float) -> Table:
        """Seeds by questions, each the mean of its answers; `missing` is for those without a verdict or not there."""
        cells: dict[tuple[str, str], list[float]] = {}
        for seed, own in self.answers.items():
            for one in own:
                cells.setdefault((seed, one.id), []).append(missing if one.value is None else one.value)
        return np.array([[fmean(cells.get((seed, name), [missing])) for name in self.ids()] for seed in self.answers])

    def ids(self) -> list[str]:
        """All questions that any seed answered, in order."""
        return sorted({one.id for own in self.answers.values() for one in own})

    def rate(self) -> Interval:
        """Over seeds and questions, of one model over questions; an answer without a verdict may be either."""
        every = [one for own in self.answers.values() for one in own]
        if all(one.value is None for one in every):
            return Interval(float("nan"), 0.0, 1.0)
        low, high = (self._rate(every, missing) for missing in (0.0, 1.0))
        return Interval(low.rate, low.low, high.high)

    def _rate(self, every: Sequence[Answer], missing: float) -> Interval:
        if len(self.answers) > 1:
            return crossed_share(self.table(missing))
        by_question: dict[str, list[float]] = {}
        for one in every:
            by_question.setdefault(one.id, []).append(missing if one.value is None else one.value)
        return clustered_share(list(by_question.values()))


Rows = dict[tuple[str, str], dict[str, _Asked]]


def write_study_report(study: Study, output: Path) -> StudyReport:
    """Put together what the steps of a study left, and write it.

    Raises:
        UserError: no evaluation and no query has left anything yet.
    """
    made = [step for step in study.of("eval") if step.makes.exists()]
    queries = [pair for step in study.steps.values() for pair in step.tables.items() if pair[1].exists()]
    if not made and not queries:
        raise UserError(
            f"Nothing of study '{study.name}' is measured yet. Run first: saferthoughts study run {study.name}"
        )
    sources = read_sources([step.makes for step in made])
    rows: Rows = {}
    for step, source in zip(made, sources, strict=True):
        own = rows.setdefault((step.labels["student"], step.labels["method"]), {})
        for run in source.results.tasks:
            answers = [one for one in source.results.answers if one.task == run.name]
            own.setdefault(run.name, _Asked(run)).answers[step.labels["seed"]] = answers
    cells = {
        (student, method, task): _cell(asked, _published(study, student, method).get(task))
        for (student, method), own in rows.items()
        for task, asked in own.items()
    }
    tables = (*([_table(study, rows, cells)] if rows else []), *(_query_table(*pair) for pair in queries))
    whole = write_evaluation_report(sources, output) if sources else None
    found = chain(
        _departures(study, rows),
        _unmeasured(study, rows),
        _distinguished(study, rows, whole),
        power_lines(study, _spread(rows)),
    )
    honesty = tuple(dict.fromkeys(found))
    if whole:
        shown = {"title": study.spec.title or study.name, "tables": tables, "honesty": honesty}
        write_text(output / "report.html", page_of(whole, study=shown))
    plain = [{"student": one[0], "method": one[1], "task": one[2], "cell": text} for one, text in cells.items()]
    others = {title: [one.head, *one.rows] for (title, _), one in zip(queries, tables[bool(rows) :], strict=True)}
    kept = {"title": study.spec.title, "cells": plain, "tables": others, "honesty": honesty}
    write_json(output / "study.json", kept)
    return StudyReport(tables, honesty, output / ("report.html" if whole else "study.json"))


def _published(study: Study, student: str, method: str) -> Mapping[str, Interval]:
    base, row = study.spec.students[student].base, study.spec.methods[method].row
    known = study_row(student if base is None else base, method if row is None else row)
    return published_rows()[known] if known else {}


def _cell(asked: _Asked, published: Interval | None) -> str:
    """Ours, the published figure, the difference, and each seed's own; ` | ` is where a line ends."""
    rate = asked.rate()
    parts = [f"{share(rate)}{'*' if any(_asked_otherwise(asked.run)) else ''}"]
    if published is not None:
        parts += [f"study {100 * published.rate:.1f}"]
        # Other questions make another rate; and without a verdict there is none.
        comparable = not asked.run.data.source.endswith(BUNDLED) and rate.rate == rate.rate
        parts += [f"diff. {points(difference(rate, published))}"] if comparable else []
    if len(asked.answers) > 1:
        seeds = (sum(one.value or 0.0 for one in own) / max(1, len(own)) for own in asked.answers.values())
        parts.append(f"seeds {', '.join(f'{100 * one:.1f}' for one in seeds)}")
    return " | ".join(parts)


def _table(study: Study, rows: Rows, cells: Mapping[tuple[str, str, str], str]) -> Cells:
    asked = dict.fromkeys(task for own in rows.values() for task in own)
    tasks = [*(task for task in COLUMNS if task in asked), *(task for task in asked if task not in COLUMNS)]
    lines = [
        [f"{student} {method}", *(cells.get((student, method, task), "-") for task in tasks)]
        for student, method in rows
    ]
    head = ["model and method", *(COLUMNS.get(task, task) for task in tasks)]
    notes = [_NOTE, "* asked otherwise than in the paper, see below."]
    return Cells(study.spec.title or study.name, head, lines, notes)


def _asked_otherwise(run: TaskRun) -> Iterator[str]:
    """Where a task of the paper's was asked in another way than the paper says."""
    if run.name not in QUESTIONS:
        return
    if run.data.source.endswith(BUNDLED):
        yield "our bundled questions"
    elif run.data.questions != QUESTIONS[run.name]:
        yield f"{run.data.questions} questions, the paper has {QUESTIONS[run.name]}"
    for key, value in protocol_settings(PAPER, run.name).items():
        if key != EXCLUDE and str(run.settings.get(key)) != str(value):
            yield f"{key} {run.settings.get(key)}, the paper has {value}"
    for role, model in _ROLES.get(run.name, {}).items():
        if model not in (ours := run.roles.get(role, "string rules")).lower():
            yield f"{role} {ours}, the paper has {model}"
    if run.name == "pair":
        yield "prompts of attacker and judge are ours"


def _departures(study: Study, rows: Rows) -> Iterator[str]:
    for task in dict.fromkeys(task for own in rows.values() for task in own):
        found = dict.fromkeys(text for own in rows.values() if task in own for text in _asked_otherwise(own[task].run))
        if found:
            yield f"{COLUMNS.get(task, task)} is not asked as in the paper: {'; '.join(found)}"
    for step in study.of("data"):
        config = study.config(step)
        who = ", ".join(f"{entry} ({teacher.model})" for entry, teacher in config.teachers.items())
        judges = ", ".join(config.judging.judges) or "nobody"
        yield (
            f"{step.label}: rows of {who}, prompts {config.prompts.named}, judged by {judges}; the paper has R1 and "
            "GPT-4o, 4,000 prompts of HarmBench in unpublished templates, filtered by ReasoningShield"
        )
    from training.mixtures.mixture_rows import load_blend
    from training.recipes.recipe import load_recipe

    for step in study.of("train"):
        student, method = study.parts(step)
        given = settings_of(recipe_settings(student, method, step.labels["seed"]))
        recipe = load_recipe(str(student.recipe), given)
        blend, ours = load_blend(recipe.mixture), recipe.model_dump(include=set(_PAPER_RECIPE))
        ours["rows"] = sum(blend.release.values()) + sum(part.rows for part in blend.further)
        ours["effective_batch"] = recipe.effective_batch or recipe.batch_size * (recipe.gradient_accumulation or 1)
        other = {key: value for key, value in ours.items() if value != _PAPER_RECIPE[key]}
        other |= {"lora": True} if recipe.lora else {}
        if other:
            theirs = {key: _PAPER_RECIPE.get(key, False) for key in other}
            who = f"{step.labels['student']} {step.labels['method']}"
            yield f"{who} is trained with {_plainly(other)}; the paper with {_plainly(theirs)}"


def _plainly(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _unmeasured(study: Study, rows: Rows) -> Iterator[str]:
    left = [f"{step.label} ({state.state})" for step in study.steps.values() if not (state := state_of(step)).settled]
    if left:
        yield f"not done: {', '.join(left)}"
    measured = {task for own in rows.values() for task in own}
    if rows and (lacking := [name for task, name in COLUMNS.items() if task not in measured]):
        yield f"columns of the paper's Table 1 that nothing measured: {', '.join(lacking)}"
    for (student, method), own in rows.items():
        for task, asked in own.items():
            every = [one for answers in asked.answers.values() for one in answers]
            if lost := sum(one.value is None for one in every):
                yield f"{student} {method}, {task}: {lost} of {len(every)} answers have no verdict"
    if rows and len(study.spec.seeds) == 1 and study.of("train"):
        yield "one seed: how much another training would differ was not measured"


def _spread(rows: Rows) -> float | None:
    """How much trainings of one method differ (standard deviation of their rates), over all of several seeds."""
    own = [asked for tasks in rows.values() for asked in tasks.values() if len(asked.answers) > 1]
    tables = [table for asked in own if min((table := asked.table(0.0)).shape) > 1]
    return math.sqrt(fmean(spread_of(table) ** 2 for table in tables)) if tables else None


def _distinguished(study: Study, rows: Rows, report: Report | None) -> Iterator[str]:
    if report and report.rehearsed:
        named = ", ".join(report.rehearsed)
        yield f"the rehearsal teacher, no model, wrote the rows of {named}: figures show that the machine runs"
    if len(study.spec.seeds) > 1:
        pairs, how = _over_seeds(study, rows), "t-test over seeds and questions"
    else:
        tests = [one for section in report.sections for one in section.compared if not one.group] if report else []
        pairs = {f"{one.first} and {one.second} on {one.task}": one.test.p_high or one.test.p for one in tests}
        how = "exact McNemar"
    if pairs:
        apart = ", ".join(name for name, p in pairs.items() if p * len(pairs) < 0.05)
        alike = sum(p * len(pairs) >= 0.05 for p in pairs.values())
        yield (
            f"{alike} of {len(pairs)} pairs of rows cannot be told apart ({how}, Bonferroni)"
            f"{f'; these can: {apart}' if apart else ''}"
        )


def _over_seeds(study: Study, rows: Rows) -> dict[str, float]:
    """Pairs of a student's methods on a task, with the p value of their trainings from any seed being alike.

    A method with one training is in none: it says nothing of others. Nor is one that was asked other questions.
    """
    found = {}
    for one, other in combinations(rows, 2):
        trained = [key for key in (one, other) if study.spec.methods[key[1]].trains]
        for task in [task for task in rows[one] if task in rows[other] and one[0] == other[0] and trained]:
            first, second = rows[one][task], rows[other][task]
            several = all(len(rows[key][task].answers) > 1 for key in trained)
            if several and first.ids() == second.ids() and _ways(first.run) == _ways(second.run):
                # Missing verdicts may have favoured either.
                ends = [crossed_difference(first.table(low), second.table(1.0 - low)) for low in (0.0, 1.0)]
                p = max(end.p for end in ends)
                contrary = ends[0].interval.rate * ends[1].interval.rate < 0
                found[f"{one[0]} {one[1]} and {other[1]} on {task}"] = 1.0 if contrary else p
    return found


def _ways(run: TaskRun) -> str:
    """All that decides how a task is asked and scored."""
    return repr((run.settings, run.score, run.roles, run.data.source))


def _query_table(title: str, file: Path) -> Cells:
    with file.open(encoding="utf-8", newline="") as source:
        head, *rows = csv.reader(source)
    return Cells(title, head, rows, [])
