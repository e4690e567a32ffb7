"""The proof for anyone's data: what a trainer would train on, of any conversations, under any chat template.

Reads rows, a tokenizer and its chat template; writes nothing. No model is loaded: each row is rendered and masked as
TRL's SFTTrainer does it (tests compare the two), and the labelled tokens are counted by what they are. Where the rows
are a release and the student is at hand, `supervision.py` proves more, on the very batches of the trainer.

Three ways of training:

    trl                 `messages`, assistant_only_loss=True: what stands between {% generation %} markers, for which
                        TRL puts its own training template in the place of one that it knows
    plain               `messages`, as SFTTrainer comes: every token of the rendered text
    prompt-completion   `prompt` and `completion`: what follows the prompt as it is rendered alone
"""

import bisect
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError, unknown
from pipelines.thinking import CLOSE, Thought
from training.proof.dataset_rows import INLINE, KEYS, Conversation
from training.proof.supervision import IGNORED, Document, Piece, agreement, decode, pieces, shown
from training.recipes.recipe import TEMPLATES
from training.students.loading import prompt_of, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRL, PLAIN, COMPLETION = "trl", "plain", "prompt-completion"
WAYS = (TRL, PLAIN, COMPLETION)
# The closing tag belongs to the reasoning; the opener too, where it is trained on and does not stand in the prompt.
REASONING, ANSWER, END, PROMPT = "reasoning", "answer", "end-of-turn", "prompt"
PARTS = (REASONING, ANSWER, END, PROMPT)


@dataclass(frozen=True, slots=True)
class Loss:
    """One part of a reply that is not, or not wholly, trained on: what becomes of it, and how that begins."""

    part: str
    why: str
    text: str

    def words(self) -> str:
        """What is lost, in words."""
        return f"its {self.part} {self.why}" + (f": {shown(self.text)}" if self.text else "")


@dataclass(frozen=True, slots=True)
class RowProof:
    """One row: tokens of each part, those of them that are trained on, and what is lost."""

    tokens: Counter[str]
    trained: Counter[str]
    losses: tuple[Loss, ...]
    document: Document


@dataclass(slots=True)
class Proof:
    """What was found over all rows: tokens by part, and those of them that are trained on; `first` is the first row
    that loses something, `example` the number and text of the mildest row, `change` what would mend the first one."""

    rows: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    trained: Counter[str] = field(default_factory=Counter)
    rows_with_a_loss: int = 0
    first: tuple[int, Loss] | None = None
    change: str = ""
    longest: int = 0
    example: tuple[int, tuple[Piece, ...]] = (0, ())


@dataclass(frozen=True)
class Trainer:
    """A way of training with a tokenizer and a chat template; None for the tokenizer's own."""

    tokenizer: "PreTrainedTokenizerBase"
    way: str = TRL
    own: str | None = None
    max_length: int | None = None

    @cached_property
    def template(self) -> str | None:
        """The template that rows are rendered by; None where TRL has none to train by."""
        source = self.own or _default(self.tokenizer.chat_template)
        if self.way != TRL:
            return source
        from trl.chat_template_utils import get_training_chat_template, has_generation_markers

        if has_generation_markers(source):
            return source
        before = self.tokenizer.chat_template
        self.tokenizer.chat_template = source
        try:
            found: str | None = get_training_chat_template(self.tokenizer)
            return found
        except Exception:  # noqa: BLE001 - TRL tries the template with tools, and lets through whatever it raises
            return None
        finally:
            self.tokenizer.chat_template = before

    def text(self, messages: list[dict[str, str]], prompt: bool = False) -> str:
        """Messages rendered, with what prompts the assistant behind them if they are a prompt."""
        return str(rendered(self.tokenizer, messages, chat_template=self._template, add_generation_prompt=prompt))

    def document(self, messages: list[dict[str, str]]) -> tuple[Document, Sequence[tuple[int, int]]]:
        """The tokens of a row with their labels, and where each stands in the rendered text."""
        found = rendered(
            self.tokenizer,
            messages,
            chat_template=self._template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=self.way == TRL and self.template is not None,
            tokenizer_kwargs={"return_offsets_mapping": True},
        )
        ids = list(found["input_ids"])
        mask = found.get("assistant_masks", [int(self.way != TRL)] * len(ids))
        if self.way == COMPLETION:
            options = {"chat_template": self._template, "tokenize": True, "return_dict": False}
            before = agreement(prompt_of(self.tokenizer, messages[:-1], **options), ids)
            mask = [0] * before + [1] * (len(ids) - before)
        end = self.max_length or len(ids)
        labels = (token if on and at < end else IGNORED for at, (token, on) in enumerate(zip(ids, mask, strict=True)))
        return Document(tuple(ids), tuple(labels)), found["offset_mapping"]

    def turn(self, messages: list[dict[str, str]], at: int, text: str) -> tuple[int, int]:
        """The characters of the rendered text at which a turn's prompt ends, and the turn itself."""
        begin = agreement(self.text(messages[:at], prompt=True), text) if at else 0
        last = at == len(messages) - 1
        return begin, len(text) if last else agreement(self.text(messages[: at + 1]), text)

    @property
    def _template(self) -> str:
        return self.template or self.own or _default(self.tokenizer.chat_template)


