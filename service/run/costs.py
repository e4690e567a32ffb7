"""Costs as page and API show them: the newest runs' ledgers, read again when one has changed, and jobs' budgets.

Reads what `saferthoughts/costs.py` reads.
"""

import csv
import io
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, Field

from pipelines.errors import refusal_of
from pipelines.file_marks import KeptWhileUnchanged, mark_of
from pipelines.runs import RunFolder
from saferthoughts.costs import CostLine, run_costs
from service.app_state import AppState

_MOST_RUNS = 500
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_kept: KeptWhileUnchanged[tuple[CostLine, ...]] = KeptWhileUnchanged(2 * _MOST_RUNS)


class Costs(BaseModel):
    """Lines of the newest runs; `unread` has the reason of each run whose ledger cannot be read."""

    lines: list[CostLine]
    budgets: dict[str, float] = Field(description="US dollars that a run's last job may spend, where it was said")
    unread: dict[str, str]
    runs: int
    all_runs: int


def costs_of(state: AppState) -> Costs:
    """What the newest runs cost."""
    names = state.reader.names()
    lines: list[CostLine] = []
    unread: dict[str, str] = {}
    for name in names[:_MOST_RUNS]:
        path = state.runs / name
        try:
            lines += _lines(path)
        except Exception as error:  # noqa: BLE001 - one odd ledger must not hide what the others cost
            unread[name] = refusal_of(error) or f"its ledger cannot be read ({type(error).__name__})."
    looked_at = names[:_MOST_RUNS]
    budgets = {name: most for name, most in state.queue.budgets().items() if name in looked_at}
    return Costs(lines=lines, budgets=budgets, unread=unread, runs=len(looked_at), all_runs=len(names))


def _lines(run: Path) -> tuple[CostLine, ...]:
    read = [run / name for name in ("ledger.sqlite", "ledger.sqlite-wal", "run.yaml")]
    return _kept.get(run, lambda: mark_of(*read), lambda: tuple(run_costs(RunFolder(run))))


def as_csv(costs: Costs) -> str:
    """The lines as CSV. A name that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = io.StringIO()
    fields = list(CostLine.__dataclass_fields__)
    table = csv.DictWriter(text, fields, lineterminator="\n")
    table.writeheader()
    for line in costs.lines:
        table.writerow({name: _cell(value) for name, value in asdict(line).items()})
    return text.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
