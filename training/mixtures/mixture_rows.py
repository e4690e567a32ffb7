"""Mixtures by name: rows of a release together with rows of other datasets, mathematics among them.

Reads training/mixtures/NAME.yaml, or any YAML file of that form, and the datasets that it names; writes nothing.

    release: {improved: 1000, benign: 100}      rows of each configuration of the release
    further:                                    optional
      - name: math                              what the rows are called in counts
        hub: OWNER/NAME                         or a file or folder; with config, split, files, revision
        prompt: problem                         columns: the question, and the response with its reasoning, or
        response: solution                      messages, a conversation of both
        answer: answer                          optional: the reference; rows with another \\boxed answer are left out
        rows: 4000
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipelines.errors import UserError, unknown
from pipelines.prompts.turns import exchange
from pipelines.records import content_id
from pipelines.settings.old_names import keys_now
from pipelines.settings.parts import Part, read_yaml, validated
from pipelines.sources import Source, read_source
from pipelines.thinking import join, split
from training.mixtures.mixture import Mixture, RowForm, TrainingRow, draw

MIXTURES = Path(__file__).parent


class Further(Source):
    """Rows of one other dataset."""

    name: str
    rows: PositiveInt
    prompt: str = "prompt"
    response: str | None = None
    messages: str | None = None
    answer: str | None = None

    @model_validator(mode="after")
    def _readable(self) -> "Further":
        if (self.response is None) == (self.messages is None):
            raise ValueError("give the column of the response, or the one of the messages")
        return self


class Blend(Part):
    """A named mixture."""

    release: Annotated[dict[str, PositiveInt], Field(min_length=1)]
    further: tuple[Further, ...] = ()

    @field_validator("release", mode="before")
    @classmethod
    def _names_now(cls, release: Any) -> Any:
        return keys_now(release) if isinstance(release, dict) else release


def load_blend(wanted: str | Mapping[str, int] | Blend) -> Blend:
    """The mixture of that name or file; a mapping is rows of a release alone.

    Raises:
        UserError: there is none, or the file is not of that form.
    """
    if isinstance(wanted, Blend):
        return wanted
    if not isinstance(wanted, str):
        return Blend(release=dict(wanted))
    known = {path.stem: path for path in sorted(MIXTURES.glob("*.yaml"))}
    path = known.get(wanted, Path(wanted))
    if not path.is_file():
        raise unknown("mixture", wanted, known)
    return validated(Blend, read_yaml(path), f"mixture {path.name}")


def blended(
    wanted: str | Mapping[str, int] | Blend, dataset: Path, seed: int, cache: Path, form: RowForm | None = None
) -> Mixture:
    """Draw all rows of a mixture, of a form if they are not conversations.

    Raises:
        UserError: something is not there, cannot be read, or has too few rows.
    """
    blend = load_blend(wanted)
    if form is not None and blend.further:
        raise UserError(
            f"The mixture's further dataset '{blend.further[0].name}' has conversations, which only objective sft "
            "learns from. Name rows of the release alone, e.g. --set mixture={preference: 100}."
        )
    mixture = draw(dataset, blend.release, seed, cache, form)
    for part in blend.further:
        rows = _drawn(part, seed)
        mixture = replace(
            mixture,
            rows=(*mixture.rows, *rows),
            content=content_id(mixture.content, *((row.config, row.id, row.messages) for row in rows)),
        )
    return mixture


def _drawn(part: Further, seed: int) -> list[TrainingRow]:
    """Sound rows in a seeded order that does not depend on the dataset's, until there are enough."""
    found = [(content_id(seed, part.name, _question(row, part)), row) for row in read_source(part)]
    found.sort(key=lambda item: item[0])
    kept: list[TrainingRow] = []
    reasons: dict[str, int] = {}
    for _, row in found:
        try:
            kept.append(_row(row, part))
        except ValueError as error:
            reasons[str(error)] = reasons.get(str(error), 0) + 1
        if len(kept) == part.rows:
            break
    if len(kept) < part.rows:
        refused = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none was refused"
        raise UserError(f"'{part.name}' of the mixture wants {part.rows} rows; {part.hub} has {len(kept)} ({refused}).")
    random.Random(seed).shuffle(kept)
    return kept


def _question(row: Mapping[str, Any], part: Further) -> str:
    if part.messages is None:
        return str(row.get(part.prompt))
    turns = row.get(part.messages)
    return str(turns[0]) if isinstance(turns, list) and turns else ""


def _row(row: Mapping[str, Any], part: Further) -> TrainingRow:
    """Read one row; ValueError gives the reason why it is left out."""
    if part.messages is not None:
        found = exchange(row.get(part.messages))
        question, thought = "\n\n".join(filter(str.strip, (found.system, found.question))), found.thought
    else:
        asked, reply = row.get(part.prompt), row.get(part.response or "")
        if not isinstance(asked, str) or not isinstance(reply, str):
            raise ValueError("without question and response")
        question, thought = asked, split(reply)
    if not thought.reasoning.strip() or not thought.answer.strip():
        raise ValueError("without reasoning and answer")
    if part.answer is not None and not same_answer(thought.answer, str(row.get(part.answer))):
        raise ValueError("with another answer than the reference")
    text = join(thought.reasoning, thought.answer)
    return TrainingRow(
        id=content_id(part.name, question, text),
        config=part.name,
        kind=part.name,
        messages=({"role": "user", "content": question}, {"role": "assistant", "content": text}),
    )


def same_answer(text: str, reference: str) -> bool:
    """Whether a text's last \\boxed expression is the reference, as math-verify compares them."""
    from math_verify import LatexExtractionConfig, parse, verify

    if "\\boxed" not in text:
        return False
    # Its time limits are alarms, which only the main thread may set: there, training runs.
    found = parse(text[text.rindex("\\boxed") :], [LatexExtractionConfig()])
    wanted = parse(f"${reference}$")
    return bool(found and wanted and verify(wanted, found))
