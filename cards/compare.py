"""One release against another: rows that came, went and changed, what drifted, and which version number that makes.

Reads two release folders; writes nothing. Run it with `saferthoughts compare A B`; `release build --since A` uses it
for the version and the changelog.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from cards.objectives.schema import OBJECTIVES, all_rows, reasoning_key_of
from cards.release_folder import lineage_now
from cards.shards import fenced, shards_of, tables_in
from cards.verify import shaped_like_ours
from curation.report.data import known
from pipelines.errors import UserError
from pipelines.records import PATTERNS
from pipelines.statistics import CONFIDENCE, Interval, dependence, wilson

Step = Literal["major", "minor", "patch"]
_ORDER: tuple[Step, ...] = ("patch", "minor", "major")
# How answers begin that refuse, in RE2; whether an answer refuses is the judges' to say.
_OPENINGS = {
    'share of answers that begin with "Sorry"': r"^\W*sorry\b",
    "share of answers that begin by declining": r"^\W*((i|we)('|’| a)(m|re) )?((so|very|really|truly|deeply) )?"
    r"(sorry|unable|(my )?apologies|no\b|(i|we) (can('|’)?t|can ?not|won('|’)?t|will not|must (decline|refuse)|decline"
    r"|refuse|apologi[sz]e|do not|don('|’)?t feel))",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """One configuration: rows in each release, and by id those that came, went, or are there with another content."""

    config: str
    before: int
    after: int
    added: int
    removed: int
    changed: int


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


@dataclass(frozen=True, slots=True)
class ReleaseComparison:
    """All of it. `meaning` names what makes the new release another kind of data than the old one."""

    versions: tuple[str, str]
    rows: tuple[Rows, ...]
    drifts: tuple[Drift, ...]
    balances: tuple[Balance, ...]
    meaning: tuple[str, ...]

    @property
    def step(self) -> Step | None:
        """What the difference makes of the version: major for schema or meaning, minor for rows or variants that came,
        patch for anything else; None where nothing differs."""
        if self.meaning:
            return "major"
        if any(one.added for one in self.rows):
            return "minor"
        return "patch" if any(one.removed or one.changed for one in self.rows) else None

    def plain(self) -> dict[str, Any]:
        """Everything as JSON values; what is not known is null."""
        drifts = [{**asdict(one), "measured": one.measured, "apart": one.apart} for one in self.drifts]
        balances = [{**asdict(one), "apart": one.apart} for one in self.balances]
        return dict(known({**asdict(self), "step": self.step, "drifts": drifts, "balances": balances}))


def compare(before: Path, after: Path) -> ReleaseComparison:
    """Compare two release folders.

    Raises:
        UserError: one of them is no release, or cannot be read.
    """
    old, new = lineage_now(before), lineage_now(after)
    with shaped_like_ours(before, after):
        try:
            return _compared(before, after, old, new)
        except duckdb.Error as error:
            reason = f"a table is not a release's ({' '.join(str(error).split())[:200]})"
            again = f"Check both: saferthoughts release verify {before}"
            raise UserError(f"{before} and {after} cannot be compared: {reason}. {again}") from error


def _compared(before: Path, after: Path, old: dict[str, Any], new: dict[str, Any]) -> ReleaseComparison:
    configs = list(all_rows(old) | all_rows(new))
    pair = _Pair(before, after)
    rows, drifts, balances, columns = [], [], [], set[str]()
    for config in configs:
        there = pair.open(config)
        rows.append(_rows(pair, config, there))
        if len(there) == 2:
            columns |= set(pair.types("before")) ^ set(pair.types("after"))
            if config not in OBJECTIVES:
                drifts += _drifts(pair, config)
            balances += [_balance(pair, config, dimension) for dimension in ("category", "template")]
    return ReleaseComparison(
        versions=(old["version"], new["version"]),
        rows=tuple(rows),
        drifts=tuple(drifts),
        balances=tuple(balances),
        meaning=tuple(_meaning(old, new, columns)),
    )


def proposed(version: str, step: Step | None) -> str:
    """The version that follows by a step; the same one where there is none."""
    major, minor, patch = (int(part) for part in version.split("."))
    following = {"major": (major + 1, 0, 0), "minor": (major, minor + 1, 0), "patch": (major, minor, patch + 1)}
    return ".".join(map(str, following[step])) if step else version


def check_version(compared: ReleaseComparison, wanted: str) -> None:
    """Refuse a version that understates the difference.

    Raises:
        UserError: it does, with the version that fits.
    """
    least = proposed(compared.versions[0], compared.step)
    if _numbers(wanted) < _numbers(least):
        why = "; ".join(compared.meaning) or "; ".join(lines_of(compared))
        raise UserError(
            f"Version {wanted} understates what differs from {compared.versions[0]}: give {least} or higher. {why}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def lines_of(compared: ReleaseComparison) -> list[str]:
    """The differences in words, for a changelog."""
    lines = [f"{what}." for what in compared.meaning]
    for one in compared.rows:
        parts = [
            f"{count} {word}"
            for count, word in ((one.added, "added"), (one.removed, "removed"), (one.changed, "changed"))
            if count
        ]
        if parts:
            lines.append(f"{one.config}: {one.before} to {one.after} rows ({', '.join(parts)}).")
    for drift in compared.drifts:
        if drift.apart:
            before, after = in_words(drift)
            lines.append(f"{drift.config}: {drift.figure} {before} to {after}.")
    lines += [f"{line}." for line in moved(compared)]
    return lines


def moved(compared: ReleaseComparison) -> list[str]:
    """The configurations whose rows spread otherwise over categories or templates, with what changed most."""
    return [
        f"{one.config}: {100 * one.distance:.0f} % of the rows lie in another {one.dimension} (p = {one.p:.2g}), "
        f"most of all {one.most.figure}: {' to '.join(in_words(one.most))}"
        for one in compared.balances
        if one.apart
    ]


def in_words(drift: Drift) -> tuple[str, str]:
    """A figure of both releases with its interval, and how many rows it is not of."""
    words = []
    for figure, unscored in zip((drift.before, drift.after), drift.unscored, strict=True):
        rate = "not judged" if math.isnan(figure.rate) else f"{figure.rate:.3g}"
        without = f", {unscored} unscored" if unscored else ""
        words.append(f"{rate} [{figure.low:.3g}, {figure.high:.3g}]{without}")
    return words[0], words[1]


class _Pair:
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

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        (found,) = self._db.sql(query).fetchall()
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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _rows(pair: _Pair, config: str, there: set[str]) -> Rows:
    before, after = (
        pair.row(f"SELECT count(*) FROM {side}")[0] if side in there else 0  # noqa: S608
        for side in ("before", "after")
    )
    if len(there) < 2:
        return Rows(config, before, after, added=after, removed=before, changed=0)
    # Which run a row came from does not count.
    types = [pair.types(side) for side in ("before", "after")]
    common = [name for name, kind in types[0].items() if types[1].get(name) == kind and name != "run_id"]
    same = " AND ".join(f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in map(_quoted, common))
    query = f"""
        SELECT count(*) FILTER (b.id IS NULL), count(*) FILTER (a.id IS NULL),
            count(*) FILTER (b.id IS NOT NULL AND a.id IS NOT NULL AND NOT ({same}))
        FROM before AS b FULL JOIN after AS a ON b.id = a.id
    """  # noqa: S608  columns of parquet files, quoted
    added, removed, changed = pair.row(query)
    if (types[0].keys() | types[1].keys()) - {*common, "run_id"}:
        changed = before - removed
    return Rows(config, before, after, added, removed, changed)


def _drifts(pair: _Pair, config: str) -> list[Drift]:
    old, new = (_figures(pair, side) for side in ("before", "after"))
    return [
        Drift(config, name, old[name][0], new[name][0], (old[name][1], new[name][1])) for name in old if name in new
    ]


def _figures(pair: _Pair, side: str) -> dict[str, tuple[Interval, int]]:
    """Shares with Wilson intervals, mean numbers of words with t intervals; with each, how many rows are unscored."""
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


def _of_texts(pair: _Pair, side: str) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name, pattern in _OPENINGS.items():
        quoted = pattern.replace("'", "''")
        opening = f"regexp_matches(lower(answer), '{quoted}')"
        found[name] = wilson(*pair.row(f"SELECT count(*) FILTER ({opening}), count(*) FROM {side}"))  # noqa: S608
    for part in ("reasoning", "answer"):
        words = f"len(list_filter(regexp_split_to_array({part}, '\\s+'), lambda word: word <> ''))"
        found[f"words of {part}"] = _mean(
            *pair.row(f"SELECT count(*), avg({words}), stddev_samp({words}) FROM {side}")  # noqa: S608
        )
    return found


def _mean(rows: int, mean: float, spread: float | None) -> Interval:
    """A mean with its t interval."""
    if rows < 2 or not spread:
        return Interval(mean, mean, mean)
    from scipy.stats import t  # type: ignore[import-untyped]

    half = float(t.ppf((1 + CONFIDENCE) / 2, rows - 1) * spread / math.sqrt(rows))
    return Interval(mean, mean - half, mean + half)


def _balance(pair: _Pair, config: str, dimension: str) -> Balance:
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


# What a variant is where its entry does not say: releases of before repaired and checked all of them.
_BASELINE = {"repaired": "repaired", "pattern_checked": "free of rows with a pattern"}


def _meaning(old: dict[str, Any], new: dict[str, Any], columns: set[str]) -> list[str]:
    """What makes the new release another kind of data."""
    found = [f"columns differ: {', '.join(sorted(columns))}"] if columns else []
    gone = [name for name in all_rows(old) if name not in all_rows(new)]
    keys = [reasoning_key_of(one) for one in (old, new)]
    if keys[0] != keys[1]:
        found.append(f"conversations have the reasoning by the key {keys[1]}, no longer {keys[0]}")
    found += [f"config {name} is gone" for name in gone]
    for name, entry in old["variants"].items():
        other = new["variants"].get(name)
        if other is not None and other["instruction_sha256"] != entry["instruction_sha256"]:
            found.append(f"the instruction of {name} is another one")
        if other is not None and _model(old, entry["teacher"]) != _model(new, other["teacher"]):
            found.append(
                f"{name} is answered by {_model(new, other['teacher'])}, no longer {_model(old, entry['teacher'])}"
            )
        for key, words in _BASELINE.items():
            was, now = (one.get(key, True) for one in (entry, other or entry))
            if was != now:
                found.append(f"{name} is {'' if now else 'no longer '}{words}{' now' if now else ''}")
    if old["benign_variant"] != new["benign_variant"]:
        found.append(f"benign prompts are asked as in {new['benign_variant']}, no longer {old['benign_variant']}")
    rubrics = {name: entry["sha256"] for name, entry in old["judging"]["rubrics"].items()}
    found += [
        f"the rubric {name} is another one"
        for name, entry in new["judging"]["rubrics"].items()
        if name in rubrics and entry["sha256"] != rubrics[name]
    ]
    if set(old["judging"]["judges"]) != set(new["judging"]["judges"]):
        found.append(
            f"judged by {', '.join(new['judging']['judges'])}, no longer {', '.join(old['judging']['judges'])}"
        )
    for name, judge in old["judging"]["judges"].items():
        other = new["judging"]["judges"].get(name)
        if other is not None and other["model"] != judge["model"]:
            found.append(f"the judge {name} is {other['model']}, no longer {judge['model']}")
    if old["judging"]["vote"] != new["judging"]["vote"] and len(new["judging"]["judges"]) > 1:
        found.append(f"a label is flagged by the rule {new['judging']['vote']}, no longer {old['judging']['vote']}")
    return found


def _model(lineage: dict[str, Any], teacher: str | None) -> str:
    if teacher is None:
        return "nobody"
    # Of imported rows no teacher of the run was asked.
    return str(lineage["teachers"][teacher]["model"]) if teacher in lineage["teachers"] else "an imported dataset"
