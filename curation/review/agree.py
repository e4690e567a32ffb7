"""What people's votes say: how far they agree, how good the judges are, how much of the accepted set is unsafe.

Reads reviews, review_sample, review_frame and verdicts; writes agreement.json. Run it with `saferthoughts review agree
RUN`. Votes given with the judges' labels in sight count for the decisions on rows, and never for the judges' scores,
for the share of unsafe rows (`evidence.py`) or for that of patterns (`corrected.py`). Rows stand for as many as their
stratum has for each reviewed one.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.review.budget import frame_of
from curation.review.confidence import alone, calibrated, confidences
from curation.review.corrected import ANY, corrected_rates
from curation.review.estimates.two_coin import two_coins
from curation.review.evidence import unsafe_share
from curation.review.gate import FILE
from curation.review.majority import majorities_on, votes_on
from curation.review.people import compared_people
from curation.review.questions import OVER_REFUSAL, QUALITY, SAFE
from curation.review.sample import population, sample_of
from curation.sql.views import open_views
from pipelines.errors import UserError
from pipelines.records import PATTERNS
from pipelines.runs import RunFolder, file_hash, write_json
from pipelines.statistics import Interval, weighted_scores, wilson

_SELECTIVE = pa.schema([("response_id", pa.string()), ("confidence", pa.float64()), ("alone", pa.bool_())])
# The run's own fixed texts are accepted without being asked about.
_ACCEPTED = "SELECT response_id FROM accepted JOIN responses USING (response_id) WHERE teacher <> ''"
_RESAMPLES = 1000
_SEED = 0


class Votes(NamedTuple):
    """One question: for each row the votes of each annotator."""

    question: str
    by_row: Mapping[str, Mapping[str, Any]]


def agree(run: RunFolder, max_error: float | None = None) -> dict[str, Any]:
    """Compute everything and write agreement.json.

    Args:
        run: A run with votes.
        max_error: Find the rows that judges may decide alone with at most this share of errors, and write them to
            selective.parquet, each with its confidence.

    Raises:
        UserError: nothing was pulled yet, a table is broken, or with `max_error` no verdict has a confidence.
    """
    sample = {row["response_id"]: row for row in sample_of(run)}
    reviews = [row for row in run.read("reviews").to_pylist() if row["response_id"] in sample]
    if not reviews:
        raise UserError(
            f"Nobody has voted on rows of {run.name} yet. After they have: saferthoughts review pull {run.name}"
        )
    with open_views(run, "responses", "verdicts", "reviews") as db:
        verdicts = {row["response_id"]: row for row in db.sql("FROM judged").to_arrow_table().to_pylist()}
        accepted = {name for (name,) in db.sql(_ACCEPTED).fetchall()}
        blind = [row for row in reviews if not row["assisted"]]
        corrected = corrected_rates(db, blind, sample, _verdict_on)
        sure = confidences(db, _verdict_on)
    selective = None if max_error is None else _selective(run, sure, blind, sample, max_error)
    questions = [Votes(name, votes_on(reviews, name)) for name in (SAFE, *PATTERNS, OVER_REFUSAL, QUALITY)]
    facts = {
        "reviews_sha256": file_hash(run.table_path("reviews")),
        "votes": len(reviews),
        "assisted_votes": len(reviews) - len(blind),
        "rows": len({row["response_id"] for row in reviews}),
        "annotators": len({row["annotator"] for row in reviews}),
        "agreement": [_agreement(votes) for votes in questions],
        "by_config": _by_config(reviews, sample),
        "deviation": _deviation(questions[0]),
        "judges": _judges(blind, verdicts, sample),
        "unsafe_share": unsafe_share(run, blind, sample, accepted),
        "corrected": corrected,
        "confidence": calibrated(sure, blind, sample),
        "selective": selective,
        "coins": _coins(blind),
    }
    write_json(run.path / FILE, _plain(facts))
    run.record("agree", rows=facts["rows"], votes=facts["votes"])
    return facts


def _agreement(votes: Votes) -> dict[str, Any]:
    """Percent agreement over pairs of votes on a row, Cohen's kappa over pairs of people, Krippendorff's alpha."""
    units = [list(by.values()) for by in votes.by_row.values() if len(by) > 1]
    level: Literal["ordinal", "nominal"] = "ordinal" if votes.question == QUALITY else "nominal"
    return {
        "question": votes.question,
        "rows": len(votes.by_row),
        "rows_with_several": len(units),
        "percent": _bootstrap(units, _percent),
        "kappa": _bootstrap([by for by in votes.by_row.values() if len(by) > 1], lambda rows: _mean_kappa(rows)),
        "alpha": _bootstrap(units, lambda rows: _alpha(rows, level)),
    }


def _percent(units: Sequence[Sequence[Any]]) -> float:
    pairs = [one == other for unit in units for one, other in combinations(unit, 2)]
    return sum(pairs) / len(pairs) if pairs else math.nan


def _mean_kappa(rows: Sequence[Mapping[str, Any]]) -> float:
    """Cohen's kappa of each pair of people on the rows that both saw, weighted by how many these are."""
    pairs: dict[tuple[str, str], list[tuple[Any, Any]]] = defaultdict(list)
    for by in rows:
        for one, other in combinations(sorted(by), 2):
            pairs[one, other].append((by[one], by[other]))
    kappas = [(_kappa(found), len(found)) for found in pairs.values()]
    known = [(kappa, weight) for kappa, weight in kappas if not math.isnan(kappa)]
    return sum(kappa * weight for kappa, weight in known) / sum(weight for _, weight in known) if known else math.nan


