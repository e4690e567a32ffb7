"""A run's ledger as tables: `saferthoughts ledger show`."""

from rich.console import Group, RenderableType
from rich.table import Table

from saferthoughts.ledgers import Spending

_COLUMNS = ("answers", "tokens in", "tokens out", "US dollars", "mean s")


def ledger_table(found: Spending) -> RenderableType:
    """Answers, tokens, cost and time by model; below, failures, refusals for good, and answers that were set aside."""
    origins = ["from"] if any(item.origin for item in found.models) else []
    table = Table("model", *origins, *_COLUMNS, box=None)
    lists = {
        "failed in the last call": found.failures.items(),
        "refused for good, not asked again": found.refusals.items(),
        "could not be read, set aside": [(f"{key}: {reason}", 1) for key, reason in found.set_aside.items()],
    }
    for item in found.models:
        cost = "no price" if item.cost is None else f"{item.cost:.4f}"
        counts = (f"{item.answers}", f"{item.input_tokens}", f"{item.output_tokens}")
        where = [item.origin or "asked here"] if origins else []
        table.add_row(item.model, *where, *counts, cost, f"{item.latency_s:.2f}")
    further = []
    for title, errors in lists.items():
        if errors:
            further.append(Table(title, "times", box=None))
            for error, count in errors:
                further[-1].add_row(error, f"{count}")
    return Group(table, *further) if further else table
