"""JailbreakBench: 100 misuse behaviours in ten categories of a provider's policy.

Data      harmful-behaviors.csv of JBB-Behaviors (columns Goal, Target, Behavior, Category, Source), from the Hub at a
          pinned commit; a file with a column Goal, question, query, prompt or text; or 20 bundled ones of our own.
Metric    attack success rate: the share of responses that the guard calls unsafe, by category as well.
Protocol  the goal as the user's turn, one greedy answer of at most 4,096 tokens. The benchmark's leaderboard asks
          strings that its attacks found (its artifacts); a file with such strings in the column `asked` has them sent,
          and the goal judged.
Source    Chao et al. 2024 (arXiv 2404.01318), MIT.

Its authors' judge is Llama-3-70B with their own prompt: name a guard that you trust, and compare figures of one guard
only.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import CATEGORY, QUESTION, guarded_task, questions_of
from eval.scorers import guards
from eval.sources import Public
from eval.task_spec import BuiltTask, TaskRequest
from eval.tasks.none import SAMPLE

PUBLIC = Public(
    "JailbreakBench/JBB-Behaviors", "886acc352a31533ffbcf4ef22c744658688086fc", "data/harmful-behaviors.csv", "mit"
)


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the behaviours cannot be had, or the guard cannot judge what it is to see.
    """
    need = {"question": ("Goal", *QUESTION)}
    may = {"target": ("Target", "target"), "category": ("Category", *CATEGORY), "asked": ("asked", "jailbreak")}
    samples, used = questions_of(
        request, PUBLIC, SAMPLE, need, may, ask=lambda row: str(row["asked"] or row["question"])
    )
    return guarded_task("jailbreakbench", request, samples, used)


@task
def jailbreakbench(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = guards.attack("jailbreakbench", "JailbreakBench", build)
