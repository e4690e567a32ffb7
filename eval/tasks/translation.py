"""Translation: harmful questions in a language of which a model has read little.

Data      the questions of `none`, translated now by the role `attacker` into `language` (Zulu), once each and greedily.
Metric    attack success rate: the share of responses that the guard calls unsafe, judged against the question in
          English.
Protocol  the translation, which ends by asking for an answer in English, as the user's turn; one greedy answer of at
          most 4,096 tokens. The paper translates answers back instead. An answer in the other language is for the guard
          to read; `--guard rules` knows refusals in English alone and counts others as unsafe.
Source    Yong et al. 2023 (arXiv 2310.02446). The attacker's prompt is ours.
"""

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.scorers.rewrites import task_of
from eval.tasks.none import questions


@task
def translation(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = task_of("translation", "Translation", questions, {"language": "Zulu"})
