"""The proof that a run trains on the reasoning, made on the very batches the trainer would see.

Reads the trainer's prepared dataset through its own collator, and the rows they came from. Writes nothing.

A chat template may delete the reasoning from assistant turns (R1-Distill's does), a tokenizer may merge across the
boundary, a packer may cut: such a run looks fine and is worthless. Here every document the trainer holds must be, token
for token, what serving would see up to the assistant's first token, followed by the row's reasoning, closing tag,
answer and end-of-turn, exactly these labelled (every token with `loss_on: all`), and with none of the student's own
special tokens inside. Where serving opens `<think>` in the prompt, as newer R1 revisions do, the opener belongs to the
prompt in training as well.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.prompts.mildness import severity
from pipelines.prompts.variant import load_variants
from pipelines.thinking import CLOSE, OPEN, join, split
from training.mixtures.mixture import TrainingRow
from training.students.loading import prompt_of
from training.students.terminal import harmless

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.sft_trainer import SFTTrainer

IGNORED = -100
_SHOWN = 60
_OPENER = f"{OPEN}\n"
_INSTRUCTION_LINE = 60
_CONTROL = re.compile(r"<[|｜].*[|｜]>")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one document, and whether it is trained on. Control characters are replaced: safe on a terminal."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class SupervisionProof:
    """What was proven, over all rows: `tokens` without padding, of which `labelled` are trained on; `example` is the
    mildest row."""

    rows: int
    tokens: int
    labelled: int
    longest: int
    example: tuple[Piece, ...]
    loss_on: str = "completion"
    """What the loss is on: completion, all, or of other objectives than sft compared, scored, written."""

    def described(self) -> str:
        """What was proven, in words."""
        if self.loss_on == "written":
            return (
                f"every prompt is rendered as it is served, {self.tokens} tokens in all; what the student writes to it "
                "is rewarded, the prompt itself is not learned"
            )
        share = f"{self.labelled_share:.0%} of {self.tokens} tokens"
        if self.loss_on == "scored":
            return (
                f"the score is read behind reasoning and answer of both sides, none of them cut; {self.tokens} tokens"
            )
        if self.loss_on == "compared":
            return (
                "every reasoning and answer token of every response is compared, none is cut, no prompt token is; "
                f"that is {share}"
            )
        prompts = "and every prompt token too (loss on all tokens)" if self.loss_on == "all" else "no prompt token is"
        return f"every reasoning and answer token is trained on, {prompts}; {share} are labelled"

    @property
    def labelled_share(self) -> float:
        """Labelled tokens over tokens, 0 to 1."""
        return self.labelled / self.tokens


@dataclass(frozen=True, slots=True)
class Document:
    """One row as the model meets it: its token ids and, position by position, id or IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What the model should meet of a row: its prompt as served, and the response."""

    row: TrainingRow
    prefix: tuple[int, ...]
    response: tuple[int, ...]
    # What the student is to write: the row's reply, without the opener where serving writes that.
    written: str


def prove(
    trainer: "SFTTrainer",
    rows: Sequence[TrainingRow],
    serving: "PreTrainedTokenizerBase",
    batch_size: int,
    loss_on: str = "completion",
) -> SupervisionProof:
    """Check every row through the trainer's own data path.

    Args:
        trainer: Ready to train; its `train_dataset` is prepared and its `data_collator` builds batches.
        rows: What it was given to train on.
        serving: The student's tokenizer with the chat template it is served with.
        batch_size: Rows a batch, so that padding is seen as in training.
        loss_on: Which tokens the recipe wants labelled.

    Raises:
        UserError: the first row that is not wholly and only supervised where it should be, and what is wrong.
    """
    expected = expected_of(rows, serving)
    documents = list(_documents(trainer, batch_size))
    by_prefix: dict[tuple[int, ...], list[Expected]] = {}
    for item in expected:
        by_prefix.setdefault(item.prefix, []).append(item)
    unseen = Counter((item.prefix, item.response) for item in expected)
    lengths = sorted({len(item.prefix) for item in expected}, reverse=True)
    mildest: dict[int, Document] = {}
    for document in documents:
        prefix = next((document.ids[:n] for n in lengths if document.ids[:n] in by_prefix), None)
        if prefix is None:
            raise prefix_differs(document, expected, serving)
        match = _closest(by_prefix[prefix], document)
        check_document(match, document, serving, loss_on == "all")
        unseen[(match.prefix, match.response)] -= 1
        mildest.setdefault(severity(match.row.category, match.row.kind), document)
    left = [item for item in expected if unseen[(item.prefix, item.response)] > 0]
    if left or len(documents) != len(rows):
        which = f", the first missing is {left[0].row.id!r}" if left else ""
        raise UserError(f"The trainer holds {len(documents)} rows of the {len(rows)} it was given{which}.")
    return SupervisionProof(
        rows=len(documents),
        tokens=sum(len(document.ids) for document in documents),
        labelled=sum(label != IGNORED for document in documents for label in document.labels),
        longest=max(len(document.ids) for document in documents),
        example=pieces(mildest[min(mildest)], serving),
        loss_on=loss_on,
    )


def tokens_of(rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase") -> list[int]:
    """How many tokens each row has to the end of its turn.

    Raises:
        UserError: a row has another form than is trained on.
    """
    return [len(item.prefix) + len(item.response) for item in expected_of(rows, serving)]


def expected_of(rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase") -> list[Expected]:
    """The tokens that each row should have.

    Raises:
        UserError: a row has another form than is trained on.
    """
    control = _control_tokens(serving)
    return [_expect(row, serving, control) for row in rows]


def _expect(row: TrainingRow, serving: "PreTrainedTokenizerBase", control: Mapping[int, str]) -> Expected:
    """The tokens serving would see before the assistant's text, and those the assistant should have written."""
    content = row.messages[-1]["content"]
    thought = split(content)
    if thought.source != "inline" or join(thought.reasoning, thought.answer) != content:
        raise UserError(
            f"Row {row.id!r} is not '<think>\\nreasoning\\n</think>\\n\\nanswer': it begins {shown(content)} and "
            "would teach another form. Build the release again with this version."
        )
    _check_instruction(row)
    prompt = [dict(turn) for turn in row.messages[:-1]]
    served: Any = prompt_of(serving, prompt)
    written = content.removeprefix(_OPENER) if str(served).endswith(_OPENER) else content
    prefix: Any = prompt_of(serving, prompt, tokenize=True, return_dict=False)
    # Apart from the prompt, as the student will write it; the trainer tokenises both as one text, so a token that
    # merges across the boundary shows as a difference.
    response: Any = serving(written, add_special_tokens=False)["input_ids"]
    _check_control(row, response, control)
    return Expected(row, tuple(prefix), (*response, int(serving.eos_token_id)), written)


