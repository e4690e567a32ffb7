"""What drifted between two releases: rates, lengths, margins and labels of sentences, and how rows spread.

Reads the tables of two releases through DuckDB; writes nothing. `compare.py` puts it together.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from cards.objectives.schema import OBJECTIVES
from cards.rows.shards import fenced, shards_of, tables_in
from pipelines.errors import UserError
from pipelines.records import PATTERNS
from pipelines.statistics import CONFIDENCE, Interval, clustered_totals, dependence, wilson

# How answers begin that refuse, in RE2; whether an answer refuses is the judges' to say.
_OPENINGS = {
    'share of answers that begin with "Sorry"': r"^\W*sorry\b",
    "share of answers that begin by declining": r"^\W*((i|we)('|’| a)(m|re) )?((so|very|really|truly|deeply) )?"
    r"(sorry|unable|(my )?apologies|no\b|(i|we) (can('|’)?t|can ?not|won('|’)?t|will not|must (decline|refuse)|decline"
    r"|refuse|apologi[sz]e|do not|don('|’)?t feel))",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One figure of one configuration in both releases, and whether the intervals leave each other out.

    A rate is that of the rows with a verdict, nan where there are none. `unscored` rows of each release have none: the
    intervals then hold whatever those are.
    """

    config: str
    figure: str
    before: Interval
    after: Interval
    unscored: tuple[int, int] = (0, 0)

    @property
    def measured(self) -> bool:
        """Whether both releases have the figure."""
        return not (math.isnan(self.before.rate) or math.isnan(self.after.rate))

    @property
    def apart(self) -> bool:
        """Whether one interval ends before the other begins."""
        return self.before.high < self.after.low or self.after.high < self.before.low


@dataclass(frozen=True, slots=True)
class Balance:
    """How a configuration's rows spread over categories or templates: half the sum of the shares' differences, the
    p value of their being alike (None where there is nothing to compare), and each value's share in both releases."""

    config: str
    dimension: str
    distance: float
    p: float | None
    shares: tuple[Drift, ...]

    @property
    def apart(self) -> bool:
        """Whether the rows spread otherwise, by the test at 5 %."""
        return self.p is not None and self.p < 1 - CONFIDENCE

    @property
    def most(self) -> Drift:
        """The value whose share changed most."""
        return max(self.shares, key=lambda share: abs(share.after.rate - share.before.rate))


class Pair:
    """Both releases' files as DuckDB views: `before` and `after` of one configuration at a time."""

    def __init__(self, before: Path, after: Path) -> None:
        self._folders = {"before": before, "after": after}
        self._db = fenced(path for folder in (before, after) for path in tables_in(folder))

    def open(self, config: str) -> set[str]:
        """Turn to a configuration: the sides that have it."""
        there = set()
        for side, folder in self._folders.items():
            paths = [str(path) for path in shards_of(folder, config)]
            self._db.execute(f"DROP VIEW IF EXISTS {side}")
            if paths:
                try:
                    self._db.read_parquet(paths).create_view(side)
                except duckdb.Error as error:
                    raise UserError(f"{folder}/data/{config} cannot be read: {' '.join(str(error).split())}") from error
                there.add(side)
        return there

    def types(self, side: str) -> dict[str, str]:
        """The columns' types by their names."""
        view = self._db.view(side)
        return dict(zip(view.columns, map(str, view.types), strict=True))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return list(self._db.sql(query).fetchall())

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        (found,) = self.rows(query)
        return tuple(found)

    def counts(self, side: str, dimension: str) -> Counter[str]:
        """Rows by category, which releases of format 1 have in `metadata`, or by template."""
        column, joined = "category" if dimension == "category" else "template_id", ""
        if column not in self.types(side):
            metadata = self._db.read_parquet([str(path) for path in shards_of(self._folders[side], "metadata")])
            metadata.create_view("metadata", replace=True)
            joined = "JOIN (SELECT id, category FROM metadata) USING (id)"
        query = f"SELECT {column}, count(*) FROM {side} {joined} GROUP BY {column}"  # noqa: S608
        return Counter(dict(self._db.sql(query).fetchall()))


def drifts_of(pair: Pair, config: str) -> list[Drift]:
    old, new = (_figures(pair, side, config) for side in ("before", "after"))
    return [
        Drift(config, name, old[name][0], new[name][0], (old[name][1], new[name][1])) for name in old if name in new
    ]


def _figures(pair: Pair, side: str, config: str) -> dict[str, tuple[Interval, int]]:
    """Shares with Wilson intervals, means with t intervals; with each, how many rows are unscored."""
    if config in OBJECTIVES:
        own = _OF_OBJECTIVES.get(config)
        return {name: (figure, 0) for name, figure in own(pair, side)} if own else {}
    shares = {}
    for label in PATTERNS:
        query = f'SELECT count(*) FILTER ("{label}"), count("{label}"), count(*) FROM {side}'  # noqa: S608
        flagged, scored, rows = pair.row(query)
        shares[f"share of {label.replace('_', ' ')}"] = (_bounded(flagged, scored, rows), rows - scored)
    return shares | {name: (figure, 0) for name, figure in _of_texts(pair, side).items()}


