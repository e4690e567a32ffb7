"""Results written by hand, in the shape that eval/run/stage.py writes, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.run.results import (
    FORMAT,
    Answer,
    Comparison,
    DataUsed,
    Measure,
    Measured,
    Rate,
    Results,
    ScoreMode,
    TaskRun,
)
from pipelines.statistics import Interval, McNemar, wilson

BASE = "DeepSeek-R1-Distill-Qwen-7B"
ASR = Measure("asr", "attack success rate", "lower")
MEASURES = {
    "math500": Measure("accuracy", "accuracy", "higher"),
    "xstest": Measure("over_refusal", "over-refusal", "lower"),
    "refusal": Measure("refused", "refused", "higher"),
}
# An answer's value; None is one without a verdict, "error" one that failed.
Value = float | None | str


def measured(label: str, base: str = "", variant: str = "", name: str = "") -> Measured:
    return Measured(
        label, "endpoint", name or label, "http://127.0.0.1:8000/v1", None, base, variant, seconds=12.4, output_tokens=9
    )


def task_run(name: str, protocol: str = "paper", score: ScoreMode = "full", **changed: Any) -> TaskRun:
    """A task's run; `changed` replaces fields."""
    safety = name in ("none", "pap", "pair")
    fields: dict[str, Any] = {
        "name": name,
        "measure": MEASURES.get(name, ASR),
        "protocol": protocol,
        "settings": {"temperature": 0, "max_tokens": 4096, "epochs": 1},
        "score": score,
        "data": DataUsed(f"{name}.jsonl", "", "ab" * 32, "MIT", 4, 0),
        "roles": {"guard": "llama-guard-3-8b"} if safety else {},
        "prompts": {"guard.jinja": "cd" * 32} if safety else {},
        "logs": {},
    }
    return TaskRun(**(fields | changed))


def rate(model: str, task: str, values: Sequence[Value], group: str = "", expected: int | None = None) -> Rate:
    """Counts of values; what has no verdict may have been a hit, which the interval's upper end allows for."""
    hits = sum(1 for value in values if value == 1)
    errored = sum(1 for value in values if value == "error")
    unscored = sum(1 for value in values if value is None)
    n = len(values)
    low, high = wilson(hits, n), wilson(hits + unscored + errored, n)
    return Rate(
        model,
        task,
        group,
        questions=n,
        expected=expected or n,
        n=n,
        hits=hits,
        misses=n - hits - unscored - errored,
        unscored=unscored,
        errored=errored,
        truncated=0,
        rate=Interval(low.rate, low.low, high.high),
    )


def answer(model: str, task: str, number: int, value: Value, text: str, category: str = "") -> Answer:
    """An answer whose every text is `text`."""
    failed = value == "error"
    return Answer(
        model=model,
        task=task,
        id=f"{task}-{number}",
        epoch=1,
        category=category,
        question=text,
        asked=f"{text} (sent)",
        reasoning="" if failed else text,
        answer="" if failed else text,
        value=None if failed or isinstance(value, str) else value,
        unscored="no verdict in the guard's reply" if value is None else "",
        error=text if failed else "",
        truncated=False,
        stop_reason="stop",
        output_tokens=3,
        detail={"guard": text},
    )


def results(
    models: Sequence[Measured],
    values: Mapping[str, Mapping[str, Sequence[Value]]],
    runs: Mapping[str, TaskRun] | None = None,
    text: str = "Describe it.",
    comparisons: Sequence[Comparison] = (),
    categories: Sequence[str] = (),
) -> Results:
    """Results of those models by task and label; `categories` are those of each task's questions, in turn."""
    made = dict(runs or {})
    rates, answers = [], []
    for label in (model.label for model in models):
        for task, by_label in values.items():
            own = by_label.get(label)
            if own is None:
                continue
            rates.append(rate(label, task, own))
            for category in dict.fromkeys(categories):
                part = [value for at, value in enumerate(own) if categories[at % len(categories)] == category]
                rates.append(rate(label, task, part, category))
            for at, value in enumerate(own):
                category = categories[at % len(categories)] if categories else ""
                answers.append(answer(label, task, at, value, text, category))
    tasks = tuple(made.get(task) or task_run(task) for task in values)
    return Results(FORMAT, "safety", tuple(models), tasks, tuple(rates), tuple(comparisons), tuple(answers))


def compared(task: str, first: str, second: str) -> Comparison:
    return Comparison(task, "", first, second, McNemar(50, 9, 1, 0.021484375), 0.16)
