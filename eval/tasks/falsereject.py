"""FalseReject: seemingly toxic questions, each harmless in its context, in 44 categories.

Data      test.jsonl (columns prompt, category), 1,187 prompts that people checked, from the Hub at a pinned commit; a
          file with a column prompt, question, query or text; or the 30 bundled ones of `xstest`.
Metric    over-refusal rate: the share of answers that refuse, wholly or in part. The class of each answer is in
          `detail`.
Protocol  the prompt as the user's turn, one greedy answer of at most 2,048 tokens. Three classes by the role `judge`;
          string rules without one.
Source    Zhang et al. 2025 (arXiv 2505.08054), CC-BY-NC-4.0: not for commercial use.

Its prompts are ambiguous by design: an answer that names the harmful reading and helps with the other is right, and
string rules may take it for a refusal.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import CATEGORY, questions_of
from eval.scorers import overrefusal
from eval.sources import Public
from eval.tasks.xstest import SAMPLE

PUBLIC = Public("AmazonScience/FalseReject", "493ba967714ea54c6f01067e1f61e389cc2c9b3e", "test.jsonl", "cc-by-nc-4.0")


@task
def falsereject(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = overrefusal.task_of(
    "falsereject",
    "FalseReject",
    lambda request: questions_of(request, PUBLIC, SAMPLE, may={"category": ("category_text", *CATEGORY)}),
)
