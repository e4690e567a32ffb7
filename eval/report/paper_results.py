"""The study's own figures, to hold ours against: Tables 1 to 3 of the paper, with the intervals that it does not print.

Reads eval/data/study_table1.csv (four models, raw and six variants), study_table2.csv (variants from other teachers)
and study_table3.csv (other people's models), all in percent; writes nothing.

Source: Zhang et al., "How Should We Enhance the Safety of Large Reasoning Models: An Empirical Study", ACL 2026,
arXiv 2505.15404 v2.
"""

import csv
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipelines.settings.old_names import current_name
from pipelines.statistics import Interval, wilson_share

CITATION = "Zhang et al., ACL 2026 (arXiv 2505.15404)"
METHODS = ("raw", "direct", "realsafe", "improved", "short", "template", "nocot")
# Questions behind each figure. AIME's are asked four times each; counted as 30, since the paper does not tell how the
# answers to one question hang together, and four that always agree are worth one.
QUESTIONS: Mapping[str, int] = {
    "math500": 500,
    "aime24": 30,
    "livecodebench": 166,
    "none": 50,
    "pap": 50,
    "pair": 50,
    "xstest": 150,
}
NOTE = (
    f"The study is {CITATION}. `direct` is its default. It prints no intervals: these are Wilson's for its numbers of "
    "questions ("
    + ", ".join(f"{task} {n}" for task, n in QUESTIONS.items())
    + "). Diff. is ours minus the study's, in points, with Newcombe's interval; it means little where questions, guard "
    "or protocol are not the study's, and for PAIR, whose attacker's and judge's prompts are ours."
)
_DATA = Path(__file__).parents[1] / "data"
# The model whose rows Table 2 compares.
_TABLE_2 = "DeepSeek-R1-Distill-Qwen-7B"


class StudyRow(NamedTuple):
    """A row of the study: one model and method, "" where the model is a third party's."""

    model: str
    method: str


@functools.cache
def study() -> Mapping[StudyRow, Mapping[str, Interval]]:
    """Every row of the three tables: shares with Wilson intervals by task.

    A row of Table 2 whose teacher is not the one of Table 1 has the method `variant@teacher`.
    """
    rows: dict[StudyRow, Mapping[str, Interval]] = {}
    for line in _lines("study_table1.csv"):
        rows[StudyRow(line["model"], method_now(line["method"]))] = _figures(line)
    for line in _lines("study_table2.csv"):
        rows[StudyRow(_TABLE_2, method_now(f"{line['variant']}@{line['teacher']}"))] = _figures(line)
    for line in _lines("study_table3.csv"):
        rows[StudyRow(line["model"], "")] = _figures(line)
    return rows


def study_row(base: str, variant: str) -> StudyRow | None:
    """The study's row for a base model, with or without its organisation, and a variant; None where it has none."""
    if not base:
        return None
    wanted = (base.rpartition("/")[2].casefold(), method_now(variant.casefold()))
    return next((row for row in study() if (row.model.casefold(), row.method.casefold()) == wanted), None)


def method_now(method: str) -> str:
    """A method of the study by the variant's name here: `direct` for its default, `direct@Gemini-2.5-Pro` as well."""
    name, at, teacher = method.partition("@")
    return f"{current_name(name)}{at}{teacher}"


def difference(ours: Interval, theirs: Interval) -> Interval:
    """Ours minus theirs, two independent rates, with the 95 % interval that their own intervals imply.

    Source: Newcombe, "Interval Estimation for the Difference between Independent Proportions", Statistics in Medicine
    17 (1998), method 10.
    """
    low = math.hypot(ours.rate - ours.low, theirs.high - theirs.rate)
    high = math.hypot(ours.high - ours.rate, theirs.rate - theirs.low)
    rate = ours.rate - theirs.rate
    return Interval(rate, rate - low, rate + high)


def _lines(name: str) -> list[dict[str, str]]:
    with (_DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _figures(line: Mapping[str, str]) -> Mapping[str, Interval]:
    return {task: wilson_share(float(line[task]) / 100, n) for task, n in QUESTIONS.items()}
