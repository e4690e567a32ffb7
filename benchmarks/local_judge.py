"""How fast local judges are, what a cascade saves, and whether its bound holds, on the rehearsal teacher's truth.

    python -m benchmarks.local_judge [--runs 1000] [--quick] [--judge FOLDER]

A judge is distilled from noisy verdicts on responses to one half of the bundled prompts. The other half is the run: its
rows are drawn anew in each simulated run, and so are the LLM's mistakes, at the rates of
pipelines/rehearsal/judging.yaml (`noise`), at none (`truth`) and at twice those (`double`). With --quick the vectors of
tokens are random and runs fewer: speed is the same, quality is not; with --judge they are those of a local judge, which
saves making them. Prints a table, and last one line of JSON; of each
setting:

broken_misses     share of runs in which more than 1 % of the rows that the LLM flags, and stands by, were missed; 0.1
                  is promised
broken_alarms     the same of rows that got a label in vain
saved             mean share of the requests of an LLM alone, whose rows are judged once
recall_lost       points of recall against the truth that the cascade has less than the LLM alone, mean of the runs
nothing           share of runs in which the limits allowed no saving

`rows_per_s` and `long_rows_per_s` are rows of the rehearsal teacher and made-up ones of 800 words, one core's time.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from pipelines.files import scratch_folder
from pipelines.generate.plan import prompts_of
from pipelines.judges.local.limits import (
    NOTHING,
    audit_size,
    decides,
    errors_of,
    limits_of,
    sample_size,
)
from pipelines.judges.local.model import Heads, digest_of, load_local_judge
from pipelines.judges.local.vectors import Vectors
from pipelines.judges.spans import spans_of
from pipelines.prompts.stage import start
from pipelines.prompts.variant import load_variants
from pipelines.records import PATTERNS
from pipelines.rehearsal.judging import rates
from pipelines.rehearsal.performer import perform
from pipelines.rehearsal.truth import truth_of
from pipelines.settings.options import Options, configured
from training.local_judge.distill import quoted_sentences
from training.local_judge.encoder import bundled_encoder, token_vectors
from training.local_judge.fit import Example, Fitting

Truth = NDArray[np.bool_]
LOST, SURE, ROWS = 0.01, 0.9, 24_000
_VARIANTS = ("direct", "realsafe", "improved", "short", "template")


class Text(NamedTuple):
    """A response of the rehearsal teacher: its prompt, reasoning and answer, and the truth about it."""

    prompt: str
    reasoning: str
    answer: str
    truth: tuple[bool, ...]
    spans: dict[str, str]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="random token vectors and 100 runs, under 60 s")
    parser.add_argument("--judge", type=Path, help="a local judge whose token vectors are taken")
    options = parser.parse_args()
    samples, runs = (2, 100) if options.quick else (6, options.runs)
    chance = np.random.default_rng(0)
    learnt, run = texts(samples)
    vectors = encoder(options.quick, options.judge)
    heads = distilled(vectors, learnt, chance)
    started = time.process_time()
    probabilities = judged(vectors, heads, run)
    rows_per_s = len(run) / (time.process_time() - started)
    long = [made_up(number) for number in range(100)]
    started = time.process_time()
    judged(vectors, heads, long)
    figures: dict[str, Any] = {
        "quick": options.quick, "runs": runs, "rows": ROWS, "pool": len(run), "rows_per_s": round(rows_per_s),
        "long_rows_per_s": round(len(long) / (time.process_time() - started)),
    }  # fmt: skip
    truth = np.array([one.truth for one in run])
    table = Table(box=None)
    for column in ("mistakes", "broken_misses", "broken_alarms", "saved", "recall_lost", "nothing"):
        table.add_column(column)
    for name, times in (("truth", 0.0), ("noise", 1.0), ("double", 2.0)):
        found = [simulated(probabilities, truth, times, chance) for _ in range(runs)]
        figures[name] = {key: round(float(np.mean([one[key] for one in found])), 4) for key in found[0]}
        table.add_row(name, *map(str, figures[name].values()))
    Console().print(table)
    print(json.dumps({**figures, "load": [round(load, 2) for load in os.getloadavg()]}))


def texts(samples: int) -> tuple[list[Text], list[Text]]:
    """Responses to the two halves of the bundled prompts."""
    with scratch_folder("benchmark") as folder:
        run = start(folder, "prompts", configured(Options(harmful=400, benign=0, teacher="rehearsal"))).run
        prompts = [prompt.text for prompt in prompts_of(run) if prompt.kind == "harmful"]
    random.Random(0).shuffle(prompts)
    halves: tuple[list[Text], list[Text]] = ([], [])
    for number, prompt in enumerate(prompts):
        for name in _VARIANTS:
            for sample in range(samples):
                chat = load_variants()[name].messages(prompt)
                done = perform("rehearsal-r1", chat, seed=1, sample=sample)
                truth = truth_of(done.reasoning, done.answer)
                if truth is not None:
                    labels = tuple(truth.labels[label] for label in PATTERNS)
                    halves[number % 2].append(Text(prompt, done.reasoning, done.answer, labels, truth.spans))
    return halves


def made_up(number: int) -> Text:
    """A reasoning of 800 words that no cache has seen, in sentences of 16."""
    chance = random.Random(number)
    words = ["".join(chance.choices("abcdefghiklmnoprstuw", k=chance.randint(2, 9))) for _ in range(800)]
    lines = [" ".join(words[at : at + 16]).capitalize() + "." for at in range(0, 800, 16)]
    return Text("", " ".join(lines), "I can't help with that.", (), {})


def encoder(random_vectors: bool, judge: Path | None) -> Vectors:
    """The token vectors that judges have, or random ones."""
    if judge is not None:
        return load_local_judge(judge, digest_of(judge)).vectors
    folder = bundled_encoder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if random_vectors:
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        return Vectors(tokenizer, np.random.default_rng(0).standard_normal((size, 384)).astype(np.float32))
    return Vectors(tokenizer, token_vectors(folder)[1])


def distilled(vectors: Vectors, learnt: list[Text], chance: np.random.Generator) -> Heads:
    """Heads from one noisy verdict a row, as an LLM judge gives it."""
    seen = vectors.see([(one.reasoning, one.answer) for one in learnt])
    verdicts = asked(np.array([one.truth for one in learnt]), 1.0, chance)
    examples = []
    for text, found, one in zip(learnt, verdicts, seen, strict=True):
        labels = dict(zip(PATTERNS, map(bool, found), strict=True))
        evidence = {label: span for label, span in text.spans.items() if labels.get(label)}
        spans = [span for span in json.loads(spans_of(evidence, text.reasoning, text.answer)) if span["part"]]
        examples.append(Example(text.prompt, one, labels, quoted_sentences(spans, one)))
    return Fitting(examples, PATTERNS).cross_validated()[1]


def judged(vectors: Vectors, heads: Heads, rows: list[Text]) -> NDArray[np.floating]:
    """Probabilities, (rows, labels)."""
    seen = [one for at in range(0, len(rows), 200)
            for one in vectors.see([(text.reasoning, text.answer) for text in rows[at : at + 200]])]  # fmt: skip
    return np.array([[score.probability for score in heads.scores(one).values()] for one in seen])


def asked(truth: Truth, times: float, chance: np.random.Generator) -> Truth:
    """One verdict a row, wrong at so many times the rehearsal judge's rates."""
    of = rates()
    missed = times * np.array([of.missed[label] for label in PATTERNS])
    mistaken = times * np.array([of.flagged_by_mistake[label] for label in PATTERNS])
    return np.asarray(truth ^ (chance.random(truth.shape) < np.where(truth, missed, mistaken)))


