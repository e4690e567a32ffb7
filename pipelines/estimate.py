"""What a run will ask and what that will take, from its own answers so far.

Reads run.yaml, prompts.parquet and the ledger, and takes answers of borrowed ledgers over. Without an answer to go by
there is no estimate.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.ledger import Ledger, Reply
from pipelines.plan import plan, prompts_of
from pipelines.runs import RunFolder

# Answers of one variant that are looked at; more make the mean no better.
_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests planned and missing, and tokens and US dollars for the missing ones where `sampled` answers tell.

    `asked` names the teachers of the missing ones, `unpriced` those among them whose answers have no known cost.
    """

    planned: int
    missing: int
    sampled: int
    tokens: float | None
    cost: float | None
    asked: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()

    def told(self) -> str:
        """One line for the terminal."""
        asked = f"{self.missing} of {self.planned} responses are to be asked for"
        if self.tokens is None:
            return f"{asked}; how many tokens that takes is not known before each variant has an answer"
        cost = "" if self.cost is None else f" and ${self.cost:.2f}"
        without = f" (no price for {', '.join(self.unpriced)})" if self.unpriced else ""
        return f"{asked}: about {self.tokens:,.0f} tokens{cost}{without}, by the mean of {self.sampled} answers"


def survey(run: RunFolder, config: RunConfig, ledger: Ledger) -> Estimate:
    """Count the plan against the ledger, taking over what borrowed ledgers have of it.

    Raises:
        UserError: the prompts are missing or not readable.
    """
    planned = 0
    missing: Counter[tuple[str, str]] = Counter()
    sampled: defaultdict[tuple[str, str], list[Reply]] = defaultdict(list)
    for ask in plan(config, prompts_of(run)):
        planned += 1
        kind = (ask.teacher, ask.variant)
        if not ask.key:
            continue
        reply = ledger.get(ask.key)
        if reply is None and ledger.adopt(ask.key):
            reply = ledger.get(ask.key)
        if reply is not None:
            if len(sampled[kind]) < _SAMPLE:
                sampled[kind].append(reply)
        elif ledger.refusal(ask.key) is None:
            missing[kind] += 1
    asked = tuple(sorted({teacher for teacher, _ in missing}))
    unpriced = tuple(teacher for teacher in asked if config.teachers[teacher].price is None)
    count = sum(len(replies) for replies in sampled.values())
    tokens: float | None = 0.0
    cost: float | None = None if unpriced == asked else 0.0
    for kind, wanted in missing.items():
        replies = sampled[kind]
        if not replies:
            tokens = cost = None
            break
        assert tokens is not None
        tokens += wanted * sum(reply.input_tokens + reply.output_tokens for reply in replies) / len(replies)
        if cost is not None:
            cost += wanted * sum(reply.cost or 0.0 for reply in replies) / len(replies)
    return Estimate(planned, sum(missing.values()), count, tokens, cost, asked, unpriced)
