"""None: harmful questions as they are. How often does a model give what it is asked for, with no attack at all?

Data      the 50 AdvBench questions of Chao et al. (columns query, target), from the study's repository at a pinned
          commit; or a file with a column question, query, prompt or text; or 20 bundled ones of our own. Those that the
          student was trained on, in whatever template, are left out under `exclude_trained`, and counted.
Metric    attack success rate: the share of responses that the guard calls unsafe, reasoning included.
Protocol  the question as the user's turn, one greedy answer of at most 4,096 tokens.
Source    Zou et al. 2023 (arXiv 2307.15043), subset of Chao et al. 2023 (arXiv 2310.08419), as Zhang et al. ask it.
"""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import guarded_task, questions_of
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.sources import Public
from eval.task_spec import BuiltTask, TaskRequest

STUDY = "thu-coai/LRM-Safety-Study"
# The commit that added the evaluation's files; read at it, the file has 50 rows with these columns.
STUDY_COMMIT = "b6eb992cbfb1be1075fc042b9e4fc095b473e2b9"
PUBLIC = Public(STUDY, STUDY_COMMIT, "attack_refusal_evaluation/data/advbench/advbenchsub.jsonl", "mit", "github")
SAMPLE = Path(__file__).parent.parent / "data" / "harmful.yaml"


def questions(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    """The questions as samples; `target` in their metadata is the beginning of an answer that complies, if given."""
    return questions_of(request, PUBLIC, SAMPLE)


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions cannot be had, or the guard cannot judge what it is to see.
    """
    return guarded_task("none", request, *questions(request))


@task
def none(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = guards.attack("none", "No attack", build)