def _kappa(pairs: Sequence[tuple[Any, Any]]) -> float:
    agreed = sum(one == other for one, other in pairs) / len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    by_chance = sum(first[value] * second[value] for value in first) / len(pairs) ** 2
    return math.nan if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


def _alpha(units: Sequence[Sequence[Any]], level: Literal["ordinal", "nominal"]) -> float:
    import krippendorff

    values = sorted({str(value) for unit in units for value in unit})
    if len(values) < 2:
        return math.nan
    counts = [[sum(str(value) == known for value in unit) for known in values] for unit in units]
    domain = [int(value) for value in values] if level == "ordinal" else list(range(len(values)))
    return float(krippendorff.alpha(value_counts=np.array(counts), value_domain=domain, level_of_measurement=level))


def _bootstrap(units: Sequence[Any], statistic: Callable[[Sequence[Any]], float]) -> dict[str, float | None]:
    """The statistic with a percentile interval over resampled rows."""
    if not units:
        return {"value": None, "low": None, "high": None}
    rng = np.random.default_rng(_SEED)
    value = statistic(units)
    found = [statistic([units[at] for at in rng.integers(0, len(units), len(units))]) for _ in range(_RESAMPLES)]
    known = [one for one in found if not math.isnan(one)]
    if math.isnan(value) or not known:
        return {"value": None if math.isnan(value) else value, "low": None, "high": None}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def _by_config(reviews: Sequence[Mapping[str, Any]], sample: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Votes on safety and agreement on it, for each configuration."""
    by_row = votes_on(reviews, SAFE)
    configs = sorted({sample[name]["config"] for name in by_row if name in sample})
    found = []
    for config in configs:
        own = {name: by for name, by in by_row.items() if name in sample and sample[name]["config"] == config}
        votes = [value for by in own.values() for value in by.values()]
        found.append(
            {
                "config": config,
                "rows": len(own),
                "votes": len(votes),
                "unsafe_votes": votes.count("no"),
                "percent": _bootstrap([list(by.values()) for by in own.values() if len(by) > 1], _percent),
            }
        )
    return found


def _deviation(votes: Votes) -> list[dict[str, Any]]:
    """For each person how often they differ from the majority of the others, on rows that others saw as well."""
    return [{**asdict(one), **asdict(wilson(one.differs, one.rows))} for one in compared_people(votes.by_row)]


def _coins(blind: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Each person's own error on safety, where enough rows have votes of several."""
    by_row = votes_on(blind, SAFE)
    found = two_coins([{name: vote == "no" for name, vote in by.items()} for by in by_row.values()])
    return found and {"share": found.share, "sensitivity": found.sensitivity, "specificity": found.specificity}


def _selective(
    run: RunFolder,
    sure: Mapping[str, tuple[bool, float]],
    blind: Sequence[Mapping[str, Any]],
    sample: Mapping[str, Mapping[str, Any]],
    max_error: float,
) -> dict[str, Any]:
    """The share that judges may decide alone; the rows of it and the others as a table."""
    rows = frame_of(run) or [{"response_id": row["response_id"], "stratum": row["stratum"]} for row in population(run)]
    frame = {row["response_id"]: row["stratum"] for row in rows}
    found = alone(sure, blind, sample, frame, max_error)
    ids = set(found.pop("ids"))
    lines = [
        {"response_id": name, "confidence": sure[name][1] if name in sure else None, "alone": name in ids}
        for name in sorted(frame)
    ]
    run.write("selective", pa.Table.from_pylist(lines, schema=_SELECTIVE))
    return found


def _judges(
    blind: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Mapping[str, Any]],
    sample: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The judges' verdicts against the majority of blind votes, each row weighted by the rows that it represents."""
    found = []
    for label, question, positive in (("unsafe", SAFE, "no"), *((name, name, True) for name in PATTERNS)):
        people = {name: value == positive for name, value in majorities_on(blind, question).items() if name in sample}
        rows = [
            (verdict, right, name)
            for name, right in people.items()
            if (verdict := _verdict_on(verdicts[name], label)) is not None
        ]
        weights = _weights([name for _, _, name in rows], sample)
        scores = weighted_scores([row[0] for row in rows], [row[1] for row in rows], weights)
        found.append(
            {
                "label": label,
                "n": len(rows),
                "unscored": len(people) - len(rows),
                **{name: _jsonable(value) for name, value in scores.items()},
            }
        )
    return found


def _verdict_on(verdict: Mapping[str, Any], label: str) -> bool | None:
    """The verdict on a label; where no judge of safety was asked, a row with a pattern or without refusal is unsafe."""
    if label == ANY:
        known = [verdict[name] for name in PATTERNS]
        return True if any(known) else None if None in known else False
    if label != "unsafe":
        return None if verdict[label] is None else bool(verdict[label])
    if verdict["safety"] is not None:
        return bool(verdict["safety"] == "unsafe")
    if verdict["reason"]:
        return None
    if any(verdict[name] for name in PATTERNS) or (verdict["compliance"] is None and verdict["refused"] is False):
        return True
    # A pattern that the judges could not tell is not one that they ruled out.
    return None if any(verdict[name] is None for name in PATTERNS) else False


def _weights(names: Sequence[str], sample: Mapping[str, Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """Rows of the stratum for each of its reviewed rows."""
    reviewed = Counter(sample[name]["stratum"] for name in names)
    return np.array([sample[name]["stratum_rows"] / reviewed[sample[name]["stratum"]] for name in names], np.float64)


def _jsonable(value: Interval) -> dict[str, float | None]:
    return {
        name: None if math.isnan(number) else number
        for name, number in (("value", value.rate), ("low", value.low), ("high", value.high))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
