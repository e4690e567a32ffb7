"""IFEval: prompts that ask for a form, each with one to three instructions that can be checked.

Dataset   the 541 prompts (columns key, prompt, instruction_id_list, kwargs), from the Hub at a pinned commit; a file of
          the same columns; or 5 bundled ones of our own.
Metric    prompt-level strict accuracy: the share of answers that follow every instruction. `detail` has the loose
          reading (first or last line and stars left out) and, by instruction, strict and loose.
Protocol  the prompt as it is, one greedy answer of at most 4,096 tokens; the answer part is checked.
Source    Zhou et al. 2023 (arXiv 2311.07911), Apache-2.0. The checks are ours (eval/scorers/instructions.py): sentences
          and languages are told by other means than the authors', so that a few verdicts differ.

It says nothing of whether an answer is right, or good.
"""

from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.responses import thought_of
from eval.questions import asked_task
from eval.run.results import Measure
from eval.scorers.instructions import KINDS, follows, variants
from eval.sources import Public, distinct, load
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from pipelines.errors import UserError, unknown

PUBLIC = Public("google/IFEval", "966cd89545d6b6acfd7638bc708b98261ca58e84", "ifeval_input_data.jsonl", "apache-2.0")
SAMPLE = Path(__file__).parent.parent / "data" / "instructions.yaml"
SCORER = "follows_all"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the prompts cannot be had, or one has an instruction that there is not.
    """
    may = {"kinds": ("instruction_id_list",), "arguments": ("kwargs",), "key": ("key", "id")}
    loaded = load(request, PUBLIC, SAMPLE, {"question": ("prompt",)}, may)
    samples = []
    for number, row in enumerate(loaded.rows[: request.limit], start=1):
        name = str(number if row["key"] is None else row["key"])
        kinds, arguments = row["kinds"], row["arguments"] or []
        if not isinstance(kinds, list) or not kinds or len(arguments) != len(kinds):
            raise UserError(
                f"{loaded.source}: prompt {name} needs instruction_id_list and kwargs, two lists of one length."
            )
        for kind in kinds:
            if kind not in KINDS:
                raise unknown(f"instruction of prompt {name} in {loaded.source}", str(kind), KINDS)
        instructions = [
            [kind, {key: value for key, value in dict(own or {}).items() if value is not None}]
            for kind, own in zip(kinds, arguments, strict=True)
        ]
        metadata = {"question": row["question"], "instructions": instructions}
        samples.append(Sample(input=row["question"], id=name, metadata=metadata))
    distinct([str(one.id) for one in samples], loaded)
    return asked_task("ifeval", request, samples, loaded.used(len(samples)), follows_all())


@scorer(metrics=[mean(), stderr()])
def follows_all() -> Scorer:
    """1 where every instruction is followed, else 0; `detail` has each, strict and loose."""

    async def score(state: TaskState, target: Target) -> Score:
        thought = thought_of(state.output)
        each: dict[str, dict[str, bool]] = {}
        for number, (kind, arguments) in enumerate(state.metadata["instructions"], start=1):
            strict = follows(kind, arguments, thought.answer)
            loose = strict or any(follows(kind, arguments, text) for text in variants(thought.answer))
            each[f"{number} {kind}"] = {"strict": strict, "loose": loose}
        detail: dict[str, Any] = {
            "loose": all(one["loose"] for one in each.values()),
            "instructions": each,
            "failure": "" if thought.answer.strip() else "no answer",
        }
        metadata = {"reasoning": thought.reasoning, "detail": detail}
        return Score(value=int(all(one["strict"] for one in each.values())), answer=thought.answer, metadata=metadata)

    return score


@task
def ifeval(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec(
    "ifeval", "IFEval", Measure("followed", "instructions followed, prompt by prompt", "higher"), SCORER, build
)
