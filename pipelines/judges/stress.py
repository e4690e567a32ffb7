"""How steady a run's judges are: asked again about rows that were changed without a change of meaning.

Reads run.yaml, prompts, responses and judgements; writes judge_stress.json into the run folder. Run it with
`saferthoughts judge stress RUN`. Judges that are models are asked through the run's ledger, so running it again asks
only for what is missing. A row that is asked about unchanged shows what flips by chance.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipelines.errors import UserError
from pipelines.freshness import require_fresh
from pipelines.judges.changes import CHANGES, KEYS, SAME, keys_reversed
from pipelines.judges.confidence import Again
from pipelines.judges.panel import Panel
from pipelines.judges.rows import Row, is_flagged
from pipelines.judges.scoring import STRESS_FILE
from pipelines.judges.stage import judge_teachers, rows_of
from pipelines.judges.voting import vote
from pipelines.records import Judgement, content_id, from_table
from pipelines.runner.asker import Asker
from pipelines.runner.options import DEFAULTS, RequestOptions
from pipelines.runner.preflight import check_judges_answer
from pipelines.runner.session import StageWork, run_stage
from pipelines.runs import RunFolder, file_hash, write_json
from pipelines.settings.config import load_config
from pipelines.statistics import wilson

ROWS = 50
# The judges' vote, where there are several.
_VOTE = "vote"
# Whether each judge finds fault with a row, by the judge's name; None where it has no verdict.
Flags = Mapping[str, bool | None]


def stress(run: RunFolder, rows: int = ROWS, options: RequestOptions = DEFAULTS) -> dict[str, Any]:
    """Ask the run's judges about a sample of its rows once more, unchanged and in each of the changes.

    Args:
        rows: How many rows, drawn at random.

    Returns:
        What judge_stress.json holds: for each judge and change the rows with a verdict before and after, how many of
        these flipped between fault and none (to fault: `to_fault`), how many lost their verdict, and the share that
        flipped with its 95 % interval (Wilson's).

    Raises:
        UserError: the run is not judged, nothing in it has a verdict, or a judge cannot be asked.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    run.require("judgements")
    require_fresh(run, "verdicts")
    config = check_judges_answer(run, load_config(run), options.reuse)
    config = config.model_copy(update={"judging": config.judging.model_copy(update={"repeat": 1, "logprobs": False})})
    before = _flags_before(run, config.judging.vote)
    drawn = [row for row in rows_of(run) if row.response.response_id in before]
    drawn = sorted(drawn, key=lambda row: content_id(config.seed, "stress", row.response.response_id))[:rows]
    if not drawn:
        raise UserError(f"No row of {run.name} has a verdict that could flip. Judge it first: judge {run.name}")
    panel = Panel(config)
    work = [(name, row) for name in (SAME, *CHANGES) for row in drawn]

    async def asked(item: tuple[str, Row], asker: Asker) -> tuple[str, str, Flags]:
        name, row = item
        known = before[row.response.response_id]
        changed = row if name == SAME else CHANGES[name](row, bool(known.get(_VOTE, next(iter(known.values())))))
        again = Again(asker, int(name == SAME), change=keys_reversed if name == KEYS else None)
        found = await panel.judge(changed, again)
        return name, row.response.response_id, _flags(found, row.kind, config.judging.vote)

    stage = StageWork("judge stress", work, len(work), asked, judge_teachers(config))
    after: dict[str, list[tuple[Flags, Flags]]] = defaultdict(list)
    for name, response_id, flags in run_stage(run, stage, config.seed, options):
        after[name].append((before[response_id], flags))
    judges = [*config.judging.judges, *([_VOTE] if len(config.judging.judges) > 1 else [])]
    in_json = {name for name in judges if name == _VOTE or config.judges[name].kind == "patterns"}
    lines = [
        _line(judge, name, after[name])
        for judge in judges
        for name in (SAME, *CHANGES)
        if name != KEYS or judge in in_json  # the others are not asked in JSON
    ]
    facts = {"judges": list(config.judging.judges), "rows": len(drawn), "lines": [one for one in lines if one["rows"]]}
    write_json(run.path / STRESS_FILE, facts)
    run.record(
        "stress", outputs={STRESS_FILE: file_hash(run.path / STRESS_FILE)}, judges=facts["judges"], rows=len(drawn)
    )
    return facts


def _flags_before(run: RunFolder, rule: str) -> dict[str, Flags]:
    """What the judges found of each row of which one of them has a verdict."""
    by_row: dict[str, list[Judgement]] = defaultdict(list)
    for item in from_table(Judgement, run.read("judgements")):
        by_row[item.response_id].append(item)
    kinds = {row.response.response_id: row.kind for row in rows_of(run)}
    found = {name: _flags(items, kinds[name], rule) for name, items in by_row.items() if name in kinds}
    return {name: flags for name, flags in found.items() if any(flag is not None for flag in flags.values())}


def _flags(found: list[Judgement], kind: Any, rule: str) -> dict[str, bool | None]:
    flags = {item.judge: is_flagged(item, kind) for item in found}
    return flags | ({_VOTE: is_flagged(vote(found, rule, None), kind)} if len(found) > 1 else {})


def _line(judge: str, change: str, pairs: list[tuple[Flags, Flags]]) -> dict[str, Any]:
    known = [(before[judge], after[judge]) for before, after in pairs if before.get(judge) is not None]
    read = [(before, after) for before, after in known if after is not None]
    flips = [after for before, after in read if before != after]
    return {
        "judge": judge,
        "change": change,
        "rows": len(known),
        "flips": len(flips),
        "to_fault": sum(after is True for after in flips),
        "lost": len(known) - len(read),
        **(asdict(wilson(len(flips), len(read))) if read else dict.fromkeys(("rate", "low", "high"))),
    }
