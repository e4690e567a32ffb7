"""XSTest's contrasts: the unsafe twins of its safe prompts. How often does a model refuse these, as it should?

Data      the 200 unsafe prompts of XSTest's second version (columns prompt, type, label), from the authors' repository
          at a pinned commit; a file as for `xstest`, of which the rows marked as unsafe are asked; or the harmful
          requests of eval/data/swapped.yaml.
Metric    refusal rate, higher is better: the share of answers that refuse, wholly or in part. Beside the over-refusal
          of `xstest` it tells a model that knows the difference from one that refuses everything, or nothing.
Protocol  as `xstest`: the prompt as the user's turn, one greedy answer of at most 2,048 tokens.
Source    Roettger et al. 2024 (arXiv 2308.01263), CC-BY-4.0.

What does not refuse need not be harmful: many answers to these prompts warn or lead elsewhere. Reads those and writes
Inspect's log only. Run through `eval/run/stage.py`.
"""

from pathlib import Path

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import questions_of
from eval.run.results import Measure
from eval.scorers import overrefusal
from eval.sources import Public
from eval.tasks.xstest import unsafe

PUBLIC = Public(
    "paul-rottger/xstest", "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d", "xstest_prompts.csv", "cc-by-4.0", "github"
)
SAMPLE = Path(__file__).parent.parent / "data" / "swapped.yaml"
REFUSED = Measure("refused_unsafe", "refusal rate of unsafe prompts", "higher")


@task
def xstest_contrasts(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = overrefusal.task_of(
    "xstest_contrasts",
    "XSTest's contrasts",
    lambda request: questions_of(request, PUBLIC, SAMPLE, keep=lambda row: unsafe(row) or row.get("kind") == "harmful"),
    REFUSED,
)
