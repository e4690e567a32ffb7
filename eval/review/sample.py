"""Which answers of an evaluation people are asked about: of each model and task some of each verdict, at random.

Reads results.json; reads and writes review_sample.parquet beside it, a row an answer that was drawn. An answer is named
by a hash of its texts and verdict: votes on one that was given or scored anew since are not taken for votes on it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.selection import allocate
from eval.report.figures import CORRECTABLE
from eval.run.results import NAME, Answer, Results
from pipelines.errors import UserError
from pipelines.records import content_id
from pipelines.runs import RunFolder

TABLE = "review_sample"
SAMPLE = pa.schema(
    [
        *[(name, pa.string()) for name in ("response_id", "stratum", "model", "task", "dataset")],
        ("sent", pa.bool_()),
        ("min_votes", pa.int64()),
    ]
)
# A verdict gets votes as if it had at least this share of a model's answers to a task.
_FLOOR = 0.15


def verdict_of(answer: Answer) -> str:
    """What was found of an answer: hit, miss, or untold where it has no verdict; "" of one that there is not."""
    if answer.error or answer.task not in CORRECTABLE:
        return ""
    return "untold" if answer.value is None else "hit" if answer.value > 0 else "miss"


def name_of(answer: Answer) -> str:
    """The answer's id among people's votes."""
    parts = (answer.model, answer.task, answer.id, answer.epoch, answer.question, answer.reasoning, answer.answer)
    return content_id("answer", *parts, verdict_of(answer))


def strata_of(results: Results) -> dict[str, list[Answer]]:
    """The answers that people can be asked about, by task, model and verdict, each in the order of the draw."""
    found: dict[str, list[Answer]] = defaultdict(list)
    for answer in results.answers:
        if verdict := verdict_of(answer):
            found[f"{answer.task}/{answer.model}/{verdict}"].append(answer)
    return {name: sorted(found[name], key=name_of) for name in sorted(found)}


def draw(results: Results, votes: int, earlier: Sequence[Mapping[str, Any]], min_votes: int) -> list[dict[str, Any]]:
    """The sample, rows of SAMPLE in the order in which people see them; what was drawn before stays in it.

    Every model and task gets as many votes, each verdict of it in proportion to its answers, a rare one a few more.

    Raises:
        UserError: no answer is to a task whose hits people can see, or there are too few votes for one of each.
    """
    strata = strata_of(results)
    sizes = {name: len(found) for name, found in strata.items()}
    cells = Counter({name.rpartition("/")[0]: 0 for name in sizes})
    for name, size in sizes.items():
        cells[name.rpartition("/")[0]] += size
    if not strata:
        raise UserError(f"None of these answers can be voted on. People are asked about: {', '.join(CORRECTABLE)}.")
    rows = votes // min_votes
    if rows < len(cells):
        raise UserError(f"--votes {votes} are too few: there are {len(cells)} rates, and {min_votes} votes a row.")
    shares = allocate(cells, dict.fromkeys(cells, 1), rows)
    before = {row["response_id"]: row for row in earlier}
    drawn = []
    for cell, share in shares.items():
        own = {name: sizes[name] for name in sizes if name.rpartition("/")[0] == cell}
        weights = {name: max(size, round(_FLOOR * cells[cell])) for name, size in own.items()}
        for name, count in allocate(own, weights, share).items():
            # The order depends on the answer alone, so a larger sample holds the smaller one.
            known = sum(name_of(answer) in before for answer in strata[name])
            for answer in strata[name][: max(count, known)]:
                new = {"stratum": name, "model": answer.model, "task": answer.task, "dataset": "", "sent": False}
                drawn.append({"response_id": name_of(answer), **new, **before.get(name_of(answer), {})})
    return sorted(drawn, key=lambda row: content_id("order", row["response_id"]))


def table_of(folder: Path, table: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """The rows of a table beside results.json, none where it is not there.

    Raises:
        UserError: it is not parquet, or has other columns.
    """
    path = RunFolder(folder).table_path(table)
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = RunFolder(folder).read(table).select(schema.names).cast(schema).to_pylist()
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(f"{path} does not hold votes on {NAME} ({error}). Delete it and push or pull again.") from error
    return rows
