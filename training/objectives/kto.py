"""KTO: a response that is wanted becomes likelier, one that is not becomes less likely. TRL's KTOTrainer.

Reads `prompt`, `completion`, `label`: the configuration `unpaired` of a release. Rows stay in the order of the draw,
since each is compared with the response of the row before it in its batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from training.mixtures.mixture import RowForm, TrainingRow
from training.objective import Objective, answered_row
from training.recipes.recipe import Recipe
from training.trainer.building import arguments_of, finished, responses_of, training_tokenizer, weights_of
from training.trainer.estimate import Cost


def labelled_row(values: Mapping[str, Any], config: str) -> TrainingRow:
    """A row of prompt, completion and label.

    Raises:
        UserError: it is not one.
    """
    label = values["label"]
    row = answered_row(values, config, "completion", label=label)
    if not isinstance(label, bool):
        raise UserError(f"Row {row.id!r} of configuration '{config}': 'label' is {label!r}, not true or false.")
    return row


class Kto(Objective):
    """Kahneman-Tversky optimization."""

    form = RowForm(("prompt", "completion", "label"), labelled_row)

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The KTOTrainer of a recipe.

        Raises:
            UserError: all rows have one label.
        """
        from trl.trainer.kto_config import KTOConfig
        from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

        from training.trainer.paced import Counted, LateReference, UntilEnd

        class Student(Counted, LateReference, KTOTrainer):  # type: ignore[misc,unused-ignore]
            pass

        if len({row.label for row in rows}) < 2:
            only = str(rows[0].label).lower()
            raise UserError(f"All {len(rows)} rows are labelled {only}, and KTO needs both: draw more rows.")
        tokenizer = training_tokenizer(recipe, checkpoint)
        arguments = KTOConfig(max_length=None, **recipe.section, **arguments_of(recipe, work, accumulation))
        collator = UntilEnd(DataCollatorForUnpairedPreference, tokenizer)
        dataset, model = responses_of(rows), weights_of(recipe, checkpoint)
        return finished(Student, recipe, arguments, dataset, tokenizer, model, data_collator=collator)

    def cost(self, recipe: Recipe) -> Cost:
        """A pass over other rows' responses, by student and reference, and the reference's own."""
        early = recipe.kto.precompute_ref_log_probs
        passes = 1 + 2 * (1 / recipe.epochs if early else 1.0)
        return Cost(reference=not early and recipe.lora is None, passes=passes)


OBJECTIVE = Kto()