def trainer_of(tokenizer: "PreTrainedTokenizerBase", way: str, template: str | None, most: int | None) -> Trainer:
    """A trainer whose template can be used at all.

    Raises:
        UserError: no such way, no template, one that is no template or does what the sandbox forbids, or a tokenizer
            that does not say which characters a token stands for.
    """
    import jinja2

    if way not in WAYS:
        raise unknown("way in --trainer", way, WAYS)
    if not template and not tokenizer.chat_template:
        raise UserError(
            f"Tokenizer '{tokenizer.name_or_path}' has no chat template: it is a base model's. Give --template FILE."
        )
    if not tokenizer.is_fast:
        raise UserError(f"Tokenizer '{tokenizer.name_or_path}' has no tokenizer.json, which the proof reads.")
    trainer = Trainer(tokenizer, way, template, most)
    try:
        trainer.text([{"role": "user", "content": "Hello."}])
    except UserError as error:
        if isinstance(error.__cause__, jinja2.TemplateSyntaxError | jinja2.exceptions.SecurityError):
            raise
    return trainer


def prove_rows(rows: Sequence[Conversation], trainer: Trainer) -> Proof:
    """Count over all rows, and look for what to change where something is lost."""
    found = Proof()
    mildest = (True, 9)
    for row in rows:
        proof = prove_row(row, trainer)
        found.rows += 1
        found.tokens += proof.tokens
        found.trained += proof.trained
        found.rows_with_a_loss += bool(proof.losses)
        found.longest = max(found.longest, len(proof.document.ids))
        if proof.losses and found.first is None:
            found.first, found.change = (row.row, proof.losses[0]), change_for(row, trainer)
        # Of the mildest rows that have reasoning the first one.
        place = (not proof.tokens[REASONING], row.severity)
        if place < mildest and proof.document.ids:
            mildest, found.example = place, (row.row, pieces(proof.document, trainer.tokenizer))
    found.change = found.change or (f"Raise max_length to at least {found.longest}." if found.first else "")
    return found


def prove_row(row: Conversation, trainer: Trainer, key: str | None = None) -> RowProof:
    """One row, its reasoning under another key if one is named."""
    messages = row.messages(key)
    try:
        document, offsets = trainer.document(messages)
        text = trainer.text(messages)
        turns = {at: trainer.turn(messages, at, text) for at in row.thoughts}
    except UserError as error:
        refusal = Loss("conversation", "is refused by the chat template", str(error))
        return RowProof(Counter(), Counter(), (refusal,), Document((), ()))
    if trainer.way == COMPLETION:
        # What stands before the last turn is the prompt.
        turns = {len(messages) - 1: turns[len(messages) - 1]}
    parts = [PROMPT] * len(document.ids)
    absent: Counter[str] = Counter()
    losses: list[Loss] = []
    for turn, (turn_begin, turn_end) in turns.items():
        spans, missing = _located(text, turn_begin, row.thoughts[turn])
        begin = after = turn_begin
        for part, (start, after) in spans.items():
            for at in _tokens_in(offsets, begin, after):
                if offsets[at][1] > start or document.labels[at] != IGNORED:
                    parts[at] = part
            begin = after
        end = _end_of_turn(document, offsets, after, turn_end, trainer)
        if end is not None:
            parts[end] = END
        elif ANSWER in spans:
            absent[END] += 1
            losses.append(Loss(END, "is not there: the template writes none", ""))
        opened = text[turn_begin : spans[REASONING][0]] if REASONING in spans else ""
        if CLOSE in opened:
            losses.append(Loss(REASONING, "is behind a block that is closed already", opened))
        for part, words in missing.items():
            absent[part] += len(trainer.tokenizer(words, add_special_tokens=False)["input_ids"])
        losses = [*(Loss(part, "is not in what the trainer reads", words) for part, words in missing.items()), *losses]
    losses += _untrained(document, parts, trainer)
    if trainer.template is None:
        losses = [Loss("conversation", "is refused by TRL, which finds no {% generation %} markers", "")]
    trained = Counter(part for part, label in zip(parts, document.labels, strict=True) if label != IGNORED)
    return RowProof(Counter(parts) + absent, trained, tuple(losses), document)


