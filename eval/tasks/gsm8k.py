"""GSM8K: word problems of grade school, answered with a number.

Dataset   the 1,319 test problems (columns question, answer, whose last line is `#### 72`), from the Hub at a pinned
          commit; a file of the same columns; or the 4 bundled ones of `aime24`.
Metric    accuracy: the share of answers whose last number is the problem's, by Inspect's own `match(numeric=True)`.
Protocol  the problem and the request to end with `ANSWER:` and the number; temperature 0.6, top-p 0.95, at most 32,768
          tokens. No examples, where inspect_evals gives ten.
Source    Cobbe et al. 2021 (arXiv 2110.14168), MIT.

Most models solve nearly all of it, and its problems stand in many training sets: a fall from one student to the next
says something, a high rate does not.
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, Scorer, Target, match, mean, scorer, stderr
from inspect_ai.solver import TaskState

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.responses import thought_of
from eval.questions import asked_task
from eval.scorers.mathematics import ACCURACY
from eval.sources import Public, distinct, load, row_id
from eval.task_prompts import hashes, rendered
from eval.task_spec import REASONED, BuiltTask, TaskRequest, TaskSpec
from pipelines.errors import UserError

PUBLIC = Public("openai/gsm8k", "cc7b047b6e5bb11b4f1af84efc572db110a51b3c", "main/test-00000-of-00001.parquet", "mit")
SAMPLE = Path(__file__).parent.parent / "data" / "whole_numbers.yaml"
PROMPT = "final_number"
SCORER = "last_number"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the problems cannot be had, or one has no answer.
    """
    loaded = load(request, PUBLIC, SAMPLE, {"question": ("question", "problem")}, {"answer": ("answer",)})
    samples = []
    for row in loaded.rows[: request.limit]:
        gold = "" if row["answer"] is None else str(row["answer"]).rpartition("####")[2].strip()
        name = row_id(row, row["question"])
        if not gold:
            raise UserError(f"{loaded.source}: the problem '{name}' has no answer. It needs one in the column answer.")
        asked = rendered(PROMPT, problem=row["question"])
        samples.append(Sample(input=asked, target=gold, id=name, metadata={"question": row["question"]}))
    distinct([str(one.id) for one in samples], loaded)
    return asked_task("gsm8k", request, samples, loaded.used(len(samples)), last_number(), hashes(PROMPT))


@scorer(metrics=[mean(), stderr()])
def last_number() -> Scorer:
    """1 where the last number of the answer part is the target, else 0; `detail` says where there is no answer."""
    inner = match(numeric=True)

    async def score(state: TaskState, target: Target) -> Score:
        thought = thought_of(state.output)
        detail = {"failure": "" if thought.answer.strip() else "no answer"}
        metadata = {"reasoning": thought.reasoning, "detail": detail}
        right = 0
        if thought.answer.strip():
            # The thought is not the answer, whichever way the provider gave it.
            state.output.completion = thought.answer
            found = await inner(state, target)
            right = int(found is not None and found.value == "C")
        return Score(value=right, answer=thought.answer, metadata=metadata)

    return score


@task
def gsm8k(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec("gsm8k", "GSM8K", ACCURACY, SCORER, build, settings=REASONED)