def simulated(
    probabilities: NDArray[np.floating], truth: Truth, times: float, chance: np.random.Generator
) -> dict[str, float]:
    """One run: rows, mistakes and the sample drawn, limits found, and what came of it."""
    rows = chance.integers(len(truth), size=ROWS)
    found, right = probabilities[rows], truth[rows]
    first = asked(right, times, chance)
    disputed = ((found >= 0.5) != first).any(axis=1)
    stood_by = first.copy()
    again = sum(asked(right[disputed], times, chance).astype(int) for _ in range(4))
    stood_by[disputed] = first[disputed] + again >= 3
    size = sample_size(ROWS, float((1 - np.prod(1 - found, axis=1)).mean()), LOST, SURE)
    audit = size + (audit_size(ROWS) if size else 0)
    limits = limits_of(found[:size], stood_by[:size], LOST, SURE) if size else NOTHING
    if errors_of(found[size:audit], stood_by[size:audit], limits).contradict(LOST):
        limits = NOTHING
    local = decides(found, limits)
    local[:audit] = False
    errors = errors_of(found, stood_by, limits)
    verdicts = np.where(local[:, None], found >= 0.5, first)
    verdicts[:audit] = stood_by[:audit]
    requests = ROWS - int(local.sum()) + 4 * int(disputed[:audit].sum())
    positives = max(int(right.sum()), 1)
    return {
        "broken_misses": float(errors.missed > LOST * errors.flagged),
        "broken_alarms": float(errors.alarms > LOST * errors.rows),
        "saved": 1 - requests / ROWS,
        "recall_lost": 100 * float((first & right).sum() - (verdicts & right).sum()) / positives,
        "nothing": float(limits == NOTHING),
    }


if __name__ == "__main__":
    main()
