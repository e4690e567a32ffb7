"""Questions of a file as samples, and the task that asks them and has a guard score the answers.

Reads what `eval/sources.py` reads; writes nothing.

    samples, used = questions_of(request, PUBLIC, SAMPLE, {"question": ("forbidden_prompt", *QUESTION)})
    return guarded_task("mine", request, samples, used)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Solver

from eval.models.begun import answering
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.sources import Columns, Public, distinct, load, row_id, untrained
from eval.task_spec import BuiltTask, TaskRequest
from pipelines.errors import UserError

# The last two are those of JailbreakBench and AdvBench, and of StrongREJECT. HarmBench's behaviours may need a context,
# which only its own task shows.
QUESTION = ("question", "query", "prompt", "text", "goal", "forbidden_prompt")
CATEGORY = ("category", "type", "technique")
_MAY: Columns = {"category": CATEGORY, "target": ("target",)}


def questions_of(
    request: TaskRequest,
    public: Public,
    sample: Path,
    need: Columns | None = None,
    may: Columns | None = None,
    keep: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    ask: Callable[[Mapping[str, Any]], str] = lambda row: str(row["question"]),
) -> tuple[list[Sample], DataUsed]:
    """The questions as samples.

    Args:
        public: The task's own source.
        sample: The file that comes with the project.
        need: Columns that every row has, `question` at least.
        may: Further columns, kept in the sample's metadata where a row has them.
        keep: Which rows are the task's; the others are counted as left out.
        ask: What is sent for a row.

    Raises:
        UserError: they cannot be had, a question stands twice, or none is left.
    """
    extra = may or {}
    loaded = load(request, public, sample, need or {"question": QUESTION}, {**_MAY, **extra})
    rows = [row for row in untrained(request, loaded) if keep(row)]
    if not rows:
        raise UserError(f"None of the {len(loaded.rows)} rows of {loaded.source} is a question of this task.")
    samples = []
    for row in rows[: request.limit]:
        metadata = {"category": str(row["category"] or ""), "question": row["question"], "target": row["target"]}
        kept = {name: row[name] for name in extra if row[name] is not None and name not in (*metadata, "id")}
        samples.append(Sample(input=ask(row), id=row_id(row, row["question"]), metadata={**metadata, **kept}))
    distinct([str(one.id) for one in samples], loaded)
    return samples, loaded.used(len(samples), left_out=len(loaded.rows) - len(rows))


def guarded_task(
    name: str,
    request: TaskRequest,
    samples: Sequence[Sample],
    used: DataUsed,
    solver: Sequence[Solver] = (),
    prompts: Mapping[str, str] | None = None,
) -> BuiltTask:
    """The task: the samples put to the model, the answers scored by the guard.

    Args:
        samples: As `questions_of` gives them.
        solver: What asks, in place of the sample put as it is.
        prompts: sha256 of the texts that it sends, by file.

    Raises:
        UserError: the guard cannot judge what it is to see.
    """
    asking = list(solver) or [answering(request.settings)]
    return asked_task(
        name, request, samples, used, guards.rescorer(request), {**(prompts or {}), **guards.prompts(request)}, asking
    )


def asked_task(
    name: str,
    request: TaskRequest,
    samples: Sequence[Sample],
    used: DataUsed,
    scorer: Scorer,
    prompts: Mapping[str, str] | None = None,
    solver: Sequence[Solver] = (),
) -> BuiltTask:
    """The task with a scorer of its own; arguments as of `guarded_task`."""
    task = Task(
        dataset=MemoryDataset(list(samples), name=name),
        solver=list(solver) or [answering(request.settings)],
        scorer=scorer,
        config=request.decoding,
        epochs=request.settings["epochs"],
        name=name,
    )
    return BuiltTask(task, used, prompts or {})
