r"""What the mathematical tasks share: problems as samples, one prompt, and the score of a boxed final answer.

The answer part of a response is graded, never the reasoning, but where the setting `part` is "full". A response that
was cut off in its reasoning, or that boxes nothing, is a wrong answer (value 0): the model was asked and did not give
one. It is told apart by `detail`, and counted as truncated by the engine. Only where the grading itself gives no
verdict is a sample unscored.

Reads what `eval/sources.py` reads; writes Inspect's log only. `eval/tasks/math500.py` and `aime24.py` are built on it.
"""

from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from eval.models.begun import answering
from eval.models.responses import part_of, thought_of
from eval.run.results import DataUsed, Measure
from eval.scorers.boxed import last_boxed
from eval.scorers.grading import Grade, grade, grade_whole, whole
from eval.sources import Public, distinct, load, row_id
from eval.task_prompts import hashes, rendered
from eval.task_spec import BuiltTask, TaskRequest
from pipelines.errors import UserError
from pipelines.thinking import Thought

ACCURACY = Measure("accuracy", "accuracy", "higher")
SCORER = "boxed_answer"
PROMPT = "mathematics"


def problems(request: TaskRequest, public: Public, sample: Path, whole_numbers: bool) -> tuple[list[Sample], DataUsed]:
    """The problems as samples, the gold answer as target; subject and level are kept where there are any.

    Raises:
        UserError: they cannot be had, or one has no answer, or none that is a whole number where it has to be.
    """
    loaded = load(
        request,
        public,
        sample,
        {"problem": ("problem", "question")},
        {"answer": ("answer",), "subject": ("subject", "category"), "level": ("level",)},
    )
    samples = []
    for row in loaded.rows[: request.limit]:
        gold = "" if row["answer"] is None else str(row["answer"]).strip()
        name = row_id(row, row["problem"])
        if not gold:
            raise UserError(f"{loaded.source}: the problem '{name}' has no answer. It needs one in the column answer.")
        if whole_numbers and whole(gold) is None:
            raise UserError(f"{loaded.source}: the answer '{gold[:40]}' of '{name}' is no whole number from 0 to 999.")
        metadata = {"category": str(row["subject"] or ""), "question": row["problem"], "level": row["level"]}
        asked_text = rendered(PROMPT, problem=row["problem"]) if _boxed(request) else row["problem"]
        samples.append(Sample(input=asked_text, target=gold, id=name, metadata=metadata))
    distinct([str(one.id) for one in samples], loaded)
    return samples, loaded.used(len(samples))


def built(name: str, request: TaskRequest, public: Public, sample: Path, whole_numbers: bool = False) -> BuiltTask:
    """The task over these problems.

    Raises:
        UserError: they cannot be had.
    """
    samples, used = problems(request, public, sample, whole_numbers)
    task = Task(
        dataset=MemoryDataset(samples, name=name),
        solver=answering(request.settings),
        scorer=boxed_answer(whole_numbers, request.settings.get("part", "answer")),
        config=request.decoding,
        epochs=request.settings["epochs"],
        name=name,
    )
    return BuiltTask(task, used, hashes(PROMPT) if _boxed(request) else {})


def _boxed(request: TaskRequest) -> bool:
    """Whether the prompt asks for reasoning and a box; else it is the bare problem."""
    return bool(request.settings.get("ask_boxed", True))


@scorer(metrics=[mean(), stderr()], name=SCORER)
def boxed_answer(whole_numbers: bool = False, part: str = "answer") -> Scorer:
    """1 where the last box of the answer holds the gold answer, else 0; unscored where grading gives no verdict.

    `detail`: `final` is what the box holds, `failure` why there is nothing to grade: "no answer" (only reasoning, or
    nothing at all) or "no box".
    """
    part_of(Thought("", "", "none"), part)

    async def score(state: TaskState, target: Target) -> Score:
        thought = thought_of(state.output)
        seen = part_of(thought, part)
        final = last_boxed(seen)
        failure = "" if final is not None else "no box" if seen.strip() else "no answer"
        metadata = {"reasoning": thought.reasoning, "detail": {"final": final, "failure": failure}}
        if final is None:
            return Score(value=0, answer=thought.answer, explanation=failure, metadata=metadata)
        found = await _graded(target.text, final, whole_numbers)
        if found.right is None:
            return Score.unscored(reason=found.reason, answer=thought.answer, metadata=metadata)
        return Score(value=int(found.right), answer=thought.answer, metadata=metadata)

    return score


async def _graded(gold: str, final: str, whole_numbers: bool) -> Grade:
    return grade_whole(gold, final) if whole_numbers else await grade(gold, final)
