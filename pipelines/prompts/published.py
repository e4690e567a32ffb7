"""Prompts as others publish them: where rows are, which of them are meant, what their kind and their slots are called.

A place is FILE or OWNER/NAME[:CONFIG[:SPLIT]][@REVISION] on the Hub, and may end with ?COLUMN=VALUE[&COLUMN=VALUE],
which takes the rows with those values: `harmbench.csv?FunctionalCategory=standard`. Reads it; writes nothing.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.public_names import public_name
from pipelines.records import Kind
from pipelines.row_files import Row, read_rows
from pipelines.sources import Source, read_source

# Where a published set says what a prompt is, and how: XSTest's label, WildJailbreak's data_type.
_KIND_COLUMNS = ("kind", "label", "data_type")
KIND_WORDS: Mapping[str, Kind] = {
    "harmful": "harmful",
    "unsafe": "harmful",
    "vanilla_harmful": "harmful",
    "adversarial_harmful": "harmful",
    "benign": "benign",
    "safe": "benign",
    "vanilla_benign": "benign",
    "adversarial_benign": "benign",
}
# Where templates have the request: ours, AutoDAN's, those of collections of jailbreaks seen in use, and others.
SLOTS = (
    *("{behaviour}", "{behavior}", "{query}", "{goal}", "{prompt}", "{question}", "{instruction}", "{request}"),
    *("[INSERT PROMPT HERE]", "[REPLACE]", "[PROMPT]", "[QUESTION]", "[GOAL]"),
)
_ON_HUB = re.compile(
    r"(?P<hub>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]+))?(?:@(?P<revision>\S+))?"
)


def kind_of_row(row: Row) -> Kind | None:
    """The kind that a row names in its set's own words; None where it names none."""
    lower = {str(name).lower(): value for name, value in row.values.items()}
    # XSTest's first edition marks its unsafe contrasts by their type alone.
    if str(lower.get("type") or "").startswith("contrast"):
        return "harmful"
    return next(
        (KIND_WORDS[word] for name in _KIND_COLUMNS if (word := str(lower.get(name)).lower()) in KIND_WORDS), None
    )


def name_of(place: str) -> str:
    """What a place is called in rows and cards: no path of this machine."""
    where = place if Path(place).is_file() else place.partition("?")[0]
    return public_name(where)


def rows_at(place: str) -> list[Row]:
    """The rows of a place, in its order.

    Raises:
        UserError: nothing is there, it cannot be read, a column is not there, or no row has the wanted values.
    """
    where, _, wanted = (place, "", "") if Path(place).is_file() else place.partition("?")
    if Path(where).is_file():
        rows = read_rows(Path(where))
    elif (found := _ON_HUB.fullmatch(where)) and not Path(where).exists():
        given: dict[str, Any] = {name: value for name, value in found.groupdict().items() if value is not None}
        rows = [Row(f"{where} row {n}", row) for n, row in enumerate(read_source(Source(**given)), start=1)]
    else:
        raise UserError(
            f"There is no file '{where}'. Give a file of prompts, or OWNER/NAME[:CONFIG[:SPLIT]] for one on the Hub."
        )
    for condition in filter(None, wanted.split("&")):
        column, _, value = condition.partition("=")
        if column not in rows[0].values:
            raise unknown(f"column of {where}", column, list(map(str, rows[0].values)))
        kept = [row for row in rows if str(row.values.get(column)) == value]
        if not kept:
            there = Counter(str(row.values.get(column)) for row in rows)
            raise unknown(f"{column} of {where}", value, [name for name, _ in there.most_common(12)])
        rows = kept
    return rows


def slot_of(text: str, where: str) -> str:
    """The one slot of a template.

    Raises:
        UserError: it has none, or several.
    """
    found = [slot for slot in SLOTS for _ in range(text.count(slot))]
    if len(found) != 1:
        raise UserError(f"{where}: the template has {len(found)} slots. It needs exactly one of: {', '.join(SLOTS)}.")
    return found[0]
