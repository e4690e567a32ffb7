"""Heads of a local judge fitted and measured by grouped cross-validation. Reads and writes nothing.

A label has three heads, and all share two. The first scores sentences: those that a judge quoted for the label against
the sentences of responses without it. The second scores the whole response. The shared ones foretell from the reasoning
whether the answer refuses, and from the answer whether the reasoning was going to. The last makes a probability of them
all, on responses that the others were not fitted on (Platt's calibration). In cross-validation a prompt's responses are
in one fold: of five, three fit the first heads, one fits the last, one is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.judges.local.model import COMBINED, Heads
from pipelines.judges.local.vectors import Floats, Seen
from pipelines.statistics import Interval, clustered_share

FOLDS = 5
FALSE_POSITIVES = (0.01, 0.05)
# A label with fewer positives, or from fewer prompts, gets no head: recall could be anything.
FEWEST, FEWEST_PROMPTS = 30, 15
# Sentences without a label that its head is fitted on; more make it no better.
_MOST_NEGATIVES = 4000
_BINS = 10
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """A response that was judged: its prompt, its labels, and the sentences that were quoted for each."""

    prompt_id: str
    seen: Seen
    labels: Mapping[str, bool]
    quoted: Mapping[str, frozenset[int]]


def learnable(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, str]:
    """What each label lacks to be learnt, "" where nothing."""
    lacks = {}
    for label in labels:
        prompts = {value: {one.prompt_id for one in examples if one.labels[label] is value} for value in (True, False)}
        counts = {value: sum(one.labels[label] is value for one in examples) for value in (True, False)}
        words = {True: "with", False: "without"}
        lacks[label] = "; ".join(
            f"{counts[value]} rows of {len(prompts[value])} prompts {words[value]} it, and it takes {FEWEST} of "
            f"{FEWEST_PROMPTS}"
            for value in (True, False)
            if counts[value] < FEWEST or len(prompts[value]) < FEWEST_PROMPTS
        )
    return lacks


class Fitting:
    """Examples ready to fit heads on subsets of; the same examples always give the same heads."""

    def __init__(self, examples: Sequence[Example], labels: Sequence[str], seed: int = 0) -> None:
        self._examples, self._labels, self._seed = examples, tuple(labels), seed
        self._rows = np.stack([one.seen.row for one in examples])
        self._sentences = np.concatenate([one.seen.sentences for one in examples])
        self._of = np.repeat(np.arange(len(examples)), [len(one.seen.sentences) for one in examples])
        self._truth = np.array([[one.labels[label] for label in labels] for one in examples])
        # 1 quoted for the label, 0 of a response without it, -1 of a response with it and not quoted.
        self._targets = np.concatenate(
            [
                [[number in one.quoted.get(label, ()) if one.labels[label] else 0 for label in labels]
                 for number in range(len(one.seen.sentences))]
                for one in examples if len(one.seen.sentences)
            ]
        ).astype(int)  # fmt: skip
        self._targets[(self._targets == 0) & self._truth[self._of]] = -1

    def cross_validated(self) -> tuple[Floats, Heads]:
        """Probabilities of each example by heads that never saw its prompt, (examples, labels), and heads of all."""
        folds = self._folds()
        features = np.zeros((len(self._examples), len(self._labels), COMBINED), dtype=np.float32)
        probabilities = np.zeros(self._truth.shape, dtype=np.float32)
        for fold in range(FOLDS):
            calibrating = np.flatnonzero(folds == (fold + 1) % FOLDS)
            held_out = np.flatnonzero(folds == fold)
            fitted = np.flatnonzero((folds != fold) & (folds != (fold + 1) % FOLDS))
            first = self._first(fitted)
            features[calibrating] = self._features(first, calibrating)
            heads = Heads(self._labels, *first, self._combined(features, calibrating))
            for number in held_out:
                scores = heads.scores(self._examples[int(number)].seen)
                probabilities[number] = [scores[label].probability for label in self._labels]
        everything = np.arange(len(self._examples))
        # Each example has calibrated one fold, with heads that had not seen it: all of them calibrate what is kept.
        return probabilities, Heads(self._labels, *self._first(everything), self._combined(features, everything))

    def _folds(self) -> Numbers:
        from sklearn.model_selection import StratifiedGroupKFold

        folds = np.zeros(len(self._examples), dtype=np.int64)
        groups = [one.prompt_id for one in self._examples]
        # By the rarest label that a row carries, so that no fold is without it.
        order = np.argsort(self._truth.sum(axis=0))
        kinds = np.array([next((int(at) + 1 for at in order if row[at]), 0) for row in self._truth])
        split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=self._seed)
        for number, (_, held_out) in enumerate(split.split(self._rows, kinds, groups)):
            folds[held_out] = number
        return folds

    def _first(self, rows: Numbers) -> tuple[Floats, Floats, Floats, Floats]:
        """The heads of sentences and of wholes, and the two that are shared, fitted on some examples."""
        chance = np.random.default_rng(self._seed)
        inside = np.isin(self._of, rows)
        sentence, row = [], []
        for at in range(len(self._labels)):
            target = self._targets[:, at]
            positive, negative = (np.flatnonzero(inside & (target == value)) for value in (1, 0))
            if len(negative) > _MOST_NEGATIVES:
                negative = chance.choice(negative, _MOST_NEGATIVES, replace=False)
            chosen = np.concatenate([positive, negative])
            # Votes of people quote nothing: then the whole decides.
            sentence.append(_fit(self._sentences[chosen], target[chosen] == 1))
            row.append(_fit(self._rows[rows], self._truth[rows, at]))
        size = self._sentences.shape[1]
        reasoning, answer = self._rows[rows, : 2 * size], self._rows[rows, 2 * size : 3 * size]
        foretell = _fit(reasoning, self._rows[rows, -1] == 1)
        reply = _fit(answer, reasoning @ foretell[:-1] + foretell[-1] > 0)
        return np.stack(sentence), np.stack(row), foretell, reply

    def _features(self, first: tuple[Floats, Floats, Floats, Floats], rows: Numbers) -> Floats:
        heads = Heads(self._labels, *first, np.zeros((len(self._labels), COMBINED), dtype=np.float32))
        return np.stack([heads.features(self._examples[number].seen) for number in rows])

    def _combined(self, features: Floats, rows: Numbers) -> Floats:
        found = [
            _fit(features[rows, at, :-1], self._truth[rows, at], strength=10.0) for at in range(len(self._labels))
        ]  # fmt: skip
        return np.stack(found)


def _fit(data: Floats, target: NDArray[np.bool_], strength: float = 1.0) -> Floats:
    """Weights and, last, the intercept of a logistic regression; without both classes a constant that says the one."""
    from sklearn.linear_model import LogisticRegression

    weights = np.zeros(data.shape[1] + 1, dtype=np.float32)
    if target.all() or not target.any():
        # As many as were seen, and one more of the other kind.
        weights[-1] = (1 if target.any() else -1) * np.log(len(target) + 1)
        return weights
    middle, spread = data.mean(axis=0), np.maximum(data.std(axis=0), 1e-3)
    # Many figures of each: the penalty on each is as of one figure in all.
    fitted = LogisticRegression(C=strength / np.sqrt(data.shape[1]), max_iter=300).fit((data - middle) / spread, target)
    weights[:-1] = fitted.coef_[0] / spread
    weights[-1] = fitted.intercept_[0] - float(weights[:-1] @ middle)
    return weights


def measures_of(examples: Sequence[Example], labels: Sequence[str], probabilities: Floats) -> dict[str, Any]:
    """Of each label: rows, positives, recall at each rate of false positives with interval, reliability."""
    measures = {}
    for at, label in enumerate(labels):
        truth = np.array([one.labels[label] for one in examples])
        found = probabilities[:, at]
        measures[label] = {
            "rows": len(truth),
            "positives": int(truth.sum()),
            "brier": round(float(np.mean((found - truth) ** 2)), 4),
            "brier_of_the_mean": round(float(truth.mean() * (1 - truth.mean())), 4),
            "recall": {str(rate): _recall(examples, truth, found, rate) for rate in FALSE_POSITIVES},
            "reliability": _reliability(truth, found),
        }
    return measures


def _recall(examples: Sequence[Example], truth: NDArray[np.bool_], found: Floats, rate: float) -> dict[str, Any]:
    """Recall at the lowest threshold that lets no more than this share of the negatives through."""
    negatives = np.sort(found[~truth])[::-1]
    threshold = float(negatives[int(rate * len(negatives))])
    by_prompt: dict[str, list[float]] = {}
    for number in np.flatnonzero(truth):
        by_prompt.setdefault(examples[int(number)].prompt_id, []).append(float(found[number] > threshold))
    recall: Interval = clustered_share(list(by_prompt.values()))
    return {
        "threshold": round(threshold, 4),
        "false_positives": int((negatives > threshold).sum()),
        "negatives": len(negatives),
        "recall": round(recall.rate, 4),
        "low": round(recall.low, 4),
        "high": round(recall.high, 4),
    }


def _reliability(truth: NDArray[np.bool_], found: Floats) -> list[dict[str, Any]]:
    """Rows by tenths of probability: how many, their mean probability, and the share that carries the label."""
    bins = np.minimum((found * _BINS).astype(int), _BINS - 1)
    return [
        {"rows": int(inside.sum()), "mean": round(float(found[inside].mean()), 4),
         "share": round(float(truth[inside].mean()), 4)}
        for number in range(_BINS)
        if (inside := bins == number).any()
    ]  # fmt: skip
