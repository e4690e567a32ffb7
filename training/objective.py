"""What an objective is: the rows that it reads, the trainer that it builds, the proof before its first step.

Each file of training/objectives ends with `OBJECTIVE` and is found by its name: `objective: dpo` in a recipe. Trainers
and losses are TRL's. Reads and writes nothing itself; `training.stage` is the stage that all of them run in.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.errors import UserError
from pipelines.records import content_id
from training.mixtures.mixture import CONVERSATIONS, RowForm, TrainingRow, content_of
from training.proof.sides import prove_sides
from training.proof.supervision import SupervisionProof, tokens_of
from training.recipes.recipe import Recipe
from training.trainer.estimate import Cost

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Objective(ABC):
    """One way of learning from rows. `sides` are those of a row, `loss_on` what the loss is on (`SupervisionProof`);
    `scores` says that what is trained gives numbers and writes no text."""

    form: ClassVar[RowForm] = CONVERSATIONS
    sides: ClassVar[tuple[str, ...]] = ("",)
    loss_on: ClassVar[str] = "compared"
    scores: ClassVar[bool] = False

    def lengths(self, rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase", recipe: Recipe) -> list[int]:
        """Tokens of each row, of a pair those of its longer side.

        Raises:
            UserError: a row has another form than is trained on.
        """
        sides = [tokens_of([row.side(side) for row in rows], serving) for side in self.sides]
        return [max(lengths) for lengths in zip(*sides, strict=True)]

    @abstractmethod
    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The trainer, its rows rendered and tokenised; arguments as of `training.objectives.sft.build_trainer`."""

    def prove(
        self, trainer: Any, rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase", recipe: Recipe
    ) -> SupervisionProof:
        """Check every side of every row through the trainer's own data path.

        Raises:
            UserError: the first row that is not learned from as it should be, and what is wrong.
        """
        return prove_sides(trainer, rows, serving, recipe.batch_size, self.sides, self.loss_on)

    def begin(self, trainer: Any, beside: Path) -> None:  # noqa: B027 - most ask nobody
        """Get ready what is asked while it trains, in a folder beside the model that outlasts the training.

        Raises:
            UserError: who has to be asked does not answer.
        """

    def spent(self, trainer: Any) -> dict[str, Any]:
        """What was asked while it trained, for training.json; nothing where nobody is."""
        return {}

    def cost(self, recipe: Recipe) -> Cost:
        """What it takes beside one pass over the rows."""
        return Cost(sequences=len(self.sides))


def objective_of(recipe: Recipe) -> Objective:
    """The objective that a recipe names."""
    found: Objective = import_module(f"training.objectives.{recipe.objective}").OBJECTIVE
    return found


def answered_row(values: Mapping[str, Any], config: str, *responses: str, **further: Any) -> TrainingRow:
    """A row of a prompt and the responses in the columns of these names: none, one, or chosen and rejected.

    Raises:
        UserError: a prompt that does not end with a user's turn, a response that is not one turn of the assistant's,
            two that are the same.
    """
    name = str(values.get("id") or content_id(values["prompt"], *(values[column] for column in responses)))
    where = f"Row {name!r} of configuration '{config}'"
    prompt = _turns(values["prompt"], "user")
    if prompt is None:
        raise UserError(f"{where}: 'prompt' is not a conversation that ends with the user ([{{role, content}}, ...]).")
    found: list[tuple[dict[str, str], ...]] = []
    for column in responses:
        response = _turns(values[column], "assistant")
        if response is None or len(response) != 1:
            raise UserError(f"{where}: '{column}' is not one turn of the assistant's ([{{role, content}}]).")
        found.append((*prompt, *response))
    if len(found) == 2 and found[0] == found[1]:
        raise UserError(f"{where}: {' and '.join(responses)} are the same, so there is nothing to learn.")
    return TrainingRow(
        id=name,
        config=config,
        kind=str(values.get("kind") or "unknown"),
        messages=found[0] if found else tuple(prompt),
        category=str(values.get("category") or ""),
        rejected=found[1] if len(found) == 2 else None,
        **further,
    )


def _turns(found: Any, last: str) -> list[dict[str, str]] | None:
    """A conversation that ends with a role, or a bare text of it; None where it is neither."""
    turns = [{"role": last, "content": found}] if isinstance(found, str) else found
    sound = (
        isinstance(turns, list)
        and turns
        and all(isinstance(turn, dict) and turn.get("role") in ("system", "user", "assistant") for turn in turns)
        and all(isinstance(turn.get("content"), str) and turn["content"].strip() for turn in turns)
        and turns[-1]["role"] == last
    )
    return [{"role": turn["role"], "content": content_of(turn)} for turn in turns] if sound else None


PAIRS = RowForm(
    ("prompt", "chosen", "rejected"), lambda values, config: answered_row(values, config, "chosen", "rejected")
)
