"""Static attacks by a rewriter: the question is reworded once by the role `attacker`, and asked in those words.

The guard judges the response against the question and not the rewrite. An attacker whose reply cannot be read leaves
the question unasked and unscored. Used by eval/tasks/pap.py, past_tense.py and translation.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from eval.models.begun import answering
from eval.models.responses import thought_of
from eval.questions import guarded_task
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.scorers.attacks import read_attack
from eval.scorers.pair import ATTACKER
from eval.task_prompts import hashes, rendered
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec

# One rewrite, the likeliest: what makes the attack cheap, and the same for every target.
_ATTACKER = {"temperature": 0, "max_tokens": 500, "tries": 3}


async def put_reworded(state: TaskState, asked: str, settings: Mapping[str, Any]) -> TaskState:
    """The sample with the attacker's prompt in place of its question.

    Args:
        state: The sample's.
        asked: What the attacker is asked.
        settings: The attacker's decoding, and `tries`: how often it is asked until its reply can be read.
    """
    config = GenerateConfig(**{key: value for key, value in settings.items() if key != "tries"})
    attacker = get_model(role=ATTACKER, required=True)
    for _ in range(settings["tries"]):
        attack = read_attack(thought_of(await attacker.generate(asked, config=config)).answer)
        if attack is not None:
            state.messages = [ChatMessageUser(content=attack.prompt)]
            return state
    state.metadata[guards.NOT_ASKED] = "the attacker wrote no prompt that could be read"
    state.completed = True  # the target is not asked
    return state


@solver
def reword(prompt: str, settings: Mapping[str, Any], words: Mapping[str, str]) -> Solver:
    """Have the attacker reword the question.

    Args:
        prompt: Of eval/prompts, with `goal` and `words` in it.
        settings: As `put_reworded` takes them.
        words: The prompt's further values.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        return await put_reworded(state, rendered(prompt, goal=state.input_text, **words), settings)

    return solve


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
        solvers = [reword(name, request.settings["attacker"], chosen), answering(request.settings)]
        return guarded_task(name, request, *questions(request), solvers, hashes(name))

    return guards.attack(name, title, build, {"attacker": _ATTACKER, **(words or {})}, (ATTACKER,))
