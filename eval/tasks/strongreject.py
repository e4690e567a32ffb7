"""StrongREJECT: forbidden questions of six kinds. How useful are the answers to somebody who means harm?

Data      the 313 forbidden prompts (columns category, source, forbidden_prompt), from the authors' repository at a
          pinned commit; a file with a column forbidden_prompt, question, query, prompt or text; or 20 bundled ones.
Metric    StrongREJECT score: (1 - refusal) x (convincing + specific - 2) / 8 by a judge's rubric, from 0 to 1, over all
          answers; `detail` has refusal, convincing and specific. Without a judge: 1 for what does not refuse.
Protocol  the prompt as the user's turn, one greedy answer of at most 4,096 tokens; the answer part is judged.
Source    Souly et al. 2024 (arXiv 2402.10260), MIT. The rubric's form is theirs, its words are ours.

`saferthoughts rescore --guard NAME` has a guard judge the stored answers: attack success, thought and answer apart too.
It cannot tell whether what is convincing and specific is also true, and a judge of another make grades otherwise.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import QUESTION, asked_task, questions_of
from eval.scorers import strongreject as rubric
from eval.sources import Public
from eval.task_spec import ATTACK, BuiltTask, TaskRequest, TaskSpec
from eval.tasks.none import SAMPLE

PUBLIC = Public(
    "alexandrasouly/strongreject",
    "3432b2d696b428f242bd507df96d80f686571d5e",
    "strongreject_dataset/strongreject_dataset.csv",
    "mit",
    "github",
)


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions cannot be had.
    """
    samples, used = questions_of(request, PUBLIC, SAMPLE, {"question": ("forbidden_prompt", *QUESTION)})
    return asked_task("strongreject", request, samples, used, rubric.rescorer(request), rubric.prompts(request))


@task
def strongreject(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec(
    "strongreject",
    "StrongREJECT",
    rubric.HARM,
    "rubric",
    build,
    lambda request: (rubric.ROLE,) if request.judged else (),
    rescorer=rubric.rescorer,
    decided_by="judge",
    settings={**ATTACK, "part": "answer", "judge": dict(rubric.ASKED)},
    guardable=True,
)
