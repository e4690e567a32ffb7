"""What repair achieved and what it took: for each fault, how many rows had it, at which attempt it went, what stayed;
and next to it what throwing the flagged rows away would have kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.judges.rows import flags_of
from pipelines.judges.stage import rows_of
from pipelines.prompts.variant import load_variants
from pipelines.records import PATTERNS, Repair, Response, Verdict, from_table
from pipelines.runner.failures import NONE, Failures
from pipelines.runs import RunFolder


@dataclass(frozen=True, slots=True)
class FaultCounts:
    """One fault. flagged = sum of mended + left: rows that had it, rows first without it at attempt 1, 2, ..., and rows
    whose kept attempt has it still or whose attempts could not be scored. Tokens and US dollars are those of all
    attempts at its rows, counted again for every fault that a row has; cost is None where no price is known."""

    pattern: str
    flagged: int
    mended: tuple[int, ...]
    left: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows without a fault: `filter` as they were generated, `repair` with the attempts that are kept, of `rows`.
    Fixed texts are not counted; unscored rows are in `rows` only."""

    variant: str
    rows: int
    filter: int
    repair: int


@dataclass(frozen=True, slots=True)
class RepairResult:
    """All of it for one strategy. Requests, tokens and cost are the teacher's, without the judges'. `without_reasoning`
    flagged rows, not among the `flagged`, are left as they are: their teacher shows no reasoning that could be judged.
    Of `failures` a request failed, to the teacher or to a judge, and they are left as they were.
    """

    strategy: str
    flagged: int
    mended: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    by_pattern: tuple[FaultCounts, ...]
    kept: Kept
    by_variant: tuple[Kept, ...]
    without_reasoning: int = 0
    failures: Failures = NONE


def account(
    run: RunFolder,
    strategy: str,
    repairs: Iterable[Repair],
    responses: Mapping[str, Response],
    without_reasoning: int = 0,
    failures: Failures = NONE,
) -> RepairResult:
    """Count what a repair did, from its tables."""
    trees: dict[str, list[Repair]] = {}
    for item in sorted(repairs, key=lambda item: (item.root_id, item.attempt)):
        trees.setdefault(item.root_id, []).append(item)
    attempts = [responses[item.response_id] for tree in trees.values() for item in tree if item.attempt]
    kept, by_variant = _kept(run, trees)
    faults = [*PATTERNS, "unsafe", "no_refusal", "over_refusal"]
    rows = [_fault(fault, trees, responses) for fault in faults]
    mended = sum(next(item for item in tree if item.chosen).flagged == "" and len(tree) > 1 for tree in trees.values())
    return RepairResult(
        strategy=strategy,
        flagged=len(trees),
        mended=mended,
        requests=len(attempts),
        input_tokens=sum(item.input_tokens for item in attempts),
        output_tokens=sum(item.output_tokens for item in attempts),
        cost=_cost(attempts),
        by_pattern=tuple(row for row in rows if row.flagged),
        kept=kept,
        by_variant=by_variant,
        without_reasoning=without_reasoning,
        failures=failures,
    )


def _fault(fault: str, trees: Mapping[str, list[Repair]], responses: Mapping[str, Response]) -> FaultCounts:
    own = [tree for tree in trees.values() if fault in tree[0].flagged.split(",")]
    most = max((len(tree) - 1 for tree in trees.values()), default=0)
    mended = [0] * most
    for tree in own:
        chosen = next(item for item in tree if item.chosen)
        if chosen.patterns is None or fault in chosen.flagged.split(","):
            continue
        first = next(item for item in tree if item.patterns is not None and fault not in item.flagged.split(","))
        mended[first.attempt - 1] += 1
    attempts = [responses[item.response_id] for tree in own for item in tree if item.attempt]
    return FaultCounts(
        pattern=fault,
        flagged=len(own),
        mended=tuple(mended),
        left=len(own) - sum(mended),
        output_tokens=sum(item.output_tokens for item in attempts),
        cost=_cost(attempts),
    )


def _cost(responses: Iterable[Response]) -> float | None:
    costs = [item.cost for item in responses if item.cost is not None]
    return sum(costs) if costs else None


def _kept(run: RunFolder, trees: Mapping[str, list[Repair]]) -> tuple[Kept, tuple[Kept, ...]]:
    verdicts = {item.response_id: item for item in from_table(Verdict, run.read("verdicts"))}
    counts: dict[str, list[int]] = {}
    for row in rows_of(run):
        response = row.response
        if response.attempt or not response.teacher:
            continue
        count = counts.setdefault("benign" if row.kind == "benign" else response.variant, [0, 0, 0])
        verdict = verdicts[response.response_id]
        clean = not (verdict.reason or verdict.safety_reason or flags_of(row, verdict))
        tree = trees.get(response.response_id)
        chosen = next((item for item in tree if item.chosen), None) if tree else None
        mended = chosen is not None and chosen.patterns is not None and chosen.flagged == ""
        for index, counted in enumerate((True, clean, clean or mended)):
            count[index] += counted
    parts = tuple(Kept(name, *counts[name]) for name in (*load_variants(), "benign") if name in counts)
    whole = (
        Kept("all", *(sum(values) for values in zip(*counts.values(), strict=True))) if counts else Kept("all", 0, 0, 0)
    )
    return whole, parts
