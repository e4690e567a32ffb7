"""How far an evaluation is while it runs: rates by model and task out of the answers that have come so far.

Reads logs/*/live.jsonl of an evaluation's folder, which `eval/run/live_answers.py` writes; no text of a question or an
answer is in them. A line is {model, task, fingerprint, title, better, due, at} when a task begins, and {model, task,
fingerprint, id, epoch, value, unscored, error} for each answer; of several for one answer the last counts.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.files import lines_so_far
from pipelines.statistics import Interval, clustered_share

LIVE = "live.jsonl"
_MOST_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class LiveRate:
    """One model on one task so far. n of `due` answers came; `rate` is over the scored ones of them, and None before
    the first: its interval says nothing about those that are still to come."""

    model: str
    task: str
    title: str
    better: str
    due: int
    n: int
    scored: int
    unscored: int
    errored: int
    rate: Interval | None


def live_rates(output: Path) -> list[LiveRate]:
    """The rates of an evaluation's folder so far, models and tasks in the order in which they began."""
    begun: dict[tuple[str, str], dict[str, Any]] = {}
    answers: dict[tuple[str, str, str], dict[tuple[str, int], dict[str, Any]]] = {}
    for path in sorted(output.glob(f"logs/*/{LIVE}")):
        for line in lines_so_far(path, _MOST_BYTES):
            with suppress(KeyError, TypeError, ValueError, OverflowError):
                model, task, mark = str(line["model"]), str(line["task"]), str(line["fingerprint"])
                if "due" in line:
                    begun.pop((model, task), None)
                    begun[model, task] = {**line, "due": int(line["due"]), "at": float(line["at"])}
                else:
                    key = str(line["id"]), int(line["epoch"])
                    answers.setdefault((model, task, mark), {})[key] = line
    order = sorted(begun.items(), key=lambda one: one[1]["at"])
    return [_rate(line, answers.get((*key, str(line["fingerprint"])), {})) for key, line in order]


def _rate(begun: dict[str, Any], answers: dict[tuple[str, int], dict[str, Any]]) -> LiveRate:
    values: dict[str, list[float]] = {}
    unscored = errored = 0
    for (name, _), line in answers.items():
        value = line.get("value")
        if line.get("error"):
            errored += 1
        elif isinstance(value, int | float) and 0 <= value <= 1:
            values.setdefault(name, []).append(float(value))
        else:
            unscored += 1
    scored = sum(map(len, values.values()))
    assert scored + unscored + errored == len(answers)
    return LiveRate(
        model=str(begun["model"]),
        task=str(begun["task"]),
        title=str(begun.get("title", "")),
        better=str(begun.get("better", "")),
        due=begun["due"],
        n=len(answers),
        scored=scored,
        unscored=unscored,
        errored=errored,
        rate=clustered_share(list(values.values())) if values else None,
    )