def _located(text: str, begin: int, thought: Thought) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Where reasoning and answer stand behind a prompt, in characters, and those that do not.

    Templates strip white space around both, which is no loss. The reasoning's part goes on to the answer."""
    reasoning, answer = thought.reasoning.strip(), thought.answer.strip()
    at = text.find(reasoning, begin) if reasoning else -1
    answered = text.find(answer, at + len(reasoning) if at >= 0 else begin) if answer else -1
    if answered < 0 <= at and answer and (early := text.find(answer, begin)) >= 0:
        # The answer quotes the reasoning, which is itself not there.
        at, answered = -1, early
    spans, missing = {}, {}
    if at >= 0:
        spans[REASONING] = (at, answered if answered >= 0 else at + len(reasoning))
    elif reasoning:
        missing[REASONING] = reasoning
    if answered >= 0:
        spans[ANSWER] = (answered, answered + len(answer))
    elif answer:
        missing[ANSWER] = answer
    return spans, missing


def _tokens_in(offsets: Sequence[tuple[int, int]], begin: int, end: int) -> Iterator[int]:
    """The tokens that have a character between two places."""
    first = bisect.bisect_right(offsets, begin, key=lambda span: span[1])
    return itertools.takewhile(lambda at: offsets[at][0] < end, range(first, len(offsets)))


def _end_of_turn(
    document: Document, offsets: Sequence[tuple[int, int]], after: int, turn_end: int, trainer: Trainer
) -> int | None:
    """The token that ends a turn: the first behind it that is special, or not blank and of the turn."""
    for at in _tokens_in(offsets, after, offsets[-1][1] if offsets else 0):
        token = document.ids[at]
        written = offsets[at][0] < turn_end and decode(trainer.tokenizer, [token]).strip()
        if offsets[at][0] >= after and (written or token in trainer.tokenizer.added_tokens_decoder):
            return at
    return None


def _untrained(document: Document, parts: Sequence[str], trainer: Trainer) -> Iterator[Loss]:
    """The first place of each part that is there and not trained on."""
    for part in PARTS[:-1]:
        labels = zip(parts, document.labels, strict=True)
        at = next((at for at, (other, label) in enumerate(labels) if other == part and label == IGNORED), None)
        if at is not None:
            cut = trainer.max_length is not None and at >= trainer.max_length
            why = f"is cut off at {trainer.max_length} of {len(document.ids)} tokens" if cut else "is not trained on"
            yield Loss(part, why, decode(trainer.tokenizer, document.ids[at : at + 40]))


def change_for(row: Conversation, trainer: Trainer) -> str:
    """What to change, tried on the row that loses something: the least change with which it loses nothing; nothing
    where it is only cut off."""
    whole = replace(trainer, max_length=None)
    for words, other, key in _changes(whole):
        if not prove_row(row, other, key).losses:
            return words
    return (
        "Write a training template that renders `content` whole, with {% generation %} before and {% endgeneration %} "
        "behind what the assistant writes and its end-of-turn, and give it: --template FILE --trainer trl."
    )


_WAY_WORDS = {
    TRL: "Train with assistant_only_loss=True on `messages` (--trainer trl).",
    COMPLETION: "Give the rows as `prompt` and `completion` (--trainer prompt-completion).",
}
_KEY_WORDS = {key: f"Put the reasoning under `{key}`, beside `content`." for key in KEYS}
_KEY_WORDS[INLINE] = "Put the reasoning into `content`, as <think>\\nreasoning\\n</think>\\n\\nanswer."


def _changes(trainer: Trainer) -> Iterator[tuple[str, Trainer, str | None]]:
    keys: dict[str | None, str] = {None: ""}
    keys.update(_KEY_WORDS)
    ways = {trainer.way: "", **_WAY_WORDS}
    for (way, way_words), (key, key_words) in itertools.product(ways.items(), keys.items()):
        words = way_words if way != trainer.way else ""
        yield f"{words} {key_words}".strip(), replace(trainer, way=way), key
    asked, served = [{"role": "user", "content": "Hello."}], ""
    with contextlib.suppress(UserError):
        served = replace(trainer, way=PLAIN).text(asked, prompt=True)
    for path in sorted(TEMPLATES.glob("*.jinja")):
        other = replace(trainer, way=TRL, own=path.read_text(encoding="utf-8"))
        # Otherwise the student would be trained behind another prompt than it is served with.
        if served == other.text(asked, prompt=True):
            name = f"training/chat_templates/{path.name}"
            for key in (None, INLINE):
                yield f"Train by {name} (--trainer trl --template {name}). {keys[key]}".strip(), other, key


def _default(template: Any) -> str:
    """The template that is meant where a tokenizer has several by name."""
    return str(template.get("default") or next(iter(template.values()))) if isinstance(template, dict) else template