def _check_control(row: TrainingRow, response: Sequence[int], control: Mapping[int, str]) -> None:
    """Whether reasoning and answer are free of the student's control tokens: such a token ends the turn, or opens the
    user's, wherever it stands. The two tags of the reasoning, special tokens of some students, stand once each."""
    found = Counter(name for token in response if (name := control.get(token)))
    for name, times in found.items():
        if name not in (OPEN, CLOSE) or times > 1:
            raise UserError(
                f"Row {row.id!r} holds {name!r}, a special token of the student, inside its reasoning or answer: it "
                "would end or open a turn there. Leave the row out (the check format_control_tokens finds such rows) "
                "and build the release again."
            )


def _control_tokens(serving: "PreTrainedTokenizerBase") -> dict[int, str]:
    """The student's special tokens by id, and added ones that look like a template's without being marked as special,
    as DeepSeek's turn tokens are."""
    added = {
        number: str(token)
        for number, token in serving.added_tokens_decoder.items()
        if token.special or _CONTROL.fullmatch(str(token))
    }
    return added | {int(number): decode(serving, [number]) for number in serving.all_special_ids}


def _check_instruction(row: TrainingRow) -> None:
    """Whether the prompt is bare: a student trained behind an instruction needs it to be safe."""
    prompt = row.messages[0]["content"]
    for line in _instruction_lines():
        if line in prompt:
            raise UserError(
                f"Row {row.id!r} holds a distillation instruction in its prompt ({shown(line)}), which nobody will "
                "send when the student is served. Build the release again with this version."
            )


@cache
def _instruction_lines() -> tuple[str, ...]:
    """Lines of the variants' instructions that are too long to occur in a prompt by chance."""
    lines = [
        line.strip()
        for variant in load_variants().values()
        for line in (variant.instruction or "").splitlines()
        if "{{" not in line and "{%" not in line
    ]
    return tuple(line for line in lines if len(line) >= _INSTRUCTION_LINE)


def decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    """The text of some tokens."""
    return str(tokenizer.decode(list(ids)))


