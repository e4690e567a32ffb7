"""The least time in which a list of requests can be answered: what every contender is measured against."""

import heapq
import random
from collections.abc import Iterable

# Sigma of the logarithm: the slowest of a hundred takes about six times the mean.
_SIGMA = 1.0


def latency_of(mean_s: float, seed: int, number: int) -> float:
    """Seconds that request `number` takes: lognormal with that mean, the same for the same arguments."""
    if mean_s == 0:
        return 0.0
    return mean_s * random.Random(f"{seed} {number}").lognormvariate(-(_SIGMA**2) / 2, _SIGMA)


def best_makespan(latencies: Iterable[float], in_flight: int) -> float:
    """Seconds from the first request to the last answer with a perfect semaphore.

    Requests start in the given order, each in the instant in which one of `in_flight` places is free; client, network
    and server take no time beside the latencies, in seconds.
    """
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}, and at least one request must be under way")
    free_at = [0.0] * in_flight
    for latency in latencies:
        heapq.heapreplace(free_at, free_at[0] + latency)
    return max(free_at)
