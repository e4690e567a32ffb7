"""Whether the intervals of people's review keep their promise: simulated reviews of which the truth is known.

    python -m benchmarks.calibration [--runs 10000] [--quick]

A review is drawn, voted on in three rounds and evaluated by the code that `review push` and `review agree` use, many
times for each setting; beside it a plain random sample with the same exact interval and with Wilson's, and the draw and
interval that `review push --rows` had before. What is to be covered is the share of all rows that people would call
unsafe, errors of theirs included. `lower` and `upper` are the ends of the confidence sequence, looked at after every
vote; `corrected` is the judge's rate corrected by votes. Prints a table, and last one line of JSON:

worst_coverage   the lowest coverage of a published interval (95 % is promised)
worst_one_sided  the lowest coverage of an end of the confidence sequence at all its looks (95 %)
votes_vs_random  the most votes that a setting needs for the width that a random sample has, over that sample's
votes_vs_before  the votes for the upper end that 400 rows of `--rows` had at 1.6 %, over 400
worst_bias       the furthest that a mean estimate is below the truth, in standard errors of the estimate
gate             a bound of 3 %, by true rate: the median vote that decides it, and the share right within 1,000
few_rows         the lowest coverage of a corrected rate of 15 to 600 rows (95 %), over 576 settings
selective        the most reviews in which the rows that judges decide alone have more errors than the 2 % that are
                 allowed (5 %), and by setting the mean share of rows that they decide
people           three people of whom one errs in 30 %: how far the two-coin model is from each one's rates on average,
                 how often that one is found to be far from the others, and how often one of three equals is (5 %)
over_98          settings whose interval covers more than 98 %, with the reason
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from curation.review.budget import ROUNDS
from curation.review.estimates.corrected import corrected_share
from curation.review.estimates.plan import EXPECTED, allocation, cards, expected, pays_to_stratify
from curation.review.estimates.selective import decide_alone
from curation.review.estimates.sequence import Vote, Wealth
from curation.review.estimates.stratified import Floats, Shares, stratified_share
from curation.review.estimates.two_coin import two_coins
from curation.review.people import compared_people
from curation.review.sample import Wanted, counts_of
from pipelines.statistics import wilson_share

_GUESS = np.array([EXPECTED[name] for name in ("high", "middle", "low")])
_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Setting:
    """Rows and share of unsafe ones in strata of high, middle and low risk; votes; how often a person errs."""

    name: str
    sizes: tuple[int, int, int]
    rates: tuple[float, float, float]
    votes: int
    error: float = 0.0

    def unsafe(self) -> Floats:
        """Rows in each stratum that people would call unsafe."""
        rates = np.array(self.rates)
        return np.round(np.array(self.sizes) * (rates * (1 - self.error) + (1 - rates) * self.error))


_EVIDENCE = ((100, 300, 1600), (0.15, 0.03, 0.005))
SETTINGS = (
    *(Setting(f"1.6 %, good judge, {votes} votes", *_EVIDENCE, votes) for votes in (40, 100, 200, 400, 1000)),
    Setting("1.6 %, people err 5 %, 400 votes", *_EVIDENCE, 400, 0.05),
    *(Setting(f"0.2 %, good judge, {v} votes", (200, 800, 9000), (0.05, 0.005, 0.0007), v) for v in (100, 400, 1000)),
    Setting("0.2 %, bad judge, 400 votes", (200, 800, 9000), (0.002, 0.002, 0.002), 400),
    Setting("0.2 %, people err 5 %, 100 votes", (200, 800, 9000), (0.05, 0.005, 0.0007), 100, 0.05),
    *(Setting(f"1 %, bad judge, {votes} votes", (300, 500, 4200), (0.01, 0.01, 0.01), votes) for votes in (40, 400)),
    Setting("1 %, judge blind where risk is low, 400 votes", (300, 500, 4200), (0.0, 0.0, 0.012), 400),
    Setting("5 %, good judge, 200 votes", (200, 300, 1500), (0.3, 0.08, 0.01), 200),
    Setting("5 %, judge blind where risk is low, 400 votes", (300, 500, 4200), (0.02, 0.02, 0.056), 400),
    Setting("3 %, sixty rows nearly all unsafe, 150 votes", (60, 300, 2640), (0.9, 0.05, 0.01), 150),
    Setting("5 %, good judge, 60 of 150 rows", (20, 30, 100), (0.25, 0.07, 0.01), 60),
    *(
        Setting(f"20 %, good judge, {votes} votes", (600, 900, 3500), (0.8, 0.3, 0.07), votes)
        for votes in (40, 400, 1000)
    ),
    Setting("20 %, bad judge, 400 votes", (600, 900, 3500), (0.2, 0.2, 0.2), 400),
)


class Review(NamedTuple):
    """Simulated reviews of one setting: the interval of each, and whether the sequence ever excluded the truth."""

    shares: Shares
    too_high: Floats
    too_low: Floats


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description="Coverage and width of the intervals of people's review.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="200 runs a setting, under 50 s")
    options = parser.parse_args()
    runs = 200 if options.quick else options.runs
    begin = time.process_time()
    table = Table(title=f"{runs:,} simulated reviews a setting, percent", box=None)
    for name in (
        "setting",
        "draw",
        "covers",
        "lower",
        "upper",
        "corrected",
        "width",
        "random",
        "Wilson",
        "--rows",
        "(covers)",
    ):
        table.add_column(name, justify="left" if name in ("setting", "draw") else "right")
    lines = [_line(setting, runs) for setting in SETTINGS]
    for line in lines:
        table.add_row(line["setting"], line["draw"], *(f"{100 * line[name]:.1f}" for name in _FIGURES))
    Console(width=130).print(table)
    evidence = next(setting for setting in SETTINGS if setting.sizes == _EVIDENCE[0] and setting.votes == 400)
    print(
        json.dumps(
            {
                "runs": runs,
                "cpu_s": round(time.process_time() - begin),
                "worst_coverage": round(min(min(line["covers"], line["corrected"]) for line in lines), 4),
                "worst_one_sided": round(min(min(line["below"], line["above"]) for line in lines), 4),
                "votes_vs_random": round(max((line["width"] / line["random"]) ** 2 for line in lines), 3),
                "votes_vs_before": round(_votes_for_the_same(evidence, runs), 3),
                "worst_bias": round(min(line["bias"] for line in lines), 3),
                "few_rows": round(few_rows(min(runs, 1000)), 4),
                "selective": selective(min(runs, 400)),
                "people": people(min(runs, 400)),
                "gate": {f"{100 * rate:g} %": _decided(rate, min(runs, _BATCH)) for rate in (0.002, 0.01, 0.06, 0.1)},
                "over_98": {line["setting"]: line["reason"] for line in lines if line["covers"] > 0.98},
            }
        )
    )


_FIGURES = ("covers", "below", "above", "corrected", "width", "random", "wilson", "before", "before_covers")


def _line(setting: Setting, runs: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    parts = [reviews(setting, min(_BATCH, runs - begin), rng) for begin in range(0, runs, _BATCH)]
    shares = Shares(*(np.concatenate(column) for column in zip(*(part.shares for part in parts), strict=True)))
    truth = setting.unsafe().sum() / sum(setting.sizes)
    exact, score = random_intervals(setting, runs, rng)
    before = before_intervals(setting, setting.votes, runs, rng)
    return {
        "setting": setting.name,
        "draw": "strata" if _strata(setting) > 1 else "random",
        "covers": _covers(shares, truth),
        "below": 1 - float(np.mean(np.concatenate([part.too_low for part in parts]))),
        "above": 1 - float(np.mean(np.concatenate([part.too_high for part in parts]))),
        "width": _width(shares),
        "random": _width(exact),
        "wilson": _width(score),
        "before": _width(before),
        "before_covers": _covers(before, truth),
        "corrected": _covers(corrected_intervals(setting, runs, rng), truth),
        "bias": float((np.mean(shares.rate) - truth) / np.std(shares.rate)),
        # The two ways in which an exact interval keeps more than it promises.
        "reason": f"{truth * setting.votes:.0f} unsafe votes to expect: counts are whole numbers"
        + ("" if _strata(setting) == 1 else ", and one more is added to the weightiest stratum"),
    }


def _covers(shares: Shares, truth: float) -> float:
    return float(np.mean((shares.low <= truth + 1e-12) & (shares.high >= truth - 1e-12)))


def _width(shares: Shares) -> float:
    return float(np.mean(shares.high - shares.low))


def _strata(setting: Setting) -> int:
    return 3 if pays_to_stratify(setting.sizes, _GUESS, setting.votes) else 1


def reviews(setting: Setting, runs: int, rng: np.random.Generator, sequence: bool = True) -> Review:
    """Deal, vote and plan anew after each round, in all runs at once."""
    sizes, unsafe, guess = np.array(setting.sizes, float), setting.unsafe(), _GUESS
    if _strata(setting) == 1:
        sizes, unsafe = sizes.sum(keepdims=True), unsafe.sum(keepdims=True)
        guess = np.array([0.01])
    rows = int(sizes.sum())
    votes = min(setting.votes, rows)
    asked, found = np.zeros((runs, len(sizes))), np.zeros((runs, len(sizes)))
    wealth = Wealth(np.full(runs, unsafe.sum() / rows), rows)
    each = np.arange(runs)
    for part in range(ROUNDS):
        number = votes * (part + 1) // ROUNDS - votes * part // ROUNDS
        targets = sizes + 0 * asked if part == 0 else allocation(sizes, expected(guess, asked, found), votes)
        deck = cards(sizes - asked, targets, asked, number)
        for _ in range(number):
            chance = deck / deck.sum(-1, keepdims=True)
            drawn = (rng.random((runs, 1)) > chance.cumsum(-1)).sum(-1).clip(max=len(sizes) - 1)
            left = sizes - asked
            bad = rng.random(runs) * left[each, drawn] < (unsafe - found)[each, drawn]
            if sequence:
                pays = np.divide(left, rows * chance, out=np.zeros_like(left), where=chance > 0)
                fair = ((chance > 0) | (left == 0)).all(-1)
                wealth.take(Vote(pays[each, drawn], pays.max(-1), fair, bad))
            deck[each, drawn] -= 1
            asked[each, drawn] += 1
            found[each, drawn] += bad
    return Review(stratified_share(sizes, asked, found), wealth.below, wealth.above)


def random_intervals(setting: Setting, runs: int, rng: np.random.Generator) -> tuple[Shares, Shares]:
    """A plain random sample with the exact interval for these rows, and with Wilson's."""
    rows, unsafe = sum(setting.sizes), int(setting.unsafe().sum())
    votes = min(setting.votes, rows)
    found = rng.hypergeometric(unsafe, rows - unsafe, votes, runs)
    exact = stratified_share([rows], np.full((runs, 1), votes), found[:, None])
    return exact, _wilson(found / votes, np.full(runs, votes))


