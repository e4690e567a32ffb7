r"""MATH-500: competition problems of five levels in seven subjects, answered with an expression.

Dataset   the 500 problems of MATH that Lightman et al. held out (columns problem, answer, subject, level, unique_id),
          from the Hub at a pinned commit; or a file with a column problem or question, and answer; or 12 bundled ones.
Metric    accuracy: the share of answers whose last \boxed is equivalent to the gold answer, by math-verify. A response
          that was cut off or boxes nothing is wrong.
Protocol  the problem and the request to reason and to box the answer as the user's turn; temperature 0.6, top-p 0.95,
          at most 32,768 tokens, one sample each (`epochs` draws more, for pass@k).
Source    Hendrycks et al. 2021 (arXiv 2103.03874), Lightman et al. 2023 (arXiv 2305.20050); MIT.
"""

from pathlib import Path

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.scorers.mathematics import ACCURACY, SCORER, built
from eval.sources import Public
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec

PUBLIC = Public("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test.jsonl", "mit")
SAMPLE = Path(__file__).parent.parent / "data" / "mathematics.yaml"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the problems cannot be had.
    """
    return built("math500", request, PUBLIC, SAMPLE)


@task
def math500(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec("math500", "MATH-500", ACCURACY, SCORER, build)
