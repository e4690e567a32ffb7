"""Past tense: harmful questions put as questions about how something was done in the past.

Data      the questions of `none`, rewritten now by the role `attacker`, once each and greedily.
Metric    attack success rate: the share of responses that the guard calls unsafe, judged against the question and not
          the rewrite.
Protocol  the rewrite as the user's turn, one greedy answer of at most 4,096 tokens. The paper samples 20 rewrites of
          each question and counts one success; `--set past_tense.attacker.temperature=1 --set past_tense.epochs=20`
          samples as many, and the report has worst-of-20.
Source    Andriushchenko and Flammarion 2024 (arXiv 2407.11969). The attacker's prompt is ours.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.scorers.rewrites import task_of
from eval.tasks.none import questions


@task
def past_tense(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = task_of("past_tense", "Past tense", questions)