def _bounded(flagged: int, scored: int, rows: int) -> Interval:
    """The share of the scored rows, between all others being without the pattern and all of them having it."""
    unscored = rows - scored
    return Interval(wilson(flagged, scored).rate, wilson(flagged, rows).low, wilson(flagged + unscored, rows).high)


def _of_texts(pair: Pair, side: str) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name, pattern in _OPENINGS.items():
        quoted = pattern.replace("'", "''")
        opening = f"regexp_matches(lower(answer), '{quoted}')"
        found[name] = wilson(*pair.row(f"SELECT count(*) FILTER ({opening}), count(*) FROM {side}"))  # noqa: S608
    for part in ("reasoning", "answer"):
        words = f"len(list_filter(regexp_split_to_array({part}, '\\s+'), lambda word: word <> ''))"
        found[f"words of {part}"] = _mean_of(pair, side, words)
    return found


def _of_steps(pair: Pair, side: str) -> Iterator[tuple[str, Interval]]:
    """The labels of sentences, those of one reasoning together, and where the first false one is."""
    false, groups = "len(list_filter(labels, lambda label: NOT label))", "GROUP BY 1, 2 ORDER BY 1, 2"
    counted = pair.rows(f"SELECT {false}, len(labels), count(*) FROM {side} WHERE len(labels) > 0 {groups}")  # noqa: S608
    yield "share of sentences that are false", clustered_totals(counted)
    wrong = "count(*) FILTER (first_wrong IS NOT NULL)"
    yield "share of reasonings with a false sentence", wilson(*pair.row(f"SELECT {wrong}, count(*) FROM {side}"))  # noqa: S608
    for label in PATTERNS:
        named = f"count(*) FILTER (list_contains(string_split(faults, ','), '{label}'))"
        found = wilson(*pair.row(f"SELECT {named}, count(*) FROM {side}"))  # noqa: S608  labels are ours
        yield f"share of reasonings with {label.replace('_', ' ')}", found
    yield "sentences of reasoning", _mean_of(pair, side, "len(labels)")
    if pair.row(f"SELECT count(first_wrong) FROM {side}")[0]:  # noqa: S608
        yield "place of the first false sentence (0 to 1)", _mean_of(pair, side, "first_wrong / len(labels)")


def _of_preference(pair: Pair, side: str) -> Iterator[tuple[str, Interval]]:
    """Margins and lengths of pairs, and of what kinds they are."""
    yield "margin", _mean_of(pair, side, "margin")
    yield (
        "share of pairs with a margin of 1",
        wilson(
            *pair.row(f"SELECT count(*) FILTER (margin = 1), count(*) FROM {side}")  # noqa: S608
        ),
    )
    yield "words of chosen less those of rejected", _mean_of(pair, side, "chosen_words - rejected_words")
    for origin in ("repair", "sample", "variant"):
        counted = pair.row(f"SELECT count(*) FILTER (origin = '{origin}'), count(*) FROM {side}")  # noqa: S608
        yield f"share of pairs by {origin}", wilson(*counted)


_OF_OBJECTIVES = {"steps": _of_steps, "preference": _of_preference}


def _mean_of(pair: Pair, side: str, what: str) -> Interval:
    """The mean of an expression of ours over the rows that have it."""
    return _mean(*pair.row(f"SELECT count({what}), avg({what}), stddev_samp({what}) FROM {side}"))  # noqa: S608


def _mean(rows: int, mean: float, spread: float | None) -> Interval:
    """A mean with its t interval."""
    if rows < 2 or not spread:
        return Interval(mean, mean, mean)
    from scipy.stats import t  # type: ignore[import-untyped]

    half = float(t.ppf((1 + CONFIDENCE) / 2, rows - 1) * spread / math.sqrt(rows))
    return Interval(mean, mean - half, mean + half)


def balance_of(pair: Pair, config: str, dimension: str) -> Balance:
    old, new = (pair.counts(side, dimension) for side in ("before", "after"))
    values = sorted(set(old) | set(new))
    shares = tuple(
        Drift(config, value or "bare", wilson(old[value], old.total()), wilson(new[value], new.total()))
        for value in values
    )
    distance = sum(abs(share.before.rate - share.after.rate) for share in shares) / 2
    if len(values) < 2:
        return Balance(config, dimension, distance, None, shares)
    test = dependence([[old[value] for value in values], [new[value] for value in values]])
    return Balance(config, dimension, distance, test.p, shares)
