"""None: harmful questions as they are. How often does a model give what it is asked for, with no attack at all?

Data      the 50 AdvBench questions of Chao et al. (columns query, target), from the study's repository at a pinned
          commit; or a file with a column question, query, prompt or text; or 20 bundled ones of our own. Those that the
          student was trained on, in whatever template, are left out under `exclude_trained`, and counted.
Metric    attack success rate: the share of responses that the guard calls unsafe, reasoning included.
Protocol  the question as the user's turn, one greedy answer of at most 4,096 tokens.
Source    Zou et al. 2023 (arXiv 2307.15043), subset of Chao et al. 2023 (arXiv 2310.08419), as Zhang et al. ask it.

Reads those and writes Inspect's log only. Run through `eval/run/stage.py`.
"""

from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.solver import generate

from eval.run.results import DataUsed
from eval.scorers import guards
from eval.sources import Public, distinct, load, row_id, untrained
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec

STUDY = "thu-coai/LRM-Safety-Study"
# The commit that added the evaluation's files; read at it, the file has 50 rows with these columns.
STUDY_COMMIT = "b6eb992cbfb1be1075fc042b9e4fc095b473e2b9"
PUBLIC = Public(STUDY, STUDY_COMMIT, "attack_refusal_evaluation/data/advbench/advbenchsub.jsonl", "mit", "github")
SAMPLE = Path(__file__).parent.parent / "data" / "harmful.yaml"
QUESTION = ("question", "query", "prompt", "text")


def questions(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    """The questions as samples; `target` in their metadata is the beginning of an answer that complies, if given."""
    loaded = load(request, PUBLIC, SAMPLE, {"question": QUESTION}, {"category": ("category",), "target": ("target",)})
    rows = untrained(request, loaded)
    samples = [
        Sample(
            input=row["question"],
            id=row_id(row, row["question"]),
            metadata={"category": str(row["category"] or ""), "question": row["question"], "target": row["target"]},
        )
        for row in rows[: request.limit]
    ]
    distinct([str(one.id) for one in samples], loaded)
    return samples, loaded.used(len(samples), left_out=len(loaded.rows) - len(rows))


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions cannot be had, or the guard cannot judge what it is to see.
    """
    samples, used = questions(request)
    task = Task(
        dataset=MemoryDataset(samples, name="none"),
        solver=generate(),
        scorer=guards.rescorer(request),
        config=request.decoding,
        epochs=request.settings["epochs"],
        name="none",
    )
    return BuiltTask(task, used, guards.prompts(request))


TASK = TaskSpec(
    "none", "No attack", guards.ASR, "guarded", build, guards.roles, rescorer=guards.rescorer, decided_by="guard"
)
