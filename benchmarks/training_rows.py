"""Rows to measure training on, as long as the study's: its `improved` rows and its benign ones, ten to one.

Reads the bundled prompts; writes nothing. The study gives the average and the 90th percentile of each kind's length in
tokens; a lognormal distribution has just these two, and its quantiles are taken at even steps, so that there is no luck
in the draw. The words mean nothing: time depends on how many there are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.stats import norm  # type: ignore[import-untyped]

from pipelines.prompts.prompt_files import load_pool
from pipelines.thinking import join
from training.mixtures.mixture import TrainingRow


@dataclass(frozen=True, slots=True)
class Lengths:
    """A kind's length in tokens: average and 90th percentile."""

    average: float
    p90: float

    def quantiles(self, count: int) -> list[float]:
        """The lengths of `count` rows, shortest first."""
        z = float(norm.ppf(0.9))
        # Of the two standard deviations that give this ratio, the smaller.
        sigma = z - math.sqrt(z * z - 2 * math.log(self.p90 / self.average))
        mu = math.log(self.average) - sigma * sigma / 2
        return [math.exp(mu + sigma * float(norm.ppf((at + 0.5) / count))) for at in range(count)]


# Zhang et al., the 1,000 safe rows of `improved`, and the 100 benign ones.
STUDY = {"improved": Lengths(397.3, 563.2), "benign": Lengths(1427.5, 1811.1)}
_BENIGN_SHARE = 11
_WORDS = ("so", "the", "request", "asks", "for", "help", "and", "this", "is", "what", "it", "would", "need")


def study_rows(count: int, shorter: float, objective: str = "sft") -> Sequence[TrainingRow]:
    """`count` rows, every eleventh benign, each `shorter` times shorter than the study's; pairs, or labelled ones in
    turn, for objectives that learn from these."""
    prompts = [behaviour.text for behaviour in load_pool("bundled").behaviours]
    benign = max(1, round(count / _BENIGN_SHARE))
    rows = []
    for config, many in (("improved", count - benign), ("benign", benign)):
        for number, tokens in enumerate(STUDY[config].quantiles(many)):
            words = [_WORDS[at % len(_WORDS)] for at in range(max(4, round(tokens / shorter)))]
            half = len(words) // 2
            reply = join(" ".join(words[:half]), " ".join(words[half:]))
            asked = {"role": "user", "content": prompts[number % len(prompts)]}
            messages = (asked, {"role": "assistant", "content": reply})
            kind = "benign" if config == "benign" else "harmful"
            row = TrainingRow(f"{config}-{number}", config, kind, messages)
            if objective in ("dpo", "rm"):
                other = join(" ".join(words[half:]), " ".join(words[:half]))
                row = replace(row, rejected=(asked, {"role": "assistant", "content": other}))
            rows.append(replace(row, label=number % 2 == 0) if objective == "kto" else row)
    return rows
