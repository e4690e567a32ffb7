"""The figures of a report on evaluations as frozen values: what report.json holds and both pages show.

Reads and writes nothing; `eval/report/sections.py` makes them out of `Results`. Figures stand in one section only where
protocol and score mode are the same; within it, a task that was asked in several ways (other data, guard or settings)
is marked a, b, ... What was not measured is absent here, never 0.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from curation.report.data import known
from eval.report.cells import Cells
from eval.report.examples import AnswerExample
from eval.run.results import Comparison, Measured, Rate, Results, TaskRun
from pipelines.statistics import Interval

# The columns of the study's Table 1, by what they measure.
REASONING = {"math500": "MATH-500", "aime24": "AIME24", "livecodebench": "LiveCodeBench"}
SAFETY = {"none": "None", "pap": "PAP", "pair": "PAIR"}
OVER_REFUSAL = {"xstest": "XSTest"}
# A model or rules decide these, yes or no, and people's votes can correct them. StrongREJECT's rate is a mean of
# scores; of XSTest's contrasts people vote on harm where the rate is of refusals.
REFUSED = (*OVER_REFUSAL, "orbench", "falsereject", "wildjailbreak_benign")
_ATTACKS = ("crescendo", "harmbench", "jailbreakbench", "wildjailbreak", "prefill", "past_tense", "translation")
CORRECTABLE = (*SAFETY, *_ATTACKS, *REFUSED)
COLUMNS = {**REASONING, **SAFETY, **OVER_REFUSAL}


@dataclass(frozen=True, slots=True)
class Corrected:
    """A rate corrected by so many votes of people. `rate.rate` is nan where they saw no answer of a verdict."""

    rate: Interval
    votes: int


@dataclass(frozen=True, slots=True)
class EvaluationSource:
    """One evaluation of a report: its short name, its folder and its results; `corrected` are those of its rates on
    whose answers people voted, by model, task and group."""

    name: str
    path: Path
    results: Results
    corrected: Mapping[tuple[str, str, str], Corrected] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """One rate, how its task was asked (`mark`), the study's figure for the same row, and ours minus theirs; and the
    rate corrected by people's votes, None where nobody voted."""

    counts: Rate
    mark: str
    study: Interval | None
    difference: Interval | None
    corrected: Corrected | None = None

    @property
    def known(self) -> bool:
        """Whether there is a rate: of answers without a single verdict it would be a 0 that nobody measured."""
        return self.counts.known


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One model in one table: its figures by task, and by task those of the task's groups.

    `method` is the study's word for how the model was trained, "" where nobody said. `evaluations` are sources' names.
    """

    model: str
    method: str
    measured: Measured
    evaluations: tuple[str, ...]
    figures: Mapping[str, Figure]
    groups: Mapping[str, tuple[Figure, ...]]

    @property
    def name(self) -> str:
        """Model and method in one."""
        return f"{self.model} {self.method}".strip()

    def of(self, setup: "Setup") -> tuple[Figure, ...]:
        """The figure of a task asked in that way, then those of its groups."""
        whole = self.figures.get(setup.run.name)
        every = ((whole,) if whole else ()) + self.groups.get(setup.run.name, ())
        return tuple(figure for figure in every if figure.mark == setup.mark)


@dataclass(frozen=True, slots=True)
class Setup:
    """One way that a task was asked, and the rows it was asked of."""

    mark: str
    run: TaskRun
    rows: tuple[str, ...]


class Grouped(NamedTuple):
    """A task's groups as a table: a column a model, a row a group; None where a model has no such group."""

    names: tuple[str, ...]
    rows: Mapping[str, tuple[Figure | None, ...]]


@dataclass(frozen=True, slots=True)
class Section:
    """Figures of one table: one protocol, one score mode. Comparisons and setups name rows."""

    protocol: str
    score: str
    rows: tuple[ReportRow, ...]
    setups: tuple[Setup, ...]
    comparisons: tuple[Comparison, ...]
    examples: tuple[AnswerExample, ...]

    @property
    def title(self) -> str:
        """What sets it apart."""
        return f"protocol {self.protocol}, score {self.score}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the study's columns, then those it has no column for."""
        asked = dict.fromkeys(setup.run.name for setup in self.setups)
        return (*(task for task in COLUMNS if task in asked), *(task for task in asked if task not in COLUMNS))

    @property
    def by_model(self) -> list[tuple[str, list[ReportRow]]]:
        """Rows with a figure in a column of the study's Table 1, those of one model together."""
        shown = [row for row in self.rows if row.figures.keys() & COLUMNS.keys()]
        return [(model, list(rows)) for model, rows in itertools.groupby(shown, key=lambda row: row.model)]

    @property
    def beside_study(self) -> bool:
        """Whether the study has a figure for one of its rows."""
        return any(figure.study for row in self.rows for figure in row.figures.values())

    @property
    def compared(self) -> tuple[Comparison, ...]:
        """The paired tests that a page shows: over whole tasks of the study's, over groups of the others.

        A model without a single verdict is compared with none.
        """
        unknown = {(row.name, task) for row in self.rows for task, figure in row.figures.items() if not figure.known}
        shown = (
            one
            for one in self.comparisons
            if (not one.group or one.task not in COLUMNS)
            and not unknown & {(one.first, one.task), (one.second, one.task)}
        )
        return tuple(sorted(shown, key=lambda one: self.tasks.index(one.task)))

    @property
    def by_category(self) -> list[tuple[Setup, Grouped]]:
        """The study's tasks that have groups, with the figures of each."""
        asked = [(setup, self._grouped(setup)) for setup in self.setups if setup.run.name in COLUMNS]
        return [(setup, found) for setup, found in asked if found.rows]

    def _grouped(self, setup: Setup) -> Grouped:
        columns = {}
        for row in self.rows:
            own = {figure.counts.group: figure for figure in row.groups.get(setup.run.name, ())}
            if own and next(iter(own.values())).mark == setup.mark:
                columns[row.name] = own
        groups = dict.fromkeys(group for own in columns.values() for group in own)
        rows = {group: tuple(own.get(group) for own in columns.values()) for group in groups}
        return Grouped(tuple(columns), rows)

    @property
    def others(self) -> tuple[str, ...]:
        """Tasks that the study's Table 1 has no column for."""
        return tuple(task for task in self.tasks if task not in COLUMNS)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report shows. `rehearsal`: whether the rehearsal teacher answered or judged.

    `rehearsed` names the models that were trained on its rows; `tables` are those beside the rates.
    """

    evaluations: tuple[str, ...]
    suites: tuple[str, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...]
    rehearsal: bool
    rehearsed: tuple[str, ...] = ()
    tables: tuple[Cells, ...] = ()

    @property
    def models(self) -> tuple[ReportRow, ...]:
        """Every model once, as its first section has it."""
        seen = {row.name: row for section in reversed(self.sections) for row in section.rows}
        return tuple(seen[name] for name in dict.fromkeys(row.name for part in self.sections for row in part.rows))

    @property
    def compared(self) -> bool:
        """Whether there is a paired test in it."""
        return any(section.compared for section in self.sections)

    @property
    def beside_study(self) -> bool:
        """Whether the study has a figure for one of its rows."""
        return any(figure.study for section in self.sections for row in section.rows for figure in row.figures.values())

    def plain(self) -> dict[str, Any]:
        """As JSON has it: lists, and null for a rate that there is not."""
        return dict(known(TypeAdapter(Report).dump_python(self, mode="json")))
