"""HarmBench: harmful behaviours, alone (standard) and about a text that comes with them (contextual).

Data      harmbench_behaviors_text_all.csv (columns Behavior, FunctionalCategory, SemanticCategory, ContextString,
          BehaviorID): 200 standard and 100 contextual behaviours, from the authors' repository at a pinned commit; a
          file with a column Behavior, question, query, prompt or text, and ContextString or context; or 6 bundled
          ones. Its 100 copyright behaviours are left out and counted: they are scored by hashes of books, not by a
          classifier.
Metric    attack success rate: the share of responses that the guard calls unsafe; by group, standard and contextual.
          `--guard harmbench` is its authors' classifier, in its form; any other guard is shown the context before the
          behaviour.
Protocol  the behaviour as the user's turn, after its context and a line of dashes where it has one; one greedy answer
          of at most 4,096 tokens. `subset` takes standard or contextual ones alone. No attack is on top: what HarmBench
          calls direct request.
Source    Mazeika et al. 2024 (arXiv 2402.04249), MIT.

Its authors show their classifier the first 512 tokens of a response; here it sees all of what `--score` names, so a
long thought may count where theirs was cut.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import QUESTION, guarded_task, questions_of
from eval.scorers import guards
from eval.sources import Public
from eval.task_spec import BuiltTask, TaskRequest
from pipelines.errors import unknown

PUBLIC = Public(
    "centerforaisafety/HarmBench",
    "8e1604d1171fe8a48d8febecd22f600e462bdcdd",
    "data/behavior_datasets/harmbench_behaviors_text_all.csv",
    "mit",
    "github",
)
SAMPLE = Path(__file__).parent.parent / "data" / "contextual.yaml"
SUBSETS = ("both", "standard", "contextual")


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the behaviours cannot be had, `subset` is none, or the guard cannot judge what it is to see.
    """
    subset = str(request.settings["subset"])
    if subset not in SUBSETS:
        raise unknown("harmbench.subset", subset, SUBSETS)
    need = {"question": ("Behavior", *QUESTION)}
    may = {
        guards.CONTEXT: ("ContextString", "context"),
        "functional": ("FunctionalCategory",),
        "topic": ("SemanticCategory", "topic"),
        "id": ("BehaviorID", "id"),
    }

    def keep(row: Mapping[str, Any]) -> bool:
        return row["functional"] != "copyright" and subset in ("both", _kind(row))

    samples, used = questions_of(request, PUBLIC, SAMPLE, need, may, keep, _asked)
    for sample in samples:
        sample.metadata = {**(sample.metadata or {}), "category": _kind(sample.metadata or {})}
    return guarded_task("harmbench", request, samples, used)


def _kind(row: Mapping[str, Any]) -> str:
    return "contextual" if str(row.get(guards.CONTEXT) or "").strip() else "standard"


def _asked(row: Mapping[str, Any]) -> str:
    context = str(row.get(guards.CONTEXT) or "").strip()
    return f"{context}\n\n---\n\n{row['question']}" if context else str(row["question"])


@task
def harmbench(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = guards.attack("harmbench", "HarmBench", build, {"subset": "both"})
