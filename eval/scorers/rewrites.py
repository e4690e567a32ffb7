"""Static attacks by a rewriter: the question is reworded once by the role `attacker`, and asked in those words.

The guard judges the response against the question and not the rewrite. An attacker whose reply cannot be read leaves
the question unasked and unscored. What it wrote for one student is asked of the next ones too, where `saferthoughts
eval` asks (`eval/models/kept_replies.py`). Used by eval/tasks/pap.py, past_tense.py and translation.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.log import transcript
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from eval.models.begun import answering
from eval.models.kept_replies import ASKED, KEPT, WRITTEN, KeptReplies, Rewriting
from eval.models.responses import thought_of
from eval.questions import guarded_task
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.scorers.attacks import read_attack
from eval.scorers.pair import ATTACKER
from eval.task_prompts import hashes, rendered
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from pipelines.teachers.reply import Reply

# One rewrite, the likeliest: what makes the attack cheap, and the same for every target.
_ATTACKER = {"temperature": 0, "max_tokens": 500, "tries": 3}


def reworded_task(
    name: str,
    request: TaskRequest,
    samples: list[Sample],
    used: DataUsed,
    rewriting: Rewriting,
    prompts: Mapping[str, str],
) -> BuiltTask:
    """The task that asks each question in the attacker's words; arguments as of `guarded_task`."""
    solvers = [_reword(rewriting, request.kept), answering(request.settings)]
    return replace(guarded_task(name, request, samples, used, solvers, prompts), rewriting=rewriting)


def _reword(rewriting: Rewriting, kept: KeptReplies | None) -> Solver:
    # Inspect writes a solver's arguments into the log, so this one has none.
    @solver(name="reword")
    def made() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            reply, known = await _written(state, rewriting, kept)
            state.metadata[WRITTEN] = KEPT if known else ASKED
            attack = read_attack(reply.content or "") if reply else None
            if reply is None or attack is None:
                state.metadata[guards.NOT_ASKED] = "the attacker wrote no prompt that could be read"
                state.completed = True  # the target is not asked
                return state
            if known:
                transcript().info(reply.content, source="the attacker's reply, kept from before")
            state.messages = [ChatMessageUser(content=attack.prompt)]
            return state

        return solve

    return made()


async def _written(state: TaskState, rewriting: Rewriting, kept: KeptReplies | None) -> tuple[Reply | None, bool]:
    """The attacker's reply to a sample, and whether it was kept already."""

    async def ask() -> Reply | None:
        asked = rewriting.asked(state.input_text, state.metadata)
        return await _asked(get_model(role=ATTACKER, required=True), asked, rewriting)

    if kept is None:
        return await ask(), False
    key = rewriting.key(kept.role, state.input_text, state.metadata, state.epoch)
    return await kept.reply(key, _readable, ask)


async def _asked(attacker: Model, asked: str, rewriting: Rewriting) -> Reply | None:
    """The first reply that can be read, None where none of the tries has one."""
    config = GenerateConfig(**rewriting.decoding)
    for _ in range(rewriting.settings["tries"]):
        output = await attacker.generate(asked, config=config)
        thought = thought_of(output)
        tokens = (output.usage.input_tokens, output.usage.output_tokens) if output.usage else (0, 0)
        stop = str(output.stop_reason) if output.choices else ""
        reply = Reply(thought.answer, thought.reasoning or None, None, stop, *tokens, None, output.time or 0.0)
        if _readable(reply):
            return reply
    return None


def _readable(reply: Reply) -> bool:
    return read_attack(reply.content or "") is not None


def task_of(
    name: str,
    title: str,
    questions: Callable[[TaskRequest], tuple[list[Sample], DataUsed]],
    words: Mapping[str, str] | None = None,
) -> TaskSpec:
    """A task that asks the questions as the prompt of the task's name has them reworded.

    Args:
        name: The task's and its prompt's.
        title: Its name in tables.
        questions: What is reworded.
        words: The prompt's further values, which are settings of the task.
    """

    def build(request: TaskRequest) -> BuiltTask:
        chosen = {key: str(request.settings[key]) for key in words or {}}

        def asked(text: str, metadata: Mapping[str, Any]) -> str:
            return rendered(name, goal=text, **chosen)

        rewriting = Rewriting(asked, request.settings["attacker"])
        return reworded_task(name, request, *questions(request), rewriting, hashes(name))

    return guards.attack(name, title, build, {"attacker": _ATTACKER, **(words or {})}, (ATTACKER,))
