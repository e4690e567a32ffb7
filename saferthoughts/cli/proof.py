"""What a trainer would learn from anybody's dataset: `saferthoughts proof DATASET --tokenizer MODEL`.

Reads a dataset, a tokenizer and a chat template; writes nothing.
"""

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.errors import Incomplete, UserError
from saferthoughts.cli.dataset import Config, Mapping, Revision, Split, Where
from saferthoughts.cli.options import AsJson, out, say

if TYPE_CHECKING:
    from training.proof.dataset import Proof

_WAYS = {
    "trl": "assistant_only_loss=True on messages",
    "plain": "every token of the rendered messages",
    "prompt-completion": "what follows the prompt",
}


def proof(
    where: Where,
    tokenizer: Annotated[str, typer.Option(help="A folder with a tokenizer, or ORG/NAME on the Hub.")],
    template: Annotated[Path | None, typer.Option(help="A chat template instead of the tokenizer's.")] = None,
    trainer: Annotated[str, typer.Option(help="trl, plain or prompt-completion: the way of training.")] = "trl",
    max_length: Annotated[int, typer.Option(min=1, help="Tokens at which rows are cut; the default is TRL's.")] = 1024,
    mapping: Mapping = None,
    config: Config = None,
    split: Split = "train",
    revision: Revision = None,
    most: Annotated[int | None, typer.Option(min=1, help="The first N rows; all if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check whether training learns the reasoning and answers of a dataset under a tokenizer's chat template.

    Example: saferthoughts proof rows.jsonl --tokenizer Qwen/Qwen3-8B --trainer plain
    """
    from pipelines.settings.overrides import key_and_value
    from pipelines.sources import Source
    from training.proof.dataset import PARTS, REASONING, prove_rows, trainer_of
    from training.proof.dataset_rows import read_conversations
    from training.students.quiet import quiet
    from training.students.student import tokenizer_of

    columns = dict(key_and_value(text, "--map", "response=completion") for text in mapping or ())
    source = Source(hub=where, config=config, split=split, revision=revision)
    with quiet():
        chosen = trainer_of(tokenizer_of(tokenizer), trainer, _text_of(template), max_length)
        rows, refused = read_conversations(source, columns, most)
        if not rows:
            number, reason = refused[0]
            raise UserError(f"None of the {len(refused)} rows of {where} is a conversation; row {number}: {reason}.")
        found = prove_rows(rows, chosen)
    if as_json:
        names = {"dataset": where, "tokenizer": tokenizer, "template": template and str(template), "trainer": trainer}
        parts = {part: {"tokens": found.tokens[part], "trained": found.trained[part]} for part in PARTS}
        facts = asdict(replace(found, tokens=Counter(), trained=Counter())) | {"parts": parts, "refused": refused}
        del facts["tokens"], facts["trained"]
        print(json.dumps({**names, "max_length": max_length, **facts}, ensure_ascii=False))
    else:
        _show(found, f"{where}, {found.rows} rows, by {trainer}: {_WAYS[trainer]}, up to {max_length} tokens", refused)
    if found.first is not None:
        row, loss = found.first
        lost = f"{found.rows_with_a_loss} of {found.rows} rows lose something; the first is row {row}: {loss.words()}"
        raise Incomplete(f"{lost}. Change: {found.change}")
    if not found.tokens[REASONING]:
        raise Incomplete(
            f"No row of {where} has reasoning: neither <think> or another family's marks in the assistant's text, nor "
            "reasoning_content, reasoning, thinking or thought beside it. --map reasoning=COLUMN names a column."
        )


def _text_of(template: Path | None) -> str | None:
    try:
        return None if template is None else template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--template '{template}' cannot be read as text: {error}") from error


def _show(found: "Proof", head: str, refused: list[tuple[int, str]]) -> None:
    from saferthoughts.cli.training import example_of
    from training.proof.dataset import PARTS

    say(head)
    if refused:
        number, reason = refused[0]
        say(f"no conversation, and left out: {len(refused)} rows, the first is row {number}: {reason}")
    for part in PARTS:
        tokens, trained = found.tokens[part], found.trained[part]
        share = f"{trained} of {tokens} tokens trained on ({trained / tokens:.1%})" if tokens else "none in any row"
        say(f"  {part + ':':<13}{share}")
    say(f"row {found.example[0]}:")
    out.print(example_of(found.example[1]))
