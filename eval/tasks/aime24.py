r"""AIME 2024: thirty contest problems, each answered with a whole number from 0 to 999.

Dataset   both papers of 2024 (columns id, problem, answer), from the Hub at a pinned commit; or a file with a column
          problem or question, and answer; or those of the bundled problems that have such an answer.
Metric    accuracy: the share of answers whose last \boxed is that very number. A response that was cut off or boxes
          nothing is wrong. With 30 problems one flipped answer of four is 0.8 points.
Protocol  the problem and the request to reason and to box the answer as the user's turn; temperature 0.6, top-p 0.95,
          at most 32,768 tokens, four samples each: their mean, and pass@k.
Source    American Invitational Mathematics Examination I and II of 2024, Mathematical Association of America.
"""

from pathlib import Path

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.scorers.mathematics import ACCURACY, SCORER, built
from eval.sources import NOT_STATED, Public
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec

PUBLIC = Public(
    "HuggingFaceH4/aime_2024",
    "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
    "data/train-00000-of-00001.parquet",
    NOT_STATED,
)
SAMPLE = Path(__file__).parent.parent / "data" / "whole_numbers.yaml"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the problems cannot be had, or an answer is not a whole number from 0 to 999.
    """
    return built("aime24", request, PUBLIC, SAMPLE, whole_numbers=True)


@task
def aime24(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec("aime24", "AIME 2024", ACCURACY, SCORER, build)
