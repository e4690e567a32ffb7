"""One release against another: rows that came, went and changed, what drifted, and which version number that makes.

Reads two release folders; writes nothing. Run it with `saferthoughts compare A B`; `release build --since A` uses it
for the version and the changelog.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import chi2_contingency, t  # type: ignore[import-untyped]

from cards.verify import lineage_in
from pipelines.errors import UserError
from pipelines.records import PATTERNS, content_id
from pipelines.statistics import CONFIDENCE, Interval, wilson

Step = Literal["major", "minor", "patch"]
_ORDER: tuple[Step, ...] = ("patch", "minor", "major")
_OPENING = "sorry"


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
    """One figure of one configuration in both releases, and whether the intervals leave each other out."""

    config: str
    figure: str
    before: Interval
    after: Interval

    @property
    def apart(self) -> bool:
        """Whether one interval ends before the other begins."""
        return self.before.high < self.after.low or self.after.high < self.before.low


@dataclass(frozen=True, slots=True)
class Balance:
    """How a configuration's rows spread over categories or templates: half the sum of the shares' differences, and the
    p value of their being alike (None where there is nothing to compare)."""

    config: str
    dimension: str
    distance: float
    p: float | None


@dataclass(frozen=True, slots=True)
class Compared:
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
        """Everything as JSON values."""
        drifts = [{**asdict(one), "apart": one.apart} for one in self.drifts]
        return {**asdict(self), "step": self.step, "drifts": drifts}


def compare(before: Path, after: Path) -> Compared:
    """Compare two release folders.

    Raises:
        UserError: one of them is no release, or cannot be read.
    """
    old, new = lineage_in(before), lineage_in(after)
    configs = [name for name, count in {**old["rows"], **new["rows"]}.items() if count or old["rows"].get(name)]
    rows, drifts, balances, columns = [], [], [], set[str]()
    for config in configs:
        one, other = _table(before, config), _table(after, config)
        rows.append(_rows(config, one, other))
        if one and other:
            columns |= set(one[0]) ^ set(other[0])
            drifts += _drifts(config, one, other)
            balances += _balances(config, _with_categories(before, one), _with_categories(after, other))
    return Compared(
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


def check_version(compared: Compared, wanted: str) -> None:
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


def lines_of(compared: Compared) -> list[str]:
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
            lines.append(f"{drift.config}: {drift.figure} {_told(drift.before)} to {_told(drift.after)}.")
    return lines


def _told(figure: Interval) -> str:
    return f"{figure.rate:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def _table(folder: Path, config: str) -> list[dict[str, Any]]:
    paths = sorted((folder / "data" / config).glob("train-*.parquet"))
    try:
        return [row for path in paths for row in pq.read_table(path).to_pylist()]
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}/data/{config} cannot be read: {' '.join(str(error).split())}") from error


def _rows(config: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Rows:
    old = {row["id"]: _content(row) for row in before}
    new = {row["id"]: _content(row) for row in after}
    return Rows(
        config=config,
        before=len(old),
        after=len(new),
        added=len(new.keys() - old.keys()),
        removed=len(old.keys() - new.keys()),
        changed=sum(old[name] != new[name] for name in old.keys() & new.keys()),
    )


def _content(row: Mapping[str, Any]) -> str:
    """What a row says; which run it came from does not count."""
    return content_id({key: value for key, value in row.items() if key != "run_id"})


def _drifts(config: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Drift]:
    found = [
        Drift(config, f"share of {label.replace('_', ' ')}", _share(before, label), _share(after, label))
        for label in PATTERNS
    ]
    found.append(Drift(config, 'share of answers that begin with "Sorry"', _opening(before), _opening(after)))
    found += [
        Drift(config, f"words of {part}", _words(before, part), _words(after, part)) for part in ("reasoning", "answer")
    ]
    return found


def _share(rows: Sequence[Mapping[str, Any]], label: str) -> Interval:
    known = [row[label] for row in rows if row[label] is not None]
    return wilson(sum(known), len(known))


def _opening(rows: Sequence[Mapping[str, Any]]) -> Interval:
    return wilson(sum(row["answer"].lstrip().lower().startswith(_OPENING) for row in rows), len(rows))


def _words(rows: Sequence[Mapping[str, Any]], part: str) -> Interval:
    """The mean number of words with its t interval."""
    counts = np.array([len(row[part].split()) for row in rows], float)
    mean = float(counts.mean())
    if len(counts) < 2 or not counts.std():
        return Interval(mean, mean, mean)
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(counts) - 1) * counts.std(ddof=1) / math.sqrt(len(counts)))
    return Interval(mean, mean - half, mean + half)


def _with_categories(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    categories = {row["id"]: row["category"] for row in _table(folder, "metadata")}
    return [{"category": categories.get(row["id"], ""), "template": row["template_id"]} for row in rows]


def _balances(config: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Balance]:
    return [_balance(config, dimension, before, after) for dimension in ("category", "template")]


def _balance(config: str, dimension: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Balance:
    old, new = (Counter(row[dimension] for row in rows) for rows in (before, after))
    values = sorted(set(old) | set(new))
    distance = sum(abs(old[value] / len(before) - new[value] / len(after)) for value in values) / 2
    if len(values) < 2:
        return Balance(config, dimension, distance, None)
    test = chi2_contingency([[old[value] for value in values], [new[value] for value in values]])
    return Balance(config, dimension, distance, float(test.pvalue))


def _meaning(old: dict[str, Any], new: dict[str, Any], columns: set[str]) -> list[str]:
    """What makes the new release another kind of data."""
    found = [f"columns differ: {', '.join(sorted(columns))}"] if columns else []
    gone = [name for name, count in old["rows"].items() if count and not new["rows"].get(name)]
    found += [f"config {name} is gone" for name in gone]
    for name, entry in old["variants"].items():
        other = new["variants"].get(name)
        if other is not None and other["instruction_sha256"] != entry["instruction_sha256"]:
            found.append(f"the instruction of {name} is another one")
        if other is not None and _model(old, entry["teacher"]) != _model(new, other["teacher"]):
            found.append(
                f"{name} is answered by {_model(new, other['teacher'])}, no longer {_model(old, entry['teacher'])}"
            )
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
    return found


def _model(lineage: dict[str, Any], teacher: str | None) -> str:
    return str(lineage["teachers"][teacher]["model"]) if teacher in lineage["teachers"] else "nobody"
