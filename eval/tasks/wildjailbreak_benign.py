"""WildJailbreak, adversarial benign: harmless requests that are put the way jailbreaks are.

Data      the 210 rows `adversarial_benign` of the evaluation file that `wildjailbreak` reads, gated as that is; a file
          with a column adversarial, question, query, prompt or text; or the 30 bundled ones of `xstest`.
Metric    over-refusal rate: the share of answers that refuse, wholly or in part.
Protocol  the prompt as the user's turn, one greedy answer of at most 2,048 tokens. Three classes by the role `judge`;
          string rules without one.
Source    Jiang et al. 2024 (arXiv 2406.18510), ODC-BY.

A model that refuses whatever looks like a jailbreak is right on `wildjailbreak` and wrong here: read the two together.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.scorers import overrefusal
from eval.tasks.wildjailbreak import BENIGN, questions
from eval.tasks.xstest import SAMPLE


@task
def wildjailbreak_benign(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = overrefusal.task_of(
    "wildjailbreak_benign", "WildJailbreak, benign", lambda request: questions(request, BENIGN, SAMPLE)
)
