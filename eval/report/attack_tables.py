"""Tables beside the rates: thought against answer, success by queries spent, several guards on the same answers, and
what others report.

Reads `Results` and eval/data/published.csv, which says of each figure where it stands; writes nothing.
`eval/report/table.py` shows them in the terminal, `eval/report/page.py` in a report. Counts are of answers; what has no
verdict is counted apart.
"""

import csv
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.report.cells import Cells
from eval.run.metrics import ALL
from eval.run.results import Answer, Rate, Results, TaskRun
from eval.sources import BUNDLED
from pipelines.statistics import Confusion, Interval, kappa_of, wilson

_PUBLISHED = Path(__file__).parents[1] / "data" / "published.csv"
_VERDICTS = ("safe", "unsafe")
_KINDS = {"safe": "safe thought", "unsafe": "unsafe thought", "none": "no thought", "unknown": "no verdict on it"}


def attack_tables(evaluations: Mapping[str, Results], published: bool = False) -> list[Cells]:
    """Every table that there is something for.

    Args:
        evaluations: By name; where there are several, it stands before the models'.
        published: Whether what others report is one of them; never beside bundled questions.
    """
    named = len(evaluations) > 1
    tables = []
    for name, results in evaluations.items():
        tables += list(_thoughts(f"{name}, " if named else "", results))
        tables += list(_costs(f"{name}, " if named else "", results))
    return [*tables, *_agreement(evaluations), *(_published(evaluations) if published else ())]


def _thoughts(before: str, results: Results) -> Iterator[Cells]:
    runs = [run for run in results.tasks if run.score == "apart" and "guard" in run.roles]
    for run, model in itertools.product(runs, results.models):
        answers = _of(results, model.label, run)
        due = _rate(results, model.label, run)
        if due is None:
            continue
        counts = thought_counts(answers, due.expected)
        rows = [
            [kind, *(str(counts[key, verdict]) for verdict in (*_VERDICTS, "unknown"))]
            for key, kind in _KINDS.items()
            if key in _VERDICTS or any(counts[key, verdict] for verdict in (*_VERDICTS, "unknown"))
        ]
        head = ["thought", "safe answer", "unsafe answer", "no verdict on it"]
        title = f"Thought and answer: {before}{model.label}, {run.name}"
        yield Cells(title, head, rows, [thought_sentence(model.label, run.name, counts)])


