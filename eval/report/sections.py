"""The sections of a report: which figures share a table, in which row, and what is compared.

Reads `Results` of any number of evaluations; writes nothing. `eval/report/page.py` calls it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

from eval.protocols import EXCLUDE
from eval.report.attack_tables import attack_tables
from eval.report.examples import examples_of
from eval.report.figures import COLUMNS, EvaluationSource, Figure, Report, ReportRow, Section, Setup
from eval.report.names import without_paths
from eval.report.paired_tests import across, made_anew
from eval.report.paper_results import METHODS, difference, study, study_row
from eval.run.results import Answer, Comparison, Measured, Results, TaskRun
from eval.sources import BUNDLED
from pipelines.errors import UserError


def report_of(sources: Sequence[EvaluationSource]) -> Report:
    """Put evaluations together.

    Raises:
        UserError: there are none, or a model's counts do not add up.
    """
    if not sources:
        raise UserError("There is no evaluation to report. Give folders that hold a results.json.")
    for source in sources:
        _check(source)
    sources = [replace(source, results=without_paths(source.results)) for source in sources]
    keys = dict.fromkeys((run.protocol, run.score) for source in sources for run in source.results.tasks)
    sections = tuple(_section(protocol, score, sources) for protocol, score in keys)
    return Report(
        evaluations=tuple(source.name for source in sources),
        suites=tuple(dict.fromkeys(source.results.suite for source in sources if source.results.suite)),
        sections=sections,
        warnings=tuple(_warnings(sections)),
        rehearsal=any(_rehearsed(source.results) for source in sources),
        rehearsed=tuple(dict.fromkeys(row.name for part in sections for row in part.rows if row.measured.rehearsed)),
        tables=tuple(attack_tables({source.name: source.results for source in sources}, published=True)),
    )


def _check(source: EvaluationSource) -> None:
    """A rate over the wrong denominator must not reach a table."""
    for one in source.results.rates:
        if abs(one.hits + one.misses + one.unscored + one.errored - one.n) > 1e-6:
            raise UserError(
                f"{source.path}: {one.model} on {one.task} has {one.hits:g} hits, {one.misses:g} misses, "
                f"{one.unscored} unscored and {one.errored} errored, which do not add up to its n of {one.n}. "
                "Evaluate again."
            )


def _rehearsed(results: Results) -> bool:
    names = [name for model in results.models for name in (model.label, model.name)]
    names += [model.place for model in results.models if model.kind == "endpoint"]
    names += [name for run in results.tasks for name in run.roles.values()]
    return any("rehearsal" in name.lower() for name in names)


@dataclass(frozen=True, slots=True)
class _Part:
    """One model of one evaluation with those of its tasks that belong to a section."""

    source: EvaluationSource
    measured: Measured
    tasks: frozenset[str]

    @property
    def identity(self) -> tuple[str, ...]:
        """The same for the same model in another evaluation."""
        one = self.measured
        return (one.base, one.variant, one.label, one.name, one.weights_sha256 or one.place)


def _section(protocol: str, score: str, sources: Sequence[EvaluationSource]) -> Section:
    runs = {
        (source.name, run.name): run
        for source in sources
        for run in source.results.tasks
        if (run.protocol, run.score) == (protocol, score)
    }
    marks = _marks(runs)
    grouped = sorted(_grouped(sources, runs), key=lambda parts: _place(parts[0].measured))
    rows = tuple(_row(parts, model, marks) for parts, model in zip(grouped, _models(grouped), strict=True))
    row_of = {
        (part.source.name, part.measured.label): row for row, parts in zip(rows, grouped, strict=True) for part in parts
    }
    answers: dict[str, list[Answer]] = {row.name: [] for row in rows}
    comparisons = []
    for source in sources:
        for answer in source.results.answers:
            if (source.name, answer.task) in runs:
                answers[row_of[source.name, answer.model].name].append(answer)
        for one in source.results.comparisons:
            if (source.name, one.task) in runs:
                comparisons.append(_renamed(_compared(one, source.results), source.name, row_of))
    return Section(
        protocol,
        score,
        rows,
        tuple(_setups(runs, marks, row_of)),
        (*comparisons, *across(rows, answers, comparisons)),
        examples_of(answers),
    )


def _compared(one: Comparison, results: Results) -> Comparison:
    pair = (one.first, one.second)
    rates = [rate for rate in results.rates if (rate.task, rate.group) == (one.task, one.group) and rate.model in pair]
    answers = {model: [answer for answer in results.answers if answer.model == model] for model in pair}
    return made_anew(one, rates, answers)


def _renamed(one: Comparison, source: str, row_of: Mapping[tuple[str, str], ReportRow]) -> Comparison:
    first, second = (row_of[source, label].name for label in (one.first, one.second))
    return replace(one, first=first, second=second)


def _grouped(sources: Sequence[EvaluationSource], runs: Mapping[tuple[str, str], TaskRun]) -> list[list[_Part]]:
    """Parts that make a row: the same model, with no task twice."""
    rows: list[list[_Part]] = []
    for source in sources:
        for measured in source.results.models:
            asked = {one.task for one in source.results.rates if one.model == measured.label}
            part = _Part(source, measured, frozenset(task for task in asked if (source.name, task) in runs))
            if not part.tasks:
                continue
            for row in rows:
                if row[0].identity == part.identity and not any(part.tasks & other.tasks for other in row):
                    row.append(part)
                    break
            else:
                rows.append([part])
    return rows


def _place(measured: Measured) -> tuple[int, int]:
    """A row's sort key: the study's models first, then the others; within a model by method."""
    row = study_row(measured.base, measured.variant)
    bases = list(dict.fromkeys(one.model.casefold() for one in study()))
    base = (row.model if row else measured.base).casefold()
    return (
        bases.index(base) if base in bases else len(bases),
        METHODS.index(measured.variant) if measured.variant in METHODS else len(METHODS),
    )


def _models(grouped: Sequence[Sequence[_Part]]) -> list[str]:
    """A name for each row's model; where two rows would read the same, with the evaluations it comes from."""
    plain = [parts[0].measured.base or parts[0].measured.label for parts in grouped]
    whole = [(name, parts[0].measured.variant) for name, parts in zip(plain, grouped, strict=True)]
    return [
        f"{name} ({', '.join(part.source.name for part in parts)})" if whole.count(both) > 1 else name
        for name, both, parts in zip(plain, whole, grouped, strict=True)
    ]


