"""Commands of other people's datasets: `saferthoughts dataset look PATH`."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.errors import Incomplete
from saferthoughts.cli.options import group, say

if TYPE_CHECKING:
    from curation.datasets.reading import DatasetRows

dataset_app = group("Datasets of others: see how one is read before you check, judge or train on it.")

Where = Annotated[str, typer.Argument(help="A file, a folder, or ORG/NAME on the Hub.", metavar="PATH")]
Mapping = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, for columns of other names.")]
Kind = Annotated[str | None, typer.Option(help="harmful or benign, for rows without a kind.")]
Config = Annotated[str | None, typer.Option(help="The configuration to read.")]
Split = Annotated[str, typer.Option(help="The split to read.")]
Revision = Annotated[str | None, typer.Option(help="A tag or commit on the Hub.")]
Most = Annotated[int, typer.Option(min=1, help="Rows of a repository to look at.")]

_EXAMPLES = 3
_SHOWN = 200


@dataset_app.command()
def look(
    where: Where,
    mapping: Mapping = None,
    kind: Kind = None,
    config: Config = None,
    split: Split = "train",
    revision: Revision = None,
    most: Most = 1000,
) -> None:
    """What `check --dataset` would make of a dataset: its columns, three rows, and what is not read or refused.

    Example: saferthoughts dataset look rows.parquet --map response=completion
    """
    from curation.datasets.reading import read_dataset
    from pipelines.settings.overrides import key_and_value
    from pipelines.sources import Source

    source = Source(hub=where, config=config, split=split, revision=revision)
    columns = dict(key_and_value(text, "--map", "response=completion") for text in mapping or ())
    # Rows that do not say their kind are looked at all the same.
    found = read_dataset(source, columns, kind or "harmful", most=most)
    say(f"{where}: {len(found.responses)} of {found.count} rows can be used")
    for field, column in found.columns.items():
        say(f"  {field}: column {column}")
    if "kind" not in found.columns:
        say(f"  kind: {kind} for all rows" if kind else "  kind: no column; give --kind harmful or --kind benign")
    say(f"  not read: {', '.join(found.unread) or 'nothing'}")
    _show_refused(found)
    _show_rows(found)
    if not found.responses:
        raise Incomplete(
            f"No row of {where} can be used so. Name its columns with --map FIELD=COLUMN, or give another."
        )


def _show_refused(found: "DatasetRows") -> None:
    reasons = Counter(reason for _, reason in found.refused)
    first = {reason: number for number, reason in reversed(found.refused)}
    for reason, count in reasons.most_common():
        say(f"  refused: {count} (the first is row {first[reason]}): {reason}")


def _show_rows(found: "DatasetRows") -> None:
    """A few rows, mild ones first."""
    from pipelines.errors import one_line
    from pipelines.prompts.mildness import severity

    def mild(prompt_id: str) -> int:
        prompt = found.prompts[prompt_id]
        return severity(prompt.category, prompt.kind)

    rows = sorted(found.responses.values(), key=lambda row: mild(row.prompt_id))
    for row in rows[:_EXAMPLES]:
        prompt = found.prompts[row.prompt_id]
        say(f"prompt ({prompt.category}): {one_line(prompt.text, _SHOWN)}")
        say(f"  reasoning: {one_line(row.reasoning, _SHOWN) or '(none)'}")
        say(f"  answer: {one_line(row.answer, _SHOWN) or '(none)'}")