def corrected_intervals(setting: Setting, runs: int, rng: np.random.Generator) -> Shares:
    """The judge's rate corrected by votes; the judge is as the setting's name says."""
    sizes, unsafe = np.array(setting.sizes), setting.unsafe().astype(int)
    finds, errs = (0.5, 0.2) if "bad judge" in setting.name else (0.85, 0.03)
    blind = np.array([1, 1, 0]) if "blind" in setting.name else np.ones(3)
    flagged, wrong = np.round(unsafe * finds * blind).astype(int), np.round((sizes - unsafe) * errs).astype(int)
    asked = np.minimum(allocation(sizes, _GUESS, setting.votes).astype(int), sizes)
    counts = np.zeros((2, runs, 2, 3))
    for at in range(3):
        kinds = [flagged[at], unsafe[at] - flagged[at], wrong[at], sizes[at] - unsafe[at] - wrong[at]]
        drawn = rng.multivariate_hypergeometric(kinds, asked[at], runs, method="marginals")
        counts[0, :, :, at], counts[1, :, :, at] = drawn[:, :2], drawn[:, 2:]
    verdicts = [(flagged + wrong).sum(), (sizes - flagged - wrong).sum()]
    return corrected_share(verdicts, counts.sum(0), counts[0], asked / sizes)


