"""The proof of objectives that compare: each side of each row as the trainer's own batches hold it.

Reads the trainer's prepared dataset through its own collator; writes nothing. A template that drops the reasoning, or a
truncation that cuts the longer side, shows in a preference training by nothing at all: both sides still have a number.
So every side must be what serving would see up to the assistant's first token, followed by that side's reasoning,
answer and end-of-turn, these compared and nothing else, and stand where its row and its label say.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.prompts.mildness import severity
from training.mixtures.mixture import TrainingRow
from training.proof.supervision import (
    IGNORED,
    Document,
    Expected,
    SupervisionProof,
    check_document,
    expected_of,
    pieces,
    prefix_differs,
    unpadded,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prove_sides(
    trainer: Any,
    rows: Sequence[TrainingRow],
    serving: "PreTrainedTokenizerBase",
    batch_size: int,
    sides: Sequence[str],
    loss_on: str,
) -> SupervisionProof:
    """Check every side of every row through the trainer's own data path.

    Args:
        trainer: Ready to train, its rows in the order they were given.
        serving: The student's tokenizer with the chat template it is served with.
        batch_size: Rows a batch, so that padding is seen as in training.
        sides: Those of a row, in the order of a batch.
        loss_on: "compared" where the prompt has to be masked, "scored" where a number is read at the end.

    Raises:
        UserError: the first row that is not wholly and only compared where it should be, and what is wrong.
    """
    if len(trainer.train_dataset) != len(rows):
        raise UserError(f"The trainer holds {len(trainer.train_dataset)} rows of the {len(rows)} it was given.")
    expected = {side: expected_of([row.side(side) for row in rows], serving) for side in sides}
    tokens = labelled = longest = 0
    shown: dict[int, Document] = {}
    for number, side, document in _documents(trainer, rows, batch_size):
        item = expected[sides[side]][number]
        _check(item, document, serving, scored=loss_on == "scored")
        tokens += len(document.ids)
        labelled += sum(label != IGNORED for label in document.labels)
        longest = max(longest, len(document.ids))
        if side == 0:
            shown.setdefault(severity(item.row.category, item.row.kind), document)
    return SupervisionProof(len(rows), tokens, labelled, longest, pieces(shown[min(shown)], serving), loss_on)


def _check(item: Expected, document: Document, serving: "PreTrainedTokenizerBase", scored: bool) -> None:
    if document.ids[: len(item.prefix)] != item.prefix:
        raise prefix_differs(document, [item], serving)
    check_document(item, document, serving, scored)


def _documents(trainer: Any, rows: Sequence[TrainingRow], batch_size: int) -> Iterator[tuple[int, int, Document]]:
    """The number of a row, that of its side, and the side as the model meets it."""
    dataset = trainer.train_dataset
    for start in range(0, len(dataset), batch_size):
        some = [dataset[at] for at in range(start, min(start + batch_size, len(dataset)))]
        batch = trainer.data_collator(some)
        attended = batch["attention_mask"].tolist()
        compared = batch.get("completion_mask", batch["attention_mask"]).tolist()
        for n, ids in enumerate(batch["input_ids"].tolist()):
            number, side = start + n % len(some), n // len(some)
            if "label" in batch and bool(batch["label"][n]) is not rows[number].label:
                raise UserError(f"Row {rows[number].id!r} reaches the trainer with another label than it has.")
            labels = [token if mark else IGNORED for token, mark in zip(ids, compared[n], strict=True)]
            ids, labels = unpadded(ids, labels, attended[n])
            yield number, side, Document(tuple(ids), tuple(labels))
