"""Responses to verdicts: which of the five patterns each response carries, whether it is safe, and whether it refuses.

Reads run.yaml, prompts.parquet and responses.parquet; writes judgements.parquet, a row for each response and judge, and
verdicts.parquet, the judges' vote, a row for each response. Run it with `saferthoughts judge RUN`. Judges that are
models are asked through the run's ledger, so running it again asks only for what is missing; rules ask nobody.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.asking import Asker
from pipelines.config import RunConfig, load_config
from pipelines.judges.panel import FIXED, Panel, Row, by_rules
from pipelines.judges.patterns import rubric_hashes
from pipelines.judges.tallies import tally
from pipelines.limits import NO_CAPS, Caps
from pipelines.plan import prompts_of
from pipelines.progress import meter
from pipelines.records import LABELS, Judgement, Response, Verdict, from_table, to_table
from pipelines.runs import RunFolder, file_hash
from pipelines.stories import Story, run_stories
from pipelines.variant import load_variants

# One sentence for the terminal, the card and the report of a run that no model judged.
RULES_ALONE = (
    "Judged by rules alone: they find a part of the patterns, and nobody looked for unsafe text. "
    "Name models with --judge, e.g. --judge o3 --judge reasoningshield."
)


def rules_alone(config: RunConfig) -> bool:
    """Whether a run with real teachers, or with rows from elsewhere, has no model among its judges."""
    rehearsed = any(teacher.embedded for teacher in config.teachers.values())
    return not rehearsed and all(config.judges[name].kind == "rules" for name in config.judging.judges)


@dataclass(frozen=True, slots=True)
class Judged:
    """How many responses were judged and by whom, how many are unscored on patterns or safety, how many carry each
    label and how many are unsafe (None where no judge looked for it), and the US dollars of all judgements. Fixed
    texts, which are not judged, are `fixed` and not among the unscored."""

    responses: int
    judges: tuple[str, ...]
    fixed: int
    unscored: int
    flagged: dict[str, int | None]
    unsafe: int | None
    cost: float


def judge(run: RunFolder, caps: Caps = NO_CAPS) -> Judged:
    """Judge every response of a run, repaired ones too, and write the judgements and verdicts.

    Raises:
        UserError: a table or a key is missing, or a judge refuses every request.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    responses = run.read("responses").num_rows
    found: list[dict[str, Any]] = []
    if any(config.judges[name].kind != "rules" for name in config.judging.judges):
        run_stories(run, config, "judge", responses, caps, found.extend)
    else:
        panel = Panel(config)
        with meter("judge", responses, "responses") as shown:
            for row in rows_of(run):
                judgements = [by_rules(name, row) for name in config.judging.judges]
                found.append(told(judgements, panel.verdict(row, judgements)))
                shown.advance()
    judgements = [Judgement(**item) for row in found for item in row["judgements"]]
    verdicts = [Verdict(**row["verdict"]) for row in found]
    if len(verdicts) != responses:
        raise RuntimeError(f"{responses} responses, but {len(verdicts)} verdicts")
    write_verdicts(run, judgements, verdicts)
    return record_judging(run, config, judgements, verdicts)


def write_verdicts(run: RunFolder, judgements: list[Judgement], verdicts: list[Verdict]) -> None:
    """Both tables, in the order of ids."""
    judgements = sorted(judgements, key=lambda item: (item.response_id, item.judge))
    run.write("judgements", to_table(Judgement, judgements))
    run.write("verdicts", to_table(Verdict, sorted(verdicts, key=lambda item: item.response_id)))


def rows_of(run: RunFolder) -> Iterator[Row]:
    """Every response of a run with the prompt that it answers, a batch at a time."""
    prompts = {prompt.prompt_id: (prompt.kind, prompt.text) for prompt in prompts_of(run)}
    with run.opened("responses") as file:
        for batch in file.iter_batches(1000):
            for response in from_table(Response, pa.Table.from_batches([batch])):
                kind, query = prompts[response.prompt_id]
                yield Row(kind, query, response)


def stories(run: RunFolder, config: RunConfig) -> Iterator[Story]:
    """A story for each response: what every judge says of it."""
    panel = Panel(config)
    for row in rows_of(run):

        async def tell(asker: Asker, row: Row = row) -> dict[str, Any]:
            judgements = await panel.judge(row, asker)
            return told(judgements, panel.verdict(row, judgements))

        yield Story(row.response.response_id, tell)


def told(judgements: list[Judgement], verdict: Verdict) -> dict[str, Any]:
    """What came of a row, as JSON values."""
    return {"judgements": [asdict(item) for item in judgements], "verdict": asdict(verdict)}


def _fixed(verdict: Verdict) -> bool:
    return FIXED in verdict.reason + verdict.safety_reason


def unscored(verdict: Verdict) -> bool:
    """Whether judges were asked and could not be read."""
    return bool(verdict.reason or verdict.safety_reason) and not _fixed(verdict)


def record_judging(run: RunFolder, config: RunConfig, judgements: list[Judgement], verdicts: list[Verdict]) -> Judged:
    """Note in the manifest what the two tables hold; repair, which adds to them, notes it anew."""
    counts = tally(verdicts)
    compared = [item.disagreement for item in verdicts if item.disagreement is not None]
    result = Judged(
        responses=len(verdicts),
        judges=config.judging.judges,
        fixed=sum(_fixed(verdict) for verdict in verdicts),
        unscored=sum(unscored(verdict) for verdict in verdicts),
        flagged={label: counts[label] for label in LABELS},
        unsafe=counts["unsafe"],
        cost=sum(item.cost or 0.0 for item in judgements),
    )
    asked: Counter[str] = Counter()
    for item in judgements:
        asked[item.judge] += item.requests
    run.record(
        "judge",
        inputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in ("prompts", "responses")},
        outputs={f"{name}.parquet": file_hash(run.table_path(name)) for name in ("judgements", "verdicts")},
        judge="+".join(config.judging.judges),
        vote=config.judging.vote,
        rubrics=rubric_hashes(),
        requests=dict(asked),
        cost_usd=result.cost,
        counts={
            "responses": result.responses,
            "fixed": result.fixed,
            "unscored": result.unscored,
            **result.flagged,
        },
        unsafe=result.unsafe,
        disagreement={"rows": sum(share > 0 for share in compared), "compared": len(compared)},
        by_variant=by_variant(run, {verdict.response_id: verdict for verdict in verdicts}),
    )
    return result


def by_variant(
    run: RunFolder, verdicts: Mapping[str, Verdict], superseded: Container[str] | None = None
) -> dict[str, Any]:
    """Counts of findings for each variant, and for the benign prompts, as `judges/tallies.py` makes them.

    Counted are the rows as they were generated; with `superseded`, the ids of attempts that are not kept, all others.
    """
    groups: dict[str, list[Verdict]] = {}
    refused: Counter[str] = Counter()
    for row in rows_of(run):
        if row.response.attempt if superseded is None else row.response.response_id in superseded:
            continue
        name = "benign" if row.kind == "benign" else row.response.variant
        verdict = verdicts[row.response.response_id]
        groups.setdefault(name, []).append(verdict)
        refused[name] += verdict.refused is True
    return {
        name: {
            "responses": len(groups[name]),
            "unscored": sum(map(unscored, groups[name])),
            "fixed": sum(map(_fixed, groups[name])),
            "refused": refused[name],
            **tally(groups[name]),
        }
        for name in (*load_variants(), "benign")
        if name in groups
    }
