"""PAIR: the questions of `none`, attacked by a model that improves its prompt until the target goes along.

Data      as for `none`; `target` is shown to the attacker where the file has it.
Metric    attack success rate: the share of fresh answers to the best prompt that the guard calls unsafe, judged
          against the dataset's question and not the attack's.
Protocol  5 streams of 5 iterations, the attacker seeing its last 3 turns, ended by a rating of 10; attacker at
          temperature 1 and top-p 0.9 with 500 tokens and 3 tries, target at temperature 1 with 1,536 tokens, judge with
          150; then one answer to the best prompt, greedy with 4,096 tokens (`repository`: sampled, 2,048). The study's
          attacker was Mixtral-8x7B and its judge gpt-4o-mini. The prompts are ours, so that rates compare between
          models here, and with the study's in their order only.
          `replay=FOLDER` (`--replay`) asks the best prompts of another evaluation instead, once each: transfer.
Source    Chao et al. 2023 (arXiv 2310.08419); settings of Zhang et al. The solver is eval/scorers/pair.py.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from inspect_ai import Task, task

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.begun import answering
from eval.questions import guarded_task
from eval.scorers import guards
from eval.scorers.pair import ATTACKER, JUDGE, PROMPTS
from eval.scorers.pair import pair as attack
from eval.scorers.replay import NONE, replayed, transcripts
from eval.task_prompts import hashes
from eval.task_spec import BuiltTask, TaskRequest
from eval.tasks.none import questions


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions cannot be had, or the guard cannot judge what it is to see.
    """
    samples, used = questions(request)
    source = str(request.settings.get("replay", NONE))
    if source == NONE:
        return guarded_task("pair", request, samples, used, [attack(dict(request.settings))], hashes(*PROMPTS))
    label, prompts = transcripts(Path(source))
    # The prompts and not the file, whose times change: the same transcripts are the same evaluation.
    digest = hashlib.sha256(json.dumps([label, prompts], sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    again = replayed(label, prompts, answering(request.settings))
    return guarded_task("pair", request, samples, used, [again], {f"transcripts of {label}": digest})


def roles(request: TaskRequest) -> tuple[str, ...]:
    """The models that it asks beside the target; transcripts need no attacker."""
    attacking = (ATTACKER, JUDGE) if request.settings.get("replay", NONE) == NONE else ()
    return (*attacking, *guards.roles(request))


@task
def pair(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = replace(guards.attack("pair", "PAIR", build), roles=roles)
