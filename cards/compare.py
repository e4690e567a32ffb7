"""One release against another: rows that came, went and changed, what drifted, and which version number that makes.

Reads two release folders; writes nothing. Run it with `saferthoughts compare A B`; `release build --since A` uses it
for the version and the changelog.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from cards.drift import Balance, Drift, Pair, balance_of, drifts_of
from cards.objectives.schema import all_rows, reasoning_key_of
from cards.release_folder import lineage_now
from cards.verify import shaped_like_ours
from curation.report.data import known
from pipelines.errors import UserError

Step = Literal["major", "minor", "patch"]
_ORDER: tuple[Step, ...] = ("patch", "minor", "major")


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
    pair = Pair(before, after)
    rows, drifts, balances, columns = [], [], [], set[str]()
    for config in configs:
        there = pair.open(config)
        rows.append(_rows(pair, config, there))
        if len(there) == 2:
            columns |= set(pair.types("before")) ^ set(pair.types("after"))
            drifts += drifts_of(pair, config)
            balances += [balance_of(pair, config, dimension) for dimension in ("category", "template")]
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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _rows(pair: Pair, config: str, there: set[str]) -> Rows:
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