def _row(parts: Sequence[_Part], model: str, marks: Mapping[tuple[str, str], str]) -> ReportRow:
    measured = parts[0].measured
    known = study_row(measured.base, measured.variant)
    figures: dict[str, Figure] = {}
    groups: dict[str, tuple[Figure, ...]] = {}
    for part in parts:
        for run in part.source.results.tasks:
            if run.name not in part.tasks:
                continue
            mark = marks[part.source.name, run.name]
            rates = [
                one for one in part.source.results.rates if (one.model, one.task) == (part.measured.label, run.name)
            ]
            # The bundled questions are not the study's.
            ours = run.data.source.endswith(BUNDLED)
            theirs = study()[known].get(run.name) if known and not ours else None
            corrected = part.source.corrected
            for one in rates:
                if not one.group:
                    whole = Figure(one, mark, theirs, None, corrected.get((one.model, one.task, "")))
                    apart = difference(one.rate, theirs) if theirs and whole.known else None
                    figures[run.name] = replace(whole, difference=apart)
            groups[run.name] = tuple(
                Figure(one, mark, None, None, corrected.get((one.model, one.task, one.group)))
                for one in rates
                if one.group
            )
    return ReportRow(model, measured.variant, measured, tuple(part.source.name for part in parts), figures, groups)


def _way(run: TaskRun) -> dict[str, str]:
    """What decides whether two figures of a task may be compared, each as a word."""
    words = {"the questions": run.data.sha256, "their number": str(run.data.questions), "measure": run.measure.name}
    # Which prompts were left out as trained on shows in the number of questions.
    words |= {f"setting {name}": str(value) for name, value in run.settings.items() if name != EXCLUDE}
    words |= run.roles
    return words | {f"prompt {name}": digest for name, digest in run.prompts.items()}


def _marks(runs: Mapping[tuple[str, str], TaskRun]) -> dict[tuple[str, str], str]:
    """A letter for each evaluation's task where others asked it in another way, else ""."""
    ways: dict[str, list[dict[str, str]]] = {}
    for (_, task), run in runs.items():
        if _way(run) not in ways.setdefault(task, []):
            ways[task].append(_way(run))
    return {key: _letters(ways[key[1]].index(_way(run))) if len(ways[key[1]]) > 1 else "" for key, run in runs.items()}


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    before, here = divmod(number, len(ascii_lowercase))
    return (_letters(before - 1) if before else "") + ascii_lowercase[here]


def _setups(
    runs: Mapping[tuple[str, str], TaskRun],
    marks: Mapping[tuple[str, str], str],
    row_of: Mapping[tuple[str, str], ReportRow],
) -> Iterator[Setup]:
    found: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], TaskRun] = {}
    for (source, task), run in runs.items():
        key = (task, marks[source, task])
        first.setdefault(key, run)
        rows = [row.name for (name, _), row in row_of.items() if name == source and task in {*row.figures, *row.groups}]
        found.setdefault(key, []).extend(rows)
    order = list(COLUMNS)
    for key in sorted(first, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[1])):
        yield Setup(key[1], first[key], tuple(dict.fromkeys(found[key])))


def _warnings(sections: Sequence[Section]) -> Iterator[str]:
    if len(sections) > 1:
        titles = "; ".join(section.title for section in sections)
        yield f"Not to be compared with each other, so each has tables of its own: {titles}."
    for section in sections:
        for task in section.tasks:
            ways = [setup for setup in section.setups if setup.run.name == task]
            if len(ways) > 1:
                descriptions = [_way(setup.run) for setup in ways]
                keys = dict.fromkeys(key for way in descriptions for key in way)
                differ = [key for key in keys if len({way.get(key) for way in descriptions}) > 1]
                marks = ", ".join(setup.mark for setup in ways)
                yield (
                    f"{COLUMNS.get(task, task)} ({section.title}) was asked in {len(ways)} ways, marked {marks}, which "
                    f"are not to be compared: they differ in {', '.join(differ)}."
                )
        short = [
            f"{COLUMNS.get(task, task)} of {row.name}"
            for row in section.rows
            for task, figure in row.figures.items()
            if not figure.counts.complete
        ]
        if short:
            yield (
                f"Without an answer or a verdict to every question, so that the interval spans what is missing "
                f"({section.title}): {', '.join(short)}."
            )