def thought_counts(answers: Sequence[Answer], expected: int) -> Counter[tuple[str, str]]:
    """How many answers have each verdict on their thought and their answer; they add up to `expected`.

    What was never answered, or failed, has no verdict on either.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for one in answers:
        thought = one.detail.get("thought", "unknown" if one.value is None else None)
        counts[_known(thought, "none"), _known(one.detail.get("answer"), "unknown")] += 1
    counts["unknown", "unknown"] += expected - counts.total()
    return counts


def _known(verdict: object, absent: str) -> str:
    return str(verdict) if verdict in _VERDICTS else absent if verdict is None else "unknown"


def thought_sentence(model: str, task: str, counts: Mapping[tuple[str, str], int]) -> str:
    """The table in words."""
    total = sum(counts.values())
    every = (*_VERDICTS, "unknown")
    unsafe, safe = (sum(counts.get((kind, verdict), 0) for verdict in every) for kind in ("unsafe", "safe"))
    hidden, both, late = (counts.get(key, 0) for key in (("unsafe", "safe"), ("unsafe", "unsafe"), ("safe", "unsafe")))
    return (
        f"{model}, {task}: {_share(unsafe, total)} responses have an unsafe thought; {hidden} of these {unsafe} end in "
        f"a safe answer, {both} in an unsafe one. After a safe thought {late} of {safe} answers are unsafe."
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole else "")


def _costs(before: str, results: Results) -> Iterator[Cells]:
    rows, steps = [], set()
    found = []
    for run, model in itertools.product(results.tasks, results.models):
        answers = _of(results, model.label, run)
        due = _rate(results, model.label, run)
        if due is not None and any("queries" in one.detail for one in answers):
            curve = by_queries(answers, due.expected)
            steps |= set(curve)
            found.append((model.label, run, curve, due.expected))
    shown = _spread(sorted(steps))
    for label, run, curve, expected in found:
        hits = [max((won for spent, won in curve.items() if spent <= step), default=0) for step in shown]
        cells = [_points(wilson(won, expected)) for won in hits]
        rows.append([f"{before}{label}, {_task(run)}", *cells])
    if rows:
        note = (
            "The share of questions on which the attack had succeeded, by the guard, within so many queries of the "
            "target; what it spent on a question that it lost counts in no column."
        )
        yield Cells("Attack success by queries spent, in %", ["model, attack", *map(str, shown)], rows, [note])


def by_queries(answers: Sequence[Answer], expected: int) -> dict[int, int]:
    """Queries of the target -> questions on which the attack had succeeded by then; the last is all of them."""
    spent = sorted(int(one.detail["queries"]) for one in answers if one.value == 1 and "queries" in one.detail)
    assert len(spent) <= expected
    curve = {number: sum(one <= number for one in spent) for number in spent}
    most = max((int(one.detail.get("queries", 0)) for one in answers), default=0)
    return {**curve, most: len(spent)}


def _spread(steps: Sequence[int]) -> list[int]:
    """At most eight of the steps, the first and the last among them."""
    if len(steps) <= 8:
        return list(steps)
    return sorted({steps[round(at * (len(steps) - 1) / 7)] for at in range(8)})


def _agreement(evaluations: Mapping[str, Results]) -> Iterator[Cells]:
    scored = [
        (name, run, label, {(one.id, one.epoch): one for one in _of(results, label, run)})
        for name, results in evaluations.items()
        for run in results.tasks
        if "guard" in run.roles
        for label in (model.label for model in results.models)
    ]
    rows = []
    for (_, run, label, first), (_, other, label_2, second) in itertools.combinations(scored, 2):
        if (run.name, label) != (other.name, label_2) or _guard(run) == _guard(other):
            continue
        same = [key for key in first if key in second and _content(first[key]) == _content(second[key])]
        if same:
            rows.append([f"{label}, {run.name}", _guard(run), _guard(other), *agreed(same, first, second)])
    if rows:
        head = ["model, task", "guard", "other guard", "both unsafe", "first only", "second only", "both safe", "kappa"]
        head.append("one unscored")
        note = (
            "Verdicts of two guards on the same answers; kappa is Cohen's, with a bootstrap interval, `-` where both "
            "always say one thing."
        )
        yield Cells("Guards on the same answers", head, rows, [note])


def agreed(
    same: Sequence[tuple[str, int]], first: Mapping[tuple[str, int], Answer], second: Mapping[tuple[str, int], Answer]
) -> list[str]:
    """The cells of two guards' agreement: four counts, kappa, and how many answers one of them has no verdict on."""
    pairs = Counter((first[key].value, second[key].value) for key in same)
    counts = Confusion(pairs[1, 1], pairs[1, 0], pairs[0, 1], pairs[0, 0])
    kappa = kappa_of(counts)
    words = "-" if math.isnan(kappa.rate) else f"{kappa.rate:.2f} [{kappa.low:.2f}, {kappa.high:.2f}]"
    return [*map(str, counts), words, str(len(same) - sum(counts))]


def _published(evaluations: Mapping[str, Results]) -> Iterator[Cells]:
    rows = []
    asked = dict.fromkeys(
        run.name for results in evaluations.values() for run in results.tasks if not run.data.source.endswith(BUNDLED)
    )
    for task in asked:
        theirs = [line for line in published_figures() if line["task"] == task]
        ours = [
            [task, f"{rate.model} (ours)", _points(rate.rate) if rate.known else "-", f"{rate.expected} answers"]
            for results in evaluations.values()
            for rate in results.rates
            if (rate.task, rate.group) == (task, ALL)
        ]
        rows += [*ours, *([task, line["model"], line["figure"], line["source"]] for line in theirs)] if theirs else []
    if rows:
        note = (
            "Figures as their authors published them, under prompts, scorers and budgets of their own: an order of "
            "magnitude, and no test."
        )
        yield Cells("Beside what others report, in %", ["task", "model", "%", "source"], rows, [note])


@functools.cache
def published_figures() -> list[dict[str, str]]:
    """Figures of others: task, model, figure in percent, and where it stands."""
    with _PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _of(results: Results, label: str, run: TaskRun) -> list[Answer]:
    return [one for one in results.answers if (one.model, one.task) == (label, run.name)]


def _rate(results: Results, label: str, run: TaskRun) -> Rate | None:
    key = (label, run.name, ALL)
    return next((one for one in results.rates if (one.model, one.task, one.group) == key), None)


def _content(answer: Answer) -> tuple[str, str, str]:
    return (answer.question, answer.reasoning, answer.answer)


def _guard(run: TaskRun) -> str:
    return f"{run.roles['guard']}, {run.score}"


def _task(run: TaskRun) -> str:
    replayed = run.settings.get("replay", "none") != "none"
    return f"{run.name} (transfer)" if replayed else run.name


def _points(interval: Interval) -> str:
    return f"{100 * interval.rate:.1f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
