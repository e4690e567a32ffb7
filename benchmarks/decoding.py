"""A student on the CPU: what `eval` decodes with beside transformers' own generate, by turns.

Each contender answers the same questions (of the quick suite, by its bundled samples) greedily, so many rows at once,
with the same weights, numbers and threads. A row ends where the student ends it or at a length planned for it
(lognormal, at most four times the mean), whichever comes first: generate goes on until its longest row ends.

    python -m benchmarks.decoding [--questions 48] [--rows 16] [--mean 48] [--rounds 1] [--even] [--student FOLDER]

Prints one line of JSON: tokens a second and CPU seconds of each contender and round, the median ratios to generate, and
how many answers are the same, token for token. Without --student it is the bundled one.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.makespan import latency_of

SEED = 59
_SHORTEST, _TIMES_MEAN = 4, 4


class Asked(NamedTuple):
    """A question with the most tokens that its answer may have."""

    text: str
    limit: int

    @property
    def chat(self) -> list[dict[str, str]]:
        """As a conversation."""
        return [{"role": "user", "content": self.text}]


class Made(NamedTuple):
    """An answer: how many tokens, its end among them, and their text."""

    tokens: int
    text: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A student's decoding beside transformers'.")
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--rows", type=int, default=16, help="decoded at once")
    parser.add_argument("--mean", type=float, default=48, help="mean of the planned lengths, in tokens")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--student", type=Path, help="a checkpoint's folder")
    parser.add_argument("--even", action="store_true", help="every length the mean: what is left where none ends early")
    options = parser.parse_args()
    asked = questions(options.questions, options.mean, options.even)
    print(json.dumps(compare(options.student, asked, options.rows, options.rounds)))


def questions(count: int, mean: float, even: bool = False) -> list[Asked]:
    """The first questions of the quick suite's tasks in turn, with their lengths."""
    from eval.suites import SUITES, entry
    from eval.task_spec import TaskRequest

    request = TaskRequest({"temperature": 0, "max_tokens": 1, "epochs": 1}, bundled=True)
    tasks = [entry(name).build(request).task.dataset for name in SUITES["quick"]]
    samples = [tasks[at % len(tasks)][at // len(tasks) % len(tasks[at % len(tasks)])] for at in range(count)]
    texts = [one.input if isinstance(one.input, str) else one.input[-1].text for one in samples]
    planned = [round(mean if even else latency_of(mean, SEED, at)) for at in range(count)]
    longest = round(_TIMES_MEAN * mean)
    return [Asked(text, min(max(length, _SHORTEST), longest)) for text, length in zip(texts, planned, strict=True)]


def compare(path: Path | None, asked: list[Asked], rows: int, rounds: int) -> dict[str, Any]:
    """The contenders by turns; raises if one of them lacks an answer."""
    import torch

    from eval.models.hf_local import Student
    from training.students.student import fetch_student

    student = Student(path or fetch_student(), batch=rows)
    # Of one instance: the same weights, in the same numbers.
    contenders: dict[str, Callable[[Any, list[Asked], int], list[Made]]] = {"ours": _ours, "generate": _generate}
    answers: dict[str, list[Made]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            began, worked = time.perf_counter(), time.process_time()
            answers[name] = contender(student, asked, rows)
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    threads = torch.get_num_threads()
    student.close()
    tokens = sum(one.tokens for one in answers["generate"])
    batches = [answers["generate"][at : at + rows] for at in range(0, len(asked), rows)]
    steps = sum(len(batch) * max(one.tokens for one in batch) for batch in batches)
    same = [ours == theirs for ours, theirs in zip(answers["ours"], answers["generate"], strict=True)]
    found: dict[str, Any] = {
        "decoding_vs_generate": _ratio(seconds["generate"], seconds["ours"]),
        "decoding_vs_generate_cpu": _ratio(cpu["generate"], cpu["ours"]),
        "decoding_same_answers": f"{sum(same)} of {len(asked)}",
        "decoding_rows": rows,
        "decoding_tokens": tokens,
        "decoding_longest": max(one.tokens for one in answers["generate"]),
        # Of the tokens that generate computed, rows that had ended included.
        "decoding_generate_used": round(tokens / steps, 2),
        "decoding_threads": threads,
    }
    for name in contenders:
        found[f"decoding_tokens_per_s_{name}"] = [round(tokens / one, 1) for one in seconds[name]]
        found[f"decoding_cpu_s_{name}"] = [round(one, 1) for one in cpu[name]]
    return found | {"load": [round(load, 1) for load in os.getloadavg()]}


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(theirs, ours, strict=True)), 2)


def _ours(student: Any, asked: list[Asked], rows: int) -> list[Made]:
    futures = [student.submit(one.chat, one.limit) for one in asked]
    return [Made(done.output_tokens, done.text) for done in (future.result() for future in futures)]


def _generate(student: Any, asked: list[Asked], rows: int) -> list[Made]:
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Planned(StoppingCriteria):  # type: ignore[misc]
        def __init__(self, width: int, limits: list[int]) -> None:
            self.until = torch.tensor([width + limit for limit in limits])

        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return input_ids.shape[1] >= self.until

    found = []
    for at in range(0, len(asked), rows):
        part = asked[at : at + rows]
        batch = student._tokenizer.apply_chat_template(
            [one.chat for one in part], add_generation_prompt=True, return_tensors="pt", padding=True,
            return_dict=True, tokenizer_kwargs={"padding_side": "left"},
        )  # fmt: skip
        width, limits = batch["input_ids"].shape[1], [one.limit for one in part]
        stop = StoppingCriteriaList([Planned(width, limits)])
        made = student._model.generate(
            **batch, max_new_tokens=max(limits), do_sample=False, stopping_criteria=stop
        )[:, width:].tolist()  # fmt: skip
        found += [_made(student, row[:limit]) for row, limit in zip(made, limits, strict=True)]
    return found


def _made(student: Any, row: list[int]) -> Made:
    """A row of generate's, up to its end."""
    ends = [at for at, token in enumerate(row) if token in student._ends]
    return (
        Made(ends[0] + 1, student._decoder.decode(row[: ends[0]]))
        if ends
        else Made(len(row), student._decoder.decode(row))
    )


if __name__ == "__main__":
    main()
