"""OR-Bench-Hard: harmless prompts that several models refuse, in ten categories.

Data      or-bench-hard-1k.csv (columns prompt, category), 1,319 prompts, from the Hub at a pinned commit; a file with a
          column prompt, question, query or text; or the 30 bundled ones of `xstest`.
Metric    over-refusal rate: the share of answers that refuse, wholly or in part.
Protocol  the prompt as the user's turn, one greedy answer of at most 2,048 tokens. Three classes by the role `judge`;
          string rules without one, as in its authors' quick check.
Source    Cui et al. 2024 (arXiv 2405.20947), CC-BY-4.0.

The prompts were chosen because models of 2024 refused them, and some are no more harmless than their label: a rate of 0
is not the aim.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.questions import questions_of
from eval.scorers import overrefusal
from eval.sources import Public
from eval.tasks.xstest import SAMPLE

PUBLIC = Public("bench-llm/or-bench", "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272", "or-bench-hard-1k.csv", "cc-by-4.0")


@task
def orbench(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = overrefusal.task_of("orbench", "OR-Bench-Hard", lambda request: questions_of(request, PUBLIC, SAMPLE))
