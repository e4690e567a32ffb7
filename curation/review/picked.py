"""Rows that somebody picked, to Argilla, beside the sample: with the judges' labels in sight, outside all estimates.

Reads what `sample.py` reads; writes review_picked.parquet and the dataset RUN-ID-picked. Votes on them decide these
rows (`apply.py`), and say nothing of any rate: a row is picked because it looks bad. Run it with
`saferthoughts review push RUN --ids FILE`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.review.push import PushedRows, dataset_for, find_workspace, send_new
from curation.review.questions import record, settings
from curation.review.sample import population
from pipelines.errors import UserError
from pipelines.freshness import require_fresh
from pipelines.runs import RunFolder

TABLE = "review_picked"
_SCHEMA = pa.schema([("response_id", pa.string()), ("dataset", pa.string()), ("sent", pa.bool_())])


def push_picked(
    run: RunFolder, client: Any, ids: Sequence[str], min_votes: int, workspace: str | None = None
) -> PushedRows:
    """Send rows by their ids, and those of earlier calls that are not there yet.

    Raises:
        UserError: an id that the run does not have, none of them can be asked about, the run is not checked, or the
            workspace is not there.
    """
    require_fresh(run, "accepted")
    texts = {row["response_id"]: row for row in population(run)}
    wanted = list(dict.fromkeys(ids))
    known = set(run.read("responses").column("response_id").to_pylist())
    if foreign := [one for one in wanted if one not in known]:
        raise UserError(
            f"{run.name} has no response '{foreign[0][:64]}' ({len(foreign)} of {len(wanted)} ids are none)."
        )
    fit = [one for one in wanted if one in texts]
    if not fit:
        raise UserError("None of these rows can be reviewed: each is a superseded attempt, or written by no teacher.")
    picked = picked_of(run)
    name = picked[0]["dataset"] if picked else f"{run.name}-{run.id}-picked"
    there = {row["response_id"] for row in picked}
    picked += [{"response_id": one, "dataset": name, "sent": False} for one in fit if one not in there]

    def keep() -> None:
        run.write(TABLE, pa.Table.from_pylist(picked, schema=_SCHEMA))

    def make(row: Mapping[str, Any]) -> Any:
        return record({**texts[row["response_id"]], "stratum": "picked"}, True)

    keep()
    dataset = dataset_for(client, find_workspace(client, workspace), name, settings(min_votes))
    sent, deleted = send_new(dataset, [row for row in picked if row["response_id"] in texts], make, keep)
    keep()
    left = len(wanted) - len(fit)
    words = f"{left} of {len(wanted)} rows are left out: superseded attempts, or written by no teacher" if left else ""
    return PushedRows(len(picked), sent, deleted, (name,), words)


def picked_of(run: RunFolder) -> list[dict[str, Any]]:
    """The rows that were picked so far."""
    return list(run.read(TABLE).to_pylist()) if run.table_path(TABLE).exists() else []


def picked_ids(run: RunFolder) -> set[str]:
    """Their ids."""
    return {row["response_id"] for row in picked_of(run)}
