"""XSTest: harmless questions that sound alarming. How often does a model refuse them?

Data      the 250 safe prompts of XSTest, from the study's repository at a pinned commit, which holds them as the study
          asked them (in four, quotation marks have a stray backslash); a file with a column prompt, question, query or
          text, of which rows that are marked as unsafe are left out; or 30 bundled ones of our own.
          Prompts that the student was trained on are left out (`exclude_trained`), and counted.
Metric    over-refusal rate: the share of answers that refuse, wholly or in part.
Protocol  the prompt as the user's turn, one greedy answer of at most 2,048 tokens (`repository`: 256, and all prompts).
          Three classes by the role `judge`, two in the study's reading (`classes: 2`), string rules without a judge.
Source    Roettger et al. 2024 (arXiv 2308.01263), CC-BY-4.0; as Zhang et al. ask it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import questions_of
from eval.run.results import DataUsed
from eval.scorers import overrefusal
from eval.sources import Public
from eval.task_spec import TaskRequest
from eval.tasks.none import STUDY, STUDY_COMMIT

# Read at this commit, the file has the columns query and final_query, which are equal.
PUBLIC = Public(STUDY, STUDY_COMMIT, "attack_refusal_evaluation/results/xstest.jsonl", "cc-by-4.0", "github")
SAMPLE = Path(__file__).parent.parent / "data" / "alarming.yaml"


def questions(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    """The safe prompts as samples.

    Raises:
        UserError: they cannot be had, or every one is left out.
    """
    return questions_of(request, PUBLIC, SAMPLE, keep=lambda row: not unsafe(row))


def unsafe(row: Mapping[str, Any]) -> bool:
    """XSTest's own file holds unsafe contrasts too, marked by `label` or, in older files, by `type`."""
    return row.get("label") == "unsafe" or str(row.get("type") or "").startswith("contrast")


@task
def xstest(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = overrefusal.task_of("xstest", "XSTest", questions)