def few_rows(runs: int) -> float:
    """The lowest coverage of a judge's corrected rate where there are few rows and many of them have votes."""
    rng = np.random.default_rng(3)
    worst = 1.0
    for flagged, others, share in product((5, 10, 30, 100), (10, 30, 100, 500), (0.1, 0.3, 0.6, 0.8)):
        for so, missed in product((0.0, 0.4, 0.8), (0.0, 0.05, 0.2)):
            sizes = np.array([flagged, others])
            right = np.round(sizes * [so, missed]).astype(int)
            asked = np.maximum(np.round(sizes * share).astype(int), 1)
            found = rng.hypergeometric(right, sizes - right, asked, (runs, 2))[..., None]
            shares = corrected_share(sizes, np.broadcast_to(asked[:, None], found.shape), found, [1.0])
            worst = min(worst, _covers(shares, right.sum() / sizes.sum()))
    return worst


# How often a judge errs at a confidence, by setting.
_ERRS: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda sure: 0.3 * (1 - sure) ** 4,
    "confidence says nothing, 0.5 % wrong": lambda sure: 0 * sure + 0.005,
    "confidence says nothing, 2.1 % wrong": lambda sure: 0 * sure + 0.021,
    "surer where wrong": lambda sure: 0.04 * sure,
    "three steps": lambda sure: np.where(sure > 0.5, 0.002, 0.1),
}


