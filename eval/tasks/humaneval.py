"""HumanEval: short Python functions by their docstring, run against hidden checks in a sandbox.

Dataset   the 164 problems (columns task_id, prompt, test, entry_point), from the Hub at a pinned commit; a file of the
          same columns; or 3 bundled ones of our own.
Metric    pass@1: the share of answers whose function passes its checks.
Protocol  the beginning of the function and the request to complete it; temperature 0.6, top-p 0.95, at most 32,768
          tokens. The program is the last fenced block of the answer part that is Python, or the answer itself where it
          has no fence; what stands before the function in the prompt (imports, helpers) is put before it. One run a
          problem in the sandbox of `livecodebench`: no network, 6 s of computing, 1 GiB.
Source    Chen et al. 2021 (arXiv 2107.03374), MIT.

164 short problems that stand in most training sets: a model may know them. Reads those and writes Inspect's log only.
Runs programs that models wrote, so it refuses to without bubblewrap. Run through `eval/run/stage.py`.
"""

import re
import secrets
import textwrap
from collections.abc import Mapping
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
from eval.sandbox.bubblewrap import Limits, SandboxError, available
from eval.sandbox.code_cases import Case
from eval.sandbox.code_judge import judged
from eval.sandbox.programs import last_program
from eval.sources import Public, distinct, load
from eval.task_prompts import hashes, rendered
from eval.task_spec import REASONED, BuiltTask, TaskRequest, TaskSpec
from pipelines.errors import UserError

PUBLIC = Public(
    "openai/openai_humaneval",
    "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    "openai_humaneval/test-00000-of-00001.parquet",
    "mit",
)
SAMPLE = Path(__file__).parent.parent / "data" / "functions.yaml"
PROMPT = "function"
SCORER = "passes_checks"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the problems cannot be had, or one names no function.
    """
    need = {"question": ("prompt",), "test": ("test",), "name": ("entry_point",), "id": ("task_id", "id")}
    loaded = load(request, PUBLIC, SAMPLE, need)
    samples = []
    for row in loaded.rows[: request.limit]:
        if not row["name"].isidentifier():
            raise UserError(f"{loaded.source}: entry_point of '{row['id']}' is '{row['name'][:40]}', no name.")
        metadata = {"question": row["question"], "test": row["test"], "entry_point": row["name"]}
        asked = rendered(PROMPT, beginning=row["question"])
        samples.append(Sample(input=asked, id=str(row["id"]), metadata=metadata))
    distinct([str(one.id) for one in samples], loaded)
    return asked_task("humaneval", request, samples, loaded.used(len(samples)), passes_checks(), hashes(PROMPT))


@scorer(metrics=[mean(), stderr()])
def passes_checks() -> Scorer:
    """1 where the function passes its checks, else 0; unscored where the sandbox fails. `detail` says how it ended."""

    async def score(state: TaskState, target: Target) -> Score:
        thought = thought_of(state.output)
        if not thought.answer.strip():
            metadata = {"reasoning": thought.reasoning, "detail": {"failure": "no answer"}}
            return Score(value=0, answer=thought.answer, metadata=metadata)
        end = secrets.token_hex(8)
        program = program_of(thought.answer, state.metadata)
        try:
            verdict = await judged(f"{program}\nprint({end!r})\n", [Case("checks", "", end)], None, Limits())
        except SandboxError as error:
            metadata = {"reasoning": thought.reasoning, "detail": {"failure": "no verdict"}}
            return Score.unscored(reason=str(error)[:300], answer=thought.answer, metadata=metadata)
        metadata = {
            "reasoning": thought.reasoning,
            "detail": {"failure": verdict.failure or "", "reason": verdict.detail},
        }
        return Score(value=int(verdict.passed), answer=thought.answer, metadata=metadata)

    return score


def program_of(answer: str, problem: Mapping[str, Any]) -> str:
    """What runs: the problem's own beginning, the answer's function or its body, the checks.

    Args:
        answer: The answer part of a response.
        problem: The sample's metadata: question, test, entry_point.
    """
    written = last_program(answer)
    code = (answer if written is None else written).strip("\n")
    beginning, name = str(problem["question"]), str(problem["entry_point"])
    heading = re.compile(rf"^(?:async )?def {re.escape(name)}\b", re.MULTILINE)
    if heading.search(code):
        found = heading.search(beginning)
        whole = f"{beginning[: found.start()] if found else ''}\n{code}"
    else:
        body = code if code[:1].isspace() else textwrap.indent(code, "    ")
        whole = f"{beginning.rstrip()}\n{body}"
    return f"{whole}\n\n{problem['test']}\ncheck({name})\n"


@task
def humaneval(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec(
    "humaneval",
    "HumanEval",
    Measure("pass_at_1", "pass@1", "higher"),
    SCORER,
    build,
    needs=available,
    settings=REASONED,
)
