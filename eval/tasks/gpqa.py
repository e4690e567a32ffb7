"""GPQA diamond: questions of graduate level in biology, chemistry and physics, with four choices.

Dataset   the 198 questions of gpqa_diamond.csv (columns Question, Correct Answer, Incorrect Answer 1 to 3, High-level
          domain, Record ID), from the Hub at a pinned commit; the dataset is gated, so that it needs HF_TOKEN and its
          terms accepted. Or a file of the same columns; or 6 bundled ones of our own.
Metric    accuracy: the share of answers that name the right letter; a guess is right one time in four. By Inspect's own
          prompt, order of choices (shuffled by a fixed seed, as inspect_evals has it), reading and scoring.
Protocol  temperature 0.6, top-p 0.95, at most 32,768 tokens, one answer a question (inspect_evals: four).
Source    Rein et al. 2023 (arXiv 2311.12022), CC-BY-4.0. Its authors ask that no question be shown in public: keep
          logs and reports of it to yourself.

With 198 questions the interval is about 14 points wide at 50 %.
"""

from pathlib import Path
from typing import Any

from inspect_ai import Task, task, task_with
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, choice, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, multiple_choice, solver

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.begun import answering
from eval.models.responses import thought_of
from eval.questions import asked_task
from eval.scorers.mathematics import ACCURACY
from eval.sources import Public, distinct, load, row_id
from eval.task_spec import REASONED, BuiltTask, TaskRequest, TaskSpec

PUBLIC = Public("Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "gpqa_diamond.csv", "cc-by-4.0")
SAMPLE = Path(__file__).parent.parent / "data" / "choices.yaml"
SCORER = "chosen"
SEED = 42
_CHOICES = ("correct", "wrong_1", "wrong_2", "wrong_3")


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions cannot be had, or one lacks a choice.
    """
    need = {
        "question": ("Question", "question"),
        "correct": ("Correct Answer", "correct"),
        **{f"wrong_{number}": (f"Incorrect Answer {number}", f"wrong_{number}") for number in (1, 2, 3)},
    }
    loaded = load(
        request, PUBLIC, SAMPLE, need, {"category": ("High-level domain", "category"), "id": ("Record ID", "id")}
    )
    samples = [
        Sample(
            input=row["question"],
            choices=[row[name] for name in _CHOICES],
            target="A",
            id=row_id(row, row["question"]),
            metadata={"category": str(row["category"] or ""), "question": row["question"]},
        )
        for row in loaded.rows
    ]
    distinct([str(one.id) for one in samples], loaded)
    # Shuffled before the limit, so that a question has one order however many are asked.
    dataset = MemoryDataset(samples, name="gpqa")
    dataset.shuffle_choices(seed=SEED)
    chosen = list(dataset)[: request.limit]
    built = asked_task("gpqa", request, chosen, loaded.used(len(chosen)), letter(), solver=[choosing(request.settings)])
    return BuiltTask(task_with(built.task, dataset=dataset[: request.limit]), built.data)


@solver
def choosing(settings: Any) -> Solver:
    """Inspect's own question with its choices, put to the model as the setting `thinking` has it."""
    inner, put = multiple_choice(cot=True), answering(settings)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        async def asked(state: TaskState, *_: Any, **__: Any) -> TaskState:
            state = await put(state, generate)
            state.output.completion = thought_of(state.output).answer
            return state

        return await inner(state, asked)

    return solve


@scorer(metrics=[mean(), stderr()], name=SCORER)
def letter() -> Scorer:
    """1 for the right letter, else 0; `detail` says where no letter could be read."""
    inner = choice()

    async def score(state: TaskState, target: Target) -> Score:
        thought = thought_of(state.output)
        found = await inner(state, target)
        named = bool(found is not None and found.answer)
        failure = "" if named else "no letter" if thought.answer.strip() else "no answer"
        metadata = {"reasoning": thought.reasoning, "detail": {"failure": failure}}
        right = int(found is not None and found.value == "C")
        return Score(value=right, answer=thought.answer, metadata=metadata)

    return score


@task
def gpqa(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec("gpqa", "GPQA diamond", ACCURACY, SCORER, build, settings=REASONED)