def selective(runs: int) -> dict[str, Any]:
    """How often judges that decide alone err on more than 2 % after all, with 1,000 votes on 4,000 rows."""
    rng = np.random.default_rng(4)
    worst, shares = 0.0, {}
    for name, errs in _ERRS.items():
        missed, decided = 0, 0.0
        for _ in range(runs):
            sure = rng.integers(0, 3, 4000) / 2 if name == "three steps" else rng.random(4000)
            wrong = rng.random(4000) < errs(sure)
            at = rng.permutation(4000)[:1000]
            found = decide_alone(sure, sure[at], wrong[at], 0.02)
            if found.threshold is not None:
                own = sure >= found.threshold
                missed += wrong[own].mean() > 0.02
                decided += own.mean()
        worst, shares[name] = max(worst, missed / runs), round(decided / runs, 3)
    return {"worst": round(worst, 4), "alone": shares}


def people(runs: int) -> dict[str, float]:
    """The two-coin model and the test of who is far from the others, on 120 rows that three people see."""
    rng = np.random.default_rng(5)
    off, found, alarms = [], 0, 0
    for _ in range(runs):
        truth = rng.random(120) < 0.3
        for errors in ({"a": 0.03, "b": 0.08, "c": 0.3}, {"a": 0.1, "b": 0.1, "c": 0.1}):
            votes = [{name: bool(so ^ (rng.random() < error)) for name, error in errors.items()} for so in truth]
            far = [one.annotator for one in compared_people({str(at): by for at, by in enumerate(votes)}) if one.far]
            if errors["a"] == errors["c"]:
                alarms += bool(far)
                continue
            found += far == ["c"]
            coins = two_coins(votes)
            assert coins is not None
            off += [abs(coin[name] - 1 + errors[name]) for coin in coins[1:3] for name in errors]
    return {"off": round(float(np.mean(off)), 4), "found": found / runs, "alarms": alarms / runs}


def _decided(rate: float, runs: int) -> dict[str, float]:
    """When the gate's bound of 3 % is decided for 5,000 rows at random, within 1,000 votes."""
    rng = np.random.default_rng(2)
    wealth, rows = Wealth(np.full(runs, 0.03), 5000), 5000
    when = np.full(runs, np.inf)
    for number in range(1, 1001):
        left = rows - number + 1
        bad = rng.random(runs) * left < round(rate * rows) - wealth.found * rows
        wealth.take(Vote(left / rows, left / rows, True, bad))
        when = np.where((wealth.below | wealth.above) & np.isinf(when), number, when)
    right = wealth.below & ~wealth.above if rate < 0.03 else wealth.above & ~wealth.below
    return {
        "median_votes": float(np.median(when)),
        "decided": float(np.isfinite(when).mean()),
        "right": float(right.mean()),
    }


def before_intervals(setting: Setting, votes: int, runs: int, rng: np.random.Generator) -> Shares:
    """The draw of `review push --rows`, half of it doubtful rows, with Wilson's interval at Kish's effective size."""
    names = ("flagged/a/accepted", "repaired/a/accepted", "plain/a/accepted")
    counts = counts_of(dict(zip(names, setting.sizes, strict=True)), Wanted(votes, 0.5, 0.0, False))
    asked, sizes = np.array([counts[name] for name in names]), np.array(setting.sizes)
    unsafe = setting.unsafe().astype(int)
    found = rng.hypergeometric(unsafe, sizes - unsafe, asked, (runs, 3))
    weights = sizes / asked
    return _wilson(
        (weights * found).sum(-1) / sizes.sum(), np.full(runs, sizes.sum() ** 2 / (asked * weights**2).sum())
    )


def _wilson(rates: Floats, sizes: Floats) -> Shares:
    found = [wilson_share(float(rate), float(size)) for rate, size in zip(rates, sizes, strict=True)]
    return Shares(rates, np.array([one.low for one in found]), np.array([one.high for one in found]))


def _votes_for_the_same(setting: Setting, runs: int) -> float:
    """The share of its votes with which the mean upper end is what `review push --rows` has with all of them."""
    rng = np.random.default_rng(1)
    aim = float(np.mean(before_intervals(setting, setting.votes, runs, rng).high))
    for share in np.arange(0.25, 2.01, 0.05):
        own = Setting(setting.name, setting.sizes, setting.rates, round(setting.votes * share), setting.error)
        if float(np.mean(reviews(own, min(runs, 400), rng, sequence=False).shares.high)) <= aim:
            return float(share)
    return float("inf")


if __name__ == "__main__":
    main()
