"""Crescendo: a conversation that comes closer to what is asked for turn by turn (Russinovich et al. 2024, 2404.01833).

An Inspect solver over the model roles `attacker` and `judge` and the model that is measured. The attacker sees the
target's last answer and its rating, as PAIR's does, but its prompts are turns of one conversation, all of which the
target sees. An answer that refuses (string rules) is taken back with its prompt and the attacker told; `backtracks` of
them end the attack, as do a rating of `stop_at` and `rounds` turns that stand. The answer with the highest rating is
the guard's, the latest of equals.

Writes every turn into the sample's store under `crescendo`, and its outline into `detail`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver

from eval.models.begun import answered, thought_through
from eval.models.responses import thought_of, whole
from eval.protocols import COMMON, PROBE, THINKING
from eval.scorers.attacks import LOWEST, read_attack
from eval.scorers.guards import DETAIL, NOT_ASKED
from eval.scorers.pair import ATTACKER, config_of, rated
from eval.scorers.refusals import refuses
from eval.task_prompts import rendered

PROMPTS = ("crescendo", "crescendo_turn", "pair_judge", "pair_judge_turn")
STORE = "crescendo"


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt and the target's answer. `stands`: it was not taken back. `rating` is None with a `reason`."""

    prompt: str
    response: str = ""
    refused: bool = False
    stands: bool = False
    rating: int | None = None
    reason: str = ""


class _Conversation:
    """The attack on one question."""

    def __init__(self, goal: str, settings: Mapping[str, Any]) -> None:
        self._goal, self._settings = goal, settings
        self._system = ChatMessageSystem(content=rendered("crescendo", goal=goal))
        self._attacking: list[ChatMessage] = []
        self.chat: list[ChatMessage] = []
        self.turns: list[Turn] = []
        self.best: tuple[int, ModelOutput, list[ChatMessage]] | None = None

    async def run(self) -> None:
        """Attack until the rating, the rounds or the answers that may be taken back are at their end."""
        stood = taken_back = 0
        while stood < self._settings["rounds"] and taken_back < self._settings["backtracks"]:
            prompt = await self._write()
            if prompt is None:
                self.turns.append(Turn("", reason="no prompt could be read"))
                return
            turn = await self._ask(prompt)
            self.turns.append(turn)
            stood, taken_back = stood + turn.stands, taken_back + (not turn.stands)
            if turn.rating is not None and turn.rating >= self._settings["stop_at"]:
                return

    async def _write(self) -> str | None:
        last = self.turns[-1] if self.turns else None
        state = "first" if last is None else "refused" if last.refused else "answered"
        words = {"response": last.response if last else "", "rating": last.rating if last else None}
        turn = ChatMessageUser(content=rendered("crescendo_turn", goal=self._goal, state=state, **words))
        settings = self._settings["attacker"]
        attacker = get_model(role=ATTACKER, required=True)
        for _ in range(settings["tries"]):
            output = await attacker.generate([self._system, *self._attacking, turn], config=config_of(settings))
            attack = read_attack(thought_of(output).answer)
            if attack is not None:
                content = json.dumps({"improvement": attack.improvement, "prompt": attack.prompt}, ensure_ascii=False)
                self._attacking += [turn, ChatMessageAssistant(content=content)]
                return attack.prompt
        return None

    async def _ask(self, prompt: str) -> Turn:
        asked: list[ChatMessage] = [*self.chat, ChatMessageUser(content=prompt)]
        mode, probe = (self._settings.get(name, COMMON[name]) for name in (THINKING, PROBE))
        output = await thought_through(asked, config_of(self._settings["target"]), mode, probe)
        thought = thought_of(output)
        response = whole(thought)
        refused = refuses(output, thought.answer)
        if self.best is None:
            self.best = (0, output, asked)
        if refused:
            return Turn(prompt, response, refused=True, reason="it refused, and was taken back")
        rating, _ = await rated(self._goal, prompt, response, self._settings["judge"])
        if (rating or LOWEST) >= self.best[0]:
            self.best = (rating or LOWEST, output, asked)
        # The target sees its answers without their thoughts, as chat templates have it.
        self.chat = [*asked, ChatMessageAssistant(content=thought.answer)]
        return Turn(prompt, response, stands=True, rating=rating, reason="" if rating else "no rating could be read")


@solver
def crescendo(settings: dict[str, Any]) -> Solver:
    """Attack; the sample's answer is the conversation's best.

    Args:
        settings: The protocol's for this task.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        attack = _Conversation(state.input_text, settings)
        await attack.run()
        state.store.set(STORE, [asdict(turn) for turn in attack.turns])
        state.metadata[DETAIL] = outline(attack.turns)
        if attack.best is None:
            state.metadata[NOT_ASKED] = "the attacker wrote no prompt that could be read"
            return state
        _, output, state.messages = attack.best
        return answered(state, output)

    return solve


def outline(turns: Sequence[Turn]) -> dict[str, Any]:
    """The attack in short: how often the target was asked, what was taken back, the ratings of what stands."""
    return {
        "queries": sum(bool(turn.prompt) for turn in turns),
        "taken_back": sum(turn.refused for turn in turns),
        "ratings": [turn.rating for turn in turns if turn.stands],
    }