def _documents(trainer: "SFTTrainer", batch_size: int) -> Iterator[Document]:
    """Every row of the trainer's dataset, out of collated batches, padding off and packed sequences taken apart."""
    dataset: Any = trainer.train_dataset
    columns = [name for name in ("input_ids", "labels", "seq_lengths", "benign") if name in dataset.column_names]
    dataset = dataset.select_columns(columns)
    for start in range(0, len(dataset), batch_size):
        batch = trainer.data_collator([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
        attended = batch.get("attention_mask")
        positions = batch.get("position_ids")
        for n, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
            if attended is not None:
                ids, labels = unpadded(ids, labels, attended[n].tolist())
            starts = [0] if positions is None else [i for i, at in enumerate(positions[n].tolist()) if at == 0]
            for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                yield Document(tuple(ids[begin:end]), tuple(labels[begin:end]))


def unpadded(ids: list[int], labels: list[int], attended: list[int]) -> tuple[list[int], list[int]]:
    """A document of a batch without what fills it up.

    Raises:
        UserError: that would be learned from.
    """
    real = sum(attended)
    if any(label != IGNORED for label in labels[real:]):
        raise UserError("Padding would be trained on: the collator labels tokens that are not attended to.")
    return ids[:real], labels[:real]


def _closest(candidates: Sequence[Expected], document: Document) -> Expected:
    """Of rows with the same prompt, the one whose response agrees longest with the document."""

    tail = document.ids[len(candidates[0].prefix) :]
    return max(candidates, key=lambda item: (agreement(tail, item.response), -len(item.response)))


def agreement(one: Sequence[object], other: Sequence[object]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def check_document(item: Expected, document: Document, tokenizer: "PreTrainedTokenizerBase", everything: bool) -> None:
    """Whether a document is what its row should be, and labelled where it should be.

    Raises:
        UserError: it is not; names the row, the part and what is wrong.
    """
    row, start, end = item.row.id, len(item.prefix), len(item.prefix) + len(item.response)
    if document.ids[start:end] != item.response:
        got = document.ids[start:end]
        if got == item.response[: len(got)]:
            raise UserError(
                f"Row {row!r} is cut after {len(document.ids)} of {end} tokens. Raise max_length to at least {end}."
            )
        at = agreement(got, item.response)
        lost = decode(tokenizer, item.response[at:])
        raise _without(item.row, _part(item, at, tokenizer), lost)
    for at, label in enumerate(document.labels):
        should = document.ids[at] if everything or start <= at < end else IGNORED
        # The very first token follows nothing, and TRL's packing leaves its label out.
        if label == should or (everything and at == 0):
            continue
        if start <= at < end:
            text = shown(decode(tokenizer, document.ids[at:end]))
            part = _part(item, at - start, tokenizer)
            raise UserError(f"Row {row!r}: its {part} is not trained on, from {text} on. Check the generation markers.")
        side = "prompt" if at < start else "text after its end-of-turn"
        text = shown(decode(tokenizer, document.ids[at : at + 8]))
        if everything:
            raise UserError(f"Row {row!r}: its {side} is not trained on, at {text}, and loss_on is all.")
        raise UserError(f"Row {row!r}: its {side} would be trained on, at {text}. Check the generation markers.")


def _part(item: Expected, at: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Which part of the response its token number `at` belongs to."""
    if at == len(item.response) - 1:
        return "end-of-turn"
    before, through = decode(tokenizer, item.response[:at]), decode(tokenizer, item.response[: at + 1])
    if CLOSE in before:
        return "answer"
    reasoning_end = len(item.written.partition(CLOSE)[0])
    return "reasoning" if len(through) <= reasoning_end else "closing tag"


def _without(row: TrainingRow, part: str, lost: str) -> UserError:
    return UserError(
        f"Row {row.id!r} reaches the trainer without its {part}: {shown(lost)} is not there. The chat template drops "
        "or rewrites it; choose another with --set chat_template=..."
    )


def prefix_differs(document: Document, expected: Sequence[Expected], tokenizer: "PreTrainedTokenizerBase") -> UserError:
    """The error of a document whose prompt is not what serving would see."""
    nearest = max(expected, key=lambda item: agreement(document.ids, item.prefix))
    reasoning = split(nearest.row.messages[-1]["content"]).reasoning
    if reasoning not in decode(tokenizer, document.ids):
        return _without(nearest.row, "reasoning", reasoning)
    at = agreement(document.ids, nearest.prefix)
    trained, served = (decode(tokenizer, ids[at : at + 12]) for ids in (document.ids, nearest.prefix))
    return UserError(
        f"Row {nearest.row.id!r} is trained behind another prompt than it is served with: from token {at} on training "
        f"has {shown(trained)}, serving {shown(served)}. The training template must render prompts as the student's "
        "own does."
    )


def pieces(document: Document, tokenizer: "PreTrainedTokenizerBase") -> tuple[Piece, ...]:
    """A document in stretches of tokens that are trained on, or are not."""
    found = []
    start = 0
    for at in range(1, len(document.ids) + 1):
        trained = document.labels[start] != IGNORED
        if at == len(document.ids) or (document.labels[at] != IGNORED) != trained:
            found.append(Piece(harmless(decode(tokenizer, document.ids[start:at])), trained))
            start = at
    return tuple(found)


def shown(text: str) -> str:
    """The beginning of a text, quoted, so that it is safe on a terminal."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
