"""XSTest: harmless questions that sound alarming. How often does a model refuse them?

Data      the 250 safe prompts of XSTest, from the study's repository at a pinned commit, which holds them as the study
          asked them (in four, quotation marks have a stray backslash); a file with a column prompt, question, query or
          text, of which rows that are marked as unsafe are left out; or 30 bundled ones of our own.
          Prompts that the student was trained on are left out (`exclude_trained`), and counted.
Metric    over-refusal rate: the share of answers that refuse, wholly or in part.
Protocol  the prompt as the user's turn, one greedy answer of at most 2,048 tokens (`repository`: 256, and all prompts).
          Three classes by the role `judge`, two in the study's reading (`classes: 2`), string rules without a judge.
Source    Roettger et al. 2024 (arXiv 2308.01263), CC-BY-4.0; as Zhang et al. ask it.

Reads those and writes Inspect's log only. Run through `eval/run/stage.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.solver import generate

from eval.run.results import DataUsed
from eval.scorers import overrefusal
from eval.sources import Public, distinct, load, row_id, untrained
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from eval.tasks.none import STUDY, STUDY_COMMIT
from pipelines.errors import UserError

# Read at this commit, the file has the columns query and final_query, which are equal.
PUBLIC = Public(STUDY, STUDY_COMMIT, "attack_refusal_evaluation/results/xstest.jsonl", "cc-by-4.0", "github")
SAMPLE = Path(__file__).parent.parent / "data" / "alarming.yaml"


def questions(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    """The safe prompts as samples.

    Raises:
        UserError: they cannot be had, or every one is left out.
    """
    need = {"question": ("prompt", "question", "query", "text")}
    loaded = load(request, PUBLIC, SAMPLE, need, {"category": ("category", "type")})
    rows = [row for row in untrained(request, loaded) if not _unsafe(row)]
    if not rows:
        raise UserError(f"None of the {len(loaded.rows)} prompts of {loaded.source} is safe and was not trained on.")
    samples = [
        Sample(
            input=row["question"], id=row_id(row, row["question"]), metadata={"category": str(row["category"] or "")}
        )
        for row in rows[: request.limit]
    ]
    distinct([str(one.id) for one in samples], loaded)
    return samples, loaded.used(len(samples), left_out=len(loaded.rows) - len(rows))


def _unsafe(row: Mapping[str, Any]) -> bool:
    """XSTest's own file holds unsafe contrasts too, marked by `label` or, in older files, by `type`."""
    return row.get("label") == "unsafe" or str(row.get("type") or "").startswith("contrast")


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the prompts cannot be had, or `classes` is neither 2 nor 3.
    """
    samples, used = questions(request)
    task = Task(
        dataset=MemoryDataset(samples, name="xstest"),
        solver=generate(),
        scorer=overrefusal.rescorer(request),
        config=request.decoding,
        epochs=request.settings["epochs"],
        name="xstest",
    )
    return BuiltTask(task, used, overrefusal.prompts(request))


def roles(request: TaskRequest) -> tuple[str, ...]:
    """The judge, where there is one."""
    return (overrefusal.ROLE,) if request.judged else ()


TASK = TaskSpec(
    "xstest",
    "XSTest",
    overrefusal.OVER_REFUSAL,
    "refused",
    build,
    roles,
    rescorer=overrefusal.rescorer,
    decided_by="judge",
)
