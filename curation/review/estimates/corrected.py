"""A judge's rate, corrected by people's votes on some of the rows that the judge gave a verdict on.

Reads and writes nothing. Leading axes broadcast as in `stratified.py`.
"""

import numpy as np
from numpy.typing import ArrayLike

from curation.review.estimates.stratified import Shares, stratified_share


def corrected_share(sizes: ArrayLike, asked: ArrayLike, unsafe: ArrayLike, chances: ArrayLike) -> Shares:
    """The share of rows that people would call so, from verdicts on all rows and votes on some.

    People say of each verdict how many of its rows are so: a judge that errs, in whichever direction, shifts no rate,
    and a good one makes the interval narrow. The rate is nan where people saw no
    row of a verdict: its rows may all be so or none.

    Args:
        sizes: Rows with each verdict, last axis verdicts.
        asked: Votes on them, last axes verdicts and strata of the draw.
        unsafe: Of these, the votes that call the row so.
        chances: The share of each stratum's rows that have votes.

    Sources: Tenenbein, "A Double Sampling Scheme for Estimating from Binomial Data with Misclassifications", JASA 65
    (1970); it is prediction-powered inference (Angelopoulos et al., Science 382, 2023) for a yes or no. In place of its
    normal approximation the exact intervals of the verdicts are put together as Zou and Donner, "Construction of
    confidence limits about effect measures", Statistics in Medicine 27 (2008), do: each end from the ends. That takes
    ends for smooth: a verdict whose rows people have not all seen adds one row, without which few rows would be covered
    in as little as 42 % of reviews (`python -m benchmarks.calibration`). What people have seen is known.

    >>> judge = [100, 900]  # flags 10 %; of the flagged people confirm 8 of 40, of the others they find 1 in 60
    >>> found = corrected_share(judge, [[40], [60]], [[8], [1]], [0.1])
    >>> [round(float(one), 3) for one in found]
    [0.035, 0.017, 0.1]
    """
    sizes, asked, chances = (np.asarray(one, np.float64) for one in (sizes, asked, chances))
    # A vote counts as the part of it that a draw at the lowest chance would have kept: a sample like any other then.
    kept = np.min(chances, -1, keepdims=True)[..., None, :] / chances[..., None, :]
    votes = (asked * kept).sum(-1)
    seen = votes > 0
    each = stratified_share(sizes[..., None], votes[..., None], (np.asarray(unsafe) * kept).sum(-1)[..., None])
    weights = sizes / sizes.sum(-1, keepdims=True)
    rates, low, high = (np.where(seen, one, 0.0) for one in each)
    rate = (weights * rates).sum(-1)
    unseen = np.where(seen, 0.0, weights).sum(-1)
    rows = sizes.sum(-1)
    row = np.where(seen & (asked.sum(-1) < sizes), 1.0, 0.0) / rows[..., None]
    known, safe = np.asarray(unsafe).sum((-1, -2)) / rows, (asked - np.asarray(unsafe)).sum((-1, -2)) / rows
    return Shares(
        np.where(unseen > 0, np.nan, rate),
        np.maximum(rate - np.sqrt(((weights * (rates - low) + row) ** 2).sum(-1)), known),
        np.minimum(rate + np.sqrt(((weights * (high - rates) + row) ** 2).sum(-1)) + unseen, 1 - safe),
    )
