"""WildJailbreak, adversarial harmful: harmful requests inside jailbreaks as people write them.

Data      the 2,000 rows `adversarial_harmful` of the evaluation file (columns adversarial, label, data_type), from the
          Hub at a pinned commit; the dataset is gated, so that it needs HF_TOKEN and its terms accepted. Or a file with
          a column adversarial, question, query, prompt or text; or 10 bundled rewrites of our own.
Metric    attack success rate: the share of responses that the guard calls unsafe.
Protocol  the adversarial prompt as the user's turn, one greedy answer of at most 4,096 tokens.
Source    Jiang et al. 2024 (arXiv 2406.18510), ODC-BY. Its benign half is the task wildjailbreak_benign.

The evaluation file has no plain form of the request, so that the guard judges the response against the jailbreak
itself.
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import QUESTION, guarded_task, questions_of
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.sources import Public
from eval.task_spec import BuiltTask, TaskRequest
from eval.tasks.pap import REWRITE
from eval.tasks.pap import SAMPLE as PERSUASIVE

PUBLIC = Public("allenai/wildjailbreak", "5ddc12ee397b402a35d575dbf1cd1f026ee4021a", "eval/eval.tsv", "odc-by")
HARMFUL, BENIGN = "adversarial_harmful", "adversarial_benign"


def questions(request: TaskRequest, kind: str, sample: Path = PERSUASIVE) -> tuple[list[Sample], DataUsed]:
    """The prompts of one kind; those of a file without the column data_type are all of it.

    Raises:
        UserError: they cannot be had.
    """
    need = {"question": ("adversarial", *(REWRITE if kind == HARMFUL else ()), *QUESTION)}
    may = {"kind": ("data_type",)}
    return questions_of(request, PUBLIC, sample, need, may, lambda row: row["kind"] in (None, kind))


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the prompts cannot be had, or the guard cannot judge what it is to see.
    """
    return guarded_task("wildjailbreak", request, *questions(request, HARMFUL))


@task
def wildjailbreak(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = guards.attack("wildjailbreak", "WildJailbreak", build)
