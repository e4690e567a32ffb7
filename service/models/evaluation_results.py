"""What an evaluation found: rates, answers with their verdicts by page, and two models compared.

Reads results.json of an evaluation's folder; the last two that were asked for stay in memory while their files are as
they are.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.examples import outcome_of
from eval.run.live import LiveRate
from eval.run.paired_questions import compared
from eval.run.results import NAME, Answer, Measure, Rate, Results, TaskRun, read_results
from pipelines.errors import unknown
from pipelines.file_marks import KeptWhileUnchanged, mark_of
from pipelines.prompts.mildness import severity
from service.http.problems import Problem
from service.models.model_shapes import AnswersPage, AnswerState, ComparisonState, RateState

# Results beyond that are read by the command line alone.
_MOST_BYTES = 300_000_000
_reading = threading.Lock()
_kept: KeptWhileUnchanged[Results] = KeptWhileUnchanged(2)


def results_of(place: Path) -> Results:
    """The results of an evaluation's folder.

    Raises:
        Problem: 409, there are none yet, they are a link, or too many for a page.
        UserError: they cannot be read.
    """
    path = place / NAME
    if path.is_symlink() or not path.is_file():
        raise Problem(409, f"{place.parent.name}/{place.name} has no results yet.")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise Problem(409, f"The results have {size:,} bytes. `saferthoughts report eval` reads them.")
    with _reading:
        return _kept.get(path, lambda: mark_of(path), lambda: read_results(path))


def answers(
    place: Path, task: str = "", model: str = "", outcome: str = "", offset: int = 0, limit: int = 20
) -> AnswersPage:
    """Answers of an evaluation that fit, the mildest first; "" fits all.

    Raises:
        Problem: 409, there are no results.
        UserError: they cannot be read, or have no such task, model or outcome.
    """
    results = results_of(place)
    known = {
        "task": (task, [one.name for one in results.tasks]),
        "model": (model, [one.label for one in results.models]),
        "outcome": (outcome, ["hit", "miss", "unscored", "error"]),
    }
    for what, (value, names) in known.items():
        if value and value not in names:
            raise unknown(what, value[:200], names)
    fitting = [
        one
        for one in results.answers
        if task in ("", one.task) and model in ("", one.model) and outcome in ("", outcome_of(one))
    ]
    fitting.sort(key=lambda one: severity(one.topic or one.category))
    shown = [_answer(one) for one in fitting[offset : offset + limit]]
    return AnswersPage(total=len(fitting), offset=offset, answers=shown)


def _answer(one: Answer) -> AnswerState:
    texts = ("model", "task", "id", "category", "question", "asked", "reasoning", "answer")
    detail = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in one.detail.items()
    }
    return AnswerState(
        **{name: getattr(one, name) for name in texts},
        epoch=one.epoch,
        outcome=outcome_of(one),
        value=one.value,
        why=one.error or one.unscored,
        truncated=one.truncated,
        detail=detail,
    )


def compare(first: tuple[Path, str], second: tuple[Path, str]) -> list[ComparisonState]:
    """Two models of any evaluations, task by task, paired by question where they were asked the same in the same way.

    Args:
        first: An evaluation's folder and a model's label in it.
        second: The same of the other.

    Raises:
        Problem: 409, there are no results.
        UserError: they cannot be read, or have no such model.
    """
    sides = [(results_of(place), label) for place, label in (first, second)]
    for results, label in sides:
        if label not in [one.label for one in results.models]:
            raise unknown("model", label[:200], [one.label for one in results.models])
    (one, _), (other, _) = sides
    theirs = {task.name: task for task in other.tasks}
    return [_compared(task, theirs[task.name], sides) for task in one.tasks if task.name in theirs]


def _compared(task: TaskRun, other: TaskRun, sides: Sequence[tuple[Results, str]]) -> ComparisonState:
    rates = [_of(results.rates, label, task.name) for results, label in sides]
    own = [[one for one in results.answers if (one.model, one.task) == (label, task.name)] for results, label in sides]
    ids = [{one.id for one in found} for found in own]
    why = _differs(task, other) or ("" if ids[0] == ids[1] and ids[0] else "they answered different questions")
    test: Any = None
    detectable = None
    if not why:
        each = max(1, rates[0].expected // max(1, rates[0].questions)) if rates[0] else 1
        # Two names of our own: both sides may have the same label.
        found = compared(task.name, "", ("first", "second"), {"first": own[0], "second": own[1]}, sorted(ids[0]), each)
        test, detectable = found.test, found.detectable
    return ComparisonState(
        task=task.name,
        first=_figure(rates[0]),
        second=_figure(rates[1]),
        better=task.measure.better,
        pairs=test and test.pairs,
        only_first=test and test.only_first,
        only_second=test and test.only_second,
        left_out=test and test.left_out,
        p=test and test.p,
        detectable=detectable,
        why_not=why,
    )


def _differs(one: TaskRun, other: TaskRun) -> str:
    """What two askings of a task differ in; "" where in nothing that decides its figures."""
    parts = {
        "protocol": (one.protocol, other.protocol),
        "settings": (one.settings, other.settings),
        "score": (one.score, other.score),
        "data": (one.data.sha256, other.data.sha256),
        "roles": (one.roles, other.roles),
        "prompts": (one.prompts, other.prompts),
    }
    found = [name for name, (mine, theirs) in parts.items() if mine != theirs]
    return f"asked in another way: {', '.join(found)} differ" if found else ""


def _of(rates: Sequence[Rate], label: str, task: str) -> Rate | None:
    return next((one for one in rates if (one.model, one.task, one.group) == (label, task, "")), None)


def _figure(rate: Rate | None) -> float | None:
    return rate.rate.rate if rate is not None and rate.known else None


def rates_of(results: Results) -> list[RateState]:
    """The rates of results."""
    measures = {task.name: task.measure for task in results.tasks}
    none = Measure("", "", "higher")
    return [
        RateState(
            model=one.model,
            task=one.task,
            group=one.group,
            title=measures.get(one.task, none).title,
            better=measures.get(one.task, none).better,
            due=one.expected,
            n=one.n,
            scored=one.n - one.unscored - one.errored,
            unscored=one.unscored,
            errored=one.errored,
            rate=one.rate.rate if one.known else None,
            low=one.rate.low if one.known else None,
            high=one.rate.high if one.known else None,
        )
        for one in results.rates
    ]


def live_rate(one: LiveRate) -> RateState:
    """A rate of an evaluation that runs."""
    rate = one.rate
    return RateState(
        **{name: getattr(one, name) for name in ("model", "task", "title", "better", "due", "n")},
        **{name: getattr(one, name) for name in ("scored", "unscored", "errored")},
        group="",
        rate=None if rate is None else rate.rate,
        low=None if rate is None else rate.low,
        high=None if rate is None else rate.high,
    )
