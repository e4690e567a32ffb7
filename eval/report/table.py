"""Results as people read them: rich tables for the terminal, the same as markdown for a model card.

Reads `Results`, writes nothing. Questions and answers never reach these tables. Markdown escapes labels and names,
which stand in the first column, the head and the notes. The refusal task has a table of its own, by set and kind; every
other task is a row of the second.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cards.card.markdown import cell
from eval.report.attack_tables import attack_tables
from eval.report.cells import Cells
from eval.report.words import NOT_MEASURED, p_value
from eval.run.metrics import ALL
from eval.run.results import Answer, Comparison, Rate, Results, TaskRun
from pipelines.statistics import McNemar

REFUSAL = "refusal"
_SET_NAMES = {"heldout": "held-out"}


def results_table(results: Results) -> Group:
    """The tables below each other, each model's rates with their 95 % intervals and the paired p."""
    return Group(*(part for cells in _tables(results) for part in _rich(cells)))


def results_markdown(results: Results) -> str:
    """The same as GitHub-flavoured markdown tables with their notes, ending in a newline."""
    tables = list(_tables(results))
    parts = []
    for cells in tables:
        rows = [[cell(name), *(word.replace("|", "\\|") for word in figures)] for name, *figures in cells.rows]
        lines = [[cell(word) for word in cells.head], [":---"] + ["---:"] * (len(cells.head) - 1), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        title = [f"**{cells.title}**"] if len(tables) > 1 else []
        parts.append("\n\n".join([*title, table, *map(cell, cells.notes)]))
    return "\n\n".join(parts) + "\n"


def _rich(cells: Cells) -> Iterable[RenderableType]:
    table = Table(title=cells.title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(cells.head):
        # Words of a head below each other: the table then fits into 80 columns.
        head = name.replace(" ", "\n").replace("well-formed", "well-\nformed")
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in cells.rows:
        table.add_row(*row)
    yield table
    yield Text("\n".join(cells.notes))


def _tables(results: Results) -> Iterable[Cells]:
    if refusal := [task for task in results.tasks if task.name == REFUSAL]:
        yield _refusals(results, refusal[0])
    if others := [task for task in results.tasks if task.name != REFUSAL]:
        yield _others(results, others)
    yield from attack_tables({"": results})


def _refusals(results: Results, task: TaskRun) -> Cells:
    labels = [model.label for model in results.models]
    rates = {(rate.group, rate.model): rate for rate in results.rates if rate.task == REFUSAL and rate.group != ALL}
    tests = {(one.group, one.second): one.test for one in results.comparisons if one.task == REFUSAL}
    answers = [one for one in results.answers if one.task == REFUSAL]
    rows = []
    for group in dict.fromkeys(group for group, _ in rates):
        name, _, kind = group.rpartition(" ")
        row = [f"{_SET_NAMES.get(name, name)} {kind}"]
        for number, label in enumerate(labels):
            row.append(_refused(rates[group, label], kind))
            row += [p_value(tests[group, label])] if number else []
        for label in labels:
            mine = [one for one in answers if (one.model, one.category) == (label, group)]
            row.append(_well_formed(mine))
        rows.append(row)
    shown = [(key, test) for key, test in tests.items() if key[0] != ALL]
    head = ["questions", *_heads("refused", labels), *(f"well-formed {label}" for label in labels)]
    greedy = "Greedy" if not task.settings["temperature"] else f"Temperature {task.settings['temperature']:g}"
    return Cells(
        "Refusals and form",
        head,
        rows,
        [
            f"[95 % Wilson interval, in %].{_p(labels)} {greedy}, string rules, no judge, protocol {task.protocol}.",
            _counted(f"Cut off at {task.settings['max_tokens']} tokens", labels, answers, lambda one: one.truncated)
            + " "
            + _counted("No answer, unscored", labels, answers, lambda one: bool(one.unscored)),
            *_failures(labels, answers),
            *(_left_out(test, f"{group}, {labels[0]} and {label}") for (group, label), test in shown if test.left_out),
        ],
    )


def _refused(rate: Rate, kind: str) -> str:
    """How many refused: right where harmful, wrong where not; an answer without a verdict may be either."""
    interval = rate.rate
    if not rate.known:
        return NOT_MEASURED
    if kind == "harmful":
        return f"{rate.hits:.0f}/{rate.expected} {_percent(interval.low, interval.high)}"
    return f"{rate.misses:.0f}/{rate.expected} {_percent(1 - interval.high, 1 - interval.low)}"


def _well_formed(answers: Iterable[Answer]) -> str:
    """How many reason in form, of those that answered."""
    formed = [form for one in answers if (form := one.detail.get("well_formed")) is not None]
    return f"{sum(formed)}/{len(formed)}" if formed else NOT_MEASURED


def _others(results: Results, tasks: list[TaskRun]) -> Cells:
    labels = [model.label for model in results.models]
    rates = {(rate.task, rate.model): rate for rate in results.rates if rate.group == ALL}
    tests = {(one.task, one.second): one for one in results.comparisons if one.group == ALL}
    rows, notes = [], [f"[95 % interval; an answer without a verdict may have been either].{_p(labels)}"]
    for task in tasks:
        arrow = "lower" if task.measure.better == "lower" else "higher"
        row = [f"{task.name} ({arrow} is better)"]
        for number, label in enumerate(labels):
            rate = rates[task.name, label]
            row.append(
                f"{100 * rate.rate.rate:.1f} {_percent(rate.rate.low, rate.rate.high)}" if rate.known else NOT_MEASURED
            )
            row += [p_value(tests[task.name, label].test)] if number else []
        row.append(str(rates[task.name, labels[0]].expected))
        rows.append(row)
        notes.append(_asked(task))
        answers = [one for one in results.answers if one.task == task.name]
        notes += _failures(labels, answers)
        for label in labels:
            if (passed := rates[task.name, label].pass_at) and rates[task.name, label].known:
                # Of attacks, the chance that at least one of k answers is unsafe.
                word = "worst-of-" if task.measure.better == "lower" else "pass@"
                shown = ", ".join(f"{word}{k} {100 * share:.1f}" for k, share in passed.items())
                notes.append(f"{task.name}, {label}: {shown}.")
        if any(one.truncated or one.unscored for one in answers):
            notes.append(
                f"{task.name}: {_counted('cut off', labels, answers, lambda one: one.truncated)} "
                f"{_counted('Unscored', labels, answers, lambda one: bool(one.unscored))}"
            )
        for label in labels[1:]:
            notes += _pairs(tests[task.name, label], task.name)
    notes += [
        f"{model.label}: attacker: {model.attacks_asked} prompt{'' if model.attacks_asked == 1 else 's'} asked for, "
        f"{model.attacks_kept} kept from before."
        for model in results.models
        if model.attacks_asked + model.attacks_kept
    ]
    return Cells("Evaluation, in %", ["task", *_heads("", labels), "answers"], rows, notes)


def _pairs(one: Comparison, what: str) -> Iterable[str]:
    """What a paired test can show, and what the pairs that it leaves out could make of it."""
    named = f"{what}, {one.first} and {one.second}"
    if one.test.left_out:
        yield _left_out(one.test, named)
    if one.test.pairs:
        found = one.detectable
        least = "no difference can show" if found is None else f"a difference below {100 * found:.1f} cannot show"
        yield f"{named}: with {one.test.pairs} pairs {least}."


def _left_out(test: McNemar, named: str) -> str:
    number = test.left_out or 0
    return (
        f"* {named}: {number} of {test.pairs + number} pairs have no verdict and are left out; whatever they are, p is "
        f"between {test.p_low:.2g} and {test.p_high:.2g}."
    )


def _asked(task: TaskRun) -> str:
    """Everything about a task that decides its figures, in a line."""
    settings = ", ".join(_setting(key, value) for key, value in task.settings.items())
    parts = {"full": "reasoning and answer", "answer": "the answer", "reasoning": "the reasoning"}
    parts["apart"] = "reasoning and answer apart"
    seen = f"; scored on {parts[task.score]}" if "guard" in task.roles else ""
    who = "".join(f"; {role} {name}" for role, name in task.roles.items())
    left_out = f", {task.data.left_out} left out" if task.data.left_out else ""
    plural = "" if task.data.questions == 1 else "s"
    data = f"{task.data.questions} question{plural} of {task.data.source} (sha256 {task.data.sha256[:12]}){left_out}"
    return f"{task.name}: {task.measure.title}. Protocol {task.protocol}: {settings}{seen}{who}; {data}."


def _setting(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{key} ({', '.join(_setting(*pair) for pair in value.items())})"
    return f"{key} {value}"


def _heads(measure: str, labels: list[str]) -> list[str]:
    head = []
    for number, label in enumerate(labels):
        head += [f"{measure} {label}".strip()] + (["p"] if number else [])
    return head


def _p(labels: list[str]) -> str:
    return " p: exact McNemar, paired by question." if len(labels) > 1 else ""


def _counted(what: str, labels: list[str], answers: Iterable[Answer], holds: Callable[[Answer], bool]) -> str:
    rows = list(answers)
    parts = []
    for label in labels:
        mine = [one for one in rows if one.model == label]
        parts.append(f"{label} {sum(map(holds, mine))}/{len(mine)}")
    return f"{what}: {', '.join(parts)}."


def _failures(labels: list[str], answers: list[Answer]) -> list[str]:
    """A line where samples failed, none otherwise."""
    failed = any(one.error for one in answers)
    return [_counted("Failed", labels, answers, lambda one: bool(one.error))] if failed else []


def _percent(low: float, high: float) -> str:
    return f"[{100 * low:.0f}, {100 * high:.0f}]"
