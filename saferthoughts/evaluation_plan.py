"""What an evaluation will ask before it asks anything: questions by task, requests by model, tokens and dollars.

Reads the tasks' data and teachers' prices; writes nothing. `evaluate` makes it where somebody wants to see it first
(`saferthoughts eval ... --plan`). Counts of questions are exact; requests of attacks are the most that they can be, and
tokens are those that `ASSUMED` names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runner.estimate import Known, Load, load_of

if TYPE_CHECKING:
    from eval.models.inspect_models import Target
    from eval.run.planning import Planned
    from pipelines.settings.teacher import Teacher

# Tokens of a request, in and out, where nothing was measured; an answer has at most what its protocol lets it have.
_ANSWER, _ROLE = (150, 1000), {"guard": (1200, 10), "judge": (700, 100), "attacker": (900, 350)}
ASSUMED = (
    f"assumed, not measured: {_ANSWER[0]} tokens of a question and {_ANSWER[1]} of an answer, or the protocol's "
    "limit; of an attack every try that it may take"
)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task: its questions, the answers that each model gives, and the requests of one model's tries in all."""

    task: str
    title: str
    protocol: str
    questions: int
    answers: int
    requests: int
    roles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What an evaluation will ask.

    Attributes:
        models: The labels of those that are measured.
        tasks: In their order.
        requests: By who answers: a measured model's label, or "guard llama-guard-3".
        tokens: In and out, of all requests.
        cost: US dollars, of requests whose price is known; None where none is, 0 where all answers are made here.
        unpriced: Who is asked over an endpoint without a known price.
        kept: Prompts of the attacker's that are kept and not asked for; `kept_in` is where, "" where none could be.
        assumed: What the tokens rest on.
    """

    models: tuple[str, ...]
    tasks: tuple[PlannedTask, ...]
    requests: Mapping[str, int]
    tokens: int
    cost: float | None
    unpriced: tuple[str, ...]
    kept: int = 0
    kept_in: str = ""
    assumed: str = ASSUMED

    def words(self) -> str:
        """The plan for a terminal, a line a task and one for all."""
        lines = [f"{one.task}: {one.questions} questions, {one.answers} answers of a model" for one in self.tasks]
        asked = ", ".join(f"{who} {number:,}" for who, number in self.requests.items())
        cost = "no price known" if self.cost is None else f"${self.cost:,.2f}"
        without = f" (no price for {', '.join(self.unpriced)})" if self.unpriced and self.cost is not None else ""
        if self.kept_in:
            lines.append(
                f"attacker: {self.kept} prompts are kept in {self.kept_in}; others are asked for once and kept"
            )
        return "\n".join([*lines, f"requests: {asked}; about {self.tokens:,} tokens, {cost}{without}", self.assumed])


def plan_of(targets: "Sequence[Target]", planned: "Sequence[Planned]", kept_in: Path | None = None) -> EvaluationPlan:
    """The plan of tasks that are built; `kept_in` is the folder of the attacker's replies that evaluations share."""
    from eval.scorers.guards import requests_for

    tasks = tuple(_task(one) for one in planned)
    counts: dict[str, int] = {}
    load = Load()
    attacks = {one.spec.name: _attacks(one, kept_in) for one in planned if one.built.rewriting}
    for number, target in enumerate(targets):
        for one, task in zip(planned, tasks, strict=True):
            counts[target.label] = counts.get(target.label, 0) + task.requests
            written = min(_ANSWER[1], int(one.request.settings.get("max_tokens", _ANSWER[1])))
            if target.teacher is None:
                load += Load(tokens=float(task.requests * (_ANSWER[0] + written)))
            else:
                load += _load(target.label, target.teacher, task.requests, (_ANSWER[0], written))
            for role, who in one.roles.items():
                seen = requests_for(one.request) if role == "guard" else 1
                asked = seen * (task.answers if role == "guard" else task.requests)
                if role == "attacker" and kept_in is not None and task.task in attacks:
                    # Later models ask for nothing that the first one has asked for.
                    asked = 0 if number else attacks[task.task][0] - attacks[task.task][1]
                name = f"{role} {who.name}"
                counts[name] = counts.get(name, 0) + asked
                load += _load(name, who.teacher, asked, _ROLE.get(role, _ROLE["judge"]))
    # What runs on this machine costs nothing.
    cost = load.cost if load.priced or not load.unpriced else None
    labels = tuple(target.label for target in targets)
    kept = (sum(known for _, known in attacks.values()), str(kept_in)) if attacks and kept_in is not None else (0, "")
    return EvaluationPlan(labels, tasks, counts, round(load.tokens), cost, tuple(sorted(load.unpriced)), *kept)


def _attacks(one: "Planned", kept_in: Path | None) -> tuple[int, int]:
    """How many prompts the attacker writes for a task, and how many of these are kept."""
    from eval.models.kept_replies import count_kept

    if kept_in is None or one.built.rewriting is None:
        return len(one.expected), 0
    samples, epochs = list(one.built.task.dataset), one.built.task.epochs or 1
    return count_kept(kept_in, one.roles["attacker"], one.built.rewriting, samples, epochs)


def _task(one: "Planned") -> PlannedTask:
    settings, answers = one.request.settings, len(one.expected)
    roles = {role: who.name for role, who in one.roles.items()}
    questions = len({due.id for due in one.expected})
    protocol = str(one.facts["protocol"])
    return PlannedTask(one.spec.name, one.spec.title, protocol, questions, answers, answers * _tries(settings), roles)


def _tries(settings: Mapping[str, Any]) -> int:
    """How often an attack may ask for one answer."""
    if settings.get("replay", "none") != "none":
        return 1
    rounds = int(settings.get("rounds", 1)) + int(settings.get("backtracks", 0))
    return int(settings.get("streams", 1)) * int(settings.get("iterations", 1)) * rounds


def _load(name: str, teacher: "Teacher", requests: int, tokens: tuple[int, int]) -> Load:
    return load_of(name, teacher, Known({}, {}), requests, *tokens)
