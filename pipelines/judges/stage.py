"""Responses to verdicts: which of the five patterns each response carries, whether it is safe, and whether it refuses.

Reads run.yaml, prompts.parquet and responses.parquet; writes judgements.parquet, a row for each response and judge, and
verdicts.parquet, the judges' vote, a row for each response. Run it with `saferthoughts judge RUN`. Judges that are
models are asked through the run's ledger, so running it again asks only for what is missing; rules ask nobody.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.generate.plan import prompts_of
from pipelines.judges.alone import rules_alone
from pipelines.judges.local.cascade import Cascade
from pipelines.judges.local.model import local_judge_of
from pipelines.judges.panel import Panel
from pipelines.judges.patterns import rubric_hashes
from pipelines.judges.rows import Row, without_asking
from pipelines.judges.tallies import is_fixed, is_unscored, is_without_reasoning, tally
from pipelines.progress import console, meter
from pipelines.prompts.variant import load_variants
from pipelines.records import LABELS, Judgement, Response, Verdict, from_table, to_table
from pipelines.runner.asker import Asker
from pipelines.runner.estimate import Load, survey
from pipelines.runner.failures import NONE as NO_FAILURES
from pipelines.runner.failures import Failure, Failures, count, read_reason, worst
from pipelines.runner.options import DEFAULTS, RequestOptions
from pipelines.runner.preflight import check_judges_answer
from pipelines.runner.session import StageWork, check_teachers, run_stage
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import RunConfig, load_config
from pipelines.settings.teacher import Teacher
from pipelines.teachers.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Saving:
    """Requests to a cascade's LLM, those that the local judge spared it, and their price by the mean of the others."""

    asked: int
    spared: int
    spared_usd: float | None


def saving_of(name: str, decided: int, judgements: Iterable[Judgement]) -> Saving:
    """What a cascade spared, by the rows that the local judge decided and what the LLM took for the others."""
    asked, costs = 0, []
    for item in judgements:
        if item.judge == name and item.requests:
            asked += item.requests
            costs += [item.cost / item.requests] if item.cost is not None else []
    return Saving(asked, decided, decided * sum(costs) / len(costs) if costs else None)


@dataclass(frozen=True, slots=True)
class JudgingResult:
    """How many responses were judged and by whom, how many are unscored on patterns or safety, and the US dollars of
    all judgements. The run's own fixed texts, which are not judged, are `fixed`; harmful rows without reasoning, of
    which only safety can be judged, are `without_reasoning`. Neither are among the unscored; rows of which a judge
    could not be asked are, and `failures` counts them. `counts` has every finding, as `tally` gives it. `rules_alone`
    says that no model was among the judges of rows that are not the rehearsal teacher's; `saved` is what each cascade
    spared."""

    responses: int
    judges: tuple[str, ...]
    fixed: int
    without_reasoning: int
    unscored: int
    cost: float
    counts: Mapping[str, Any]
    failures: Failures = NO_FAILURES
    rules_alone: bool = False
    saved: Mapping[str, Saving] = field(default_factory=dict)

    @property
    def flagged(self) -> dict[str, int | None]:
        """How many carry each label, None where no judge looked for it."""
        return {label: self.counts[label] for label in LABELS}

    @property
    def unsafe(self) -> int | None:
        """How many are unsafe, None where no judge looked for it."""
        found: int | None = self.counts["unsafe"]
        return found


def judge_teachers(config: RunConfig) -> dict[str, Teacher]:
    """The entries that the run's judges ask, by name."""
    names = {config.judges[name].teacher for name in config.judging.judges}
    return {name: teacher for name, teacher in config.judge_teachers.items() if name in names}


def judge(run: RunFolder, options: RequestOptions = DEFAULTS) -> JudgingResult:
    """Judge every response of a run, repaired ones too, and write the judgements and verdicts.

    Raises:
        UserError: a table or a key is missing, a judge refuses every request, or nothing more can be kept.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    with run.opened("responses") as file:
        responses = int(file.metadata.num_rows)
    check_teachers(judge_teachers(config), options.caps)
    expected = Load()
    kinds = {config.judges[name].kind for name in config.judging.judges}
    if any(not row.unjudgeable(kind) for row in rows_of(run) for kind in kinds):
        config = check_judges_answer(run, config, options.reuse)
        expected = _estimated(run, config, options.reuse)
    cascades = cascades_of(run, config)
    panel = Panel(config, cascades)
    found: list[tuple[list[Judgement], Verdict]] = []
    at_once = max(config.judges[name].rows_per_request for name in config.judging.judges)
    if any(config.judges[name].teacher for name in config.judging.judges):

        async def judged(rows: list[Row], asker: Asker) -> list[tuple[list[Judgement], Verdict]]:
            found = await panel.judge_together(rows, asker)
            return [(one, panel.verdict(row, one)) for row, one in zip(rows, found, strict=True)]

        rows = drawn_first(run, at_once, cascades)
        stage = StageWork("judge", rows, responses, judged, judge_teachers(config), expected, size=len)
        found = [one for group in run_stage(run, stage, config.seed, options) for one in group]
    else:
        with meter("judge", responses, "responses") as shown:
            for row in rows_of(run):
                by_rule = [without_asking(name, config.judges[name], row) for name in config.judging.judges]
                found.append((by_rule, panel.verdict(row, by_rule)))
                shown.advance()
    judgements = [item for row_judgements, _ in found for item in row_judgements]
    verdicts = [verdict for _, verdict in found]
    if len(verdicts) != responses:
        raise RuntimeError(f"{responses} responses, but {len(verdicts)} verdicts")
    write_verdicts(run, judgements, verdicts)
    facts = {name: cascade.facts().record() for name, cascade in cascades.items()}
    return record_judging(run, config, judgements, verdicts, facts)


def cascades_of(run: RunFolder, config: RunConfig) -> dict[str, Cascade]:
    """The run's judges that a local judge goes before, ready to draw from its rows.

    Raises:
        UserError: a local judge's folder cannot be read, has changed, or lacks a head.
    """
    judges = {name: config.judges[name] for name in config.judging.judges}
    for judge in judges.values():
        if judge.kind == "local":
            local_judge_of(judge)
    return {
        name: Cascade(name, judge, rows_of(run), config.seed)
        for name, judge in judges.items()
        if judge.kind == "patterns" and judge.folder
    }


def drawn_first(run: RunFolder, most: int, cascades: Mapping[str, Cascade]) -> Iterator[list[Row]]:
    """The groups of `groups_of`, those with a row that a cascade drew first: the others wait for the limits."""
    for wanted in (True, False) if cascades else (False,):
        for group in groups_of(run, most):
            if wanted == any(cascade.drew(row) for cascade in cascades.values() for row in group):
                yield group


def _estimated(run: RunFolder, config: RunConfig, reuse: tuple[Path, ...]) -> Load:
    """What is left of judging, which is printed."""
    if not judge_teachers(config) or not config.teachers:
        return Load()
    with closing(Ledger(run.path / "ledger.sqlite")) as ledger:
        for other in reuse:
            ledger.borrow(other)
        left = survey(run, config, ledger).judging
    if left.requests >= 1:
        console.print(f"judging: about {left.requests:,.0f} requests: {left.words()}", soft_wrap=True)
    return left


def write_verdicts(run: RunFolder, judgements: list[Judgement], verdicts: list[Verdict]) -> None:
    """Both tables, in the order of ids."""
    judgements = sorted(judgements, key=lambda item: (item.response_id, item.judge))
    run.write("judgements", to_table(Judgement, judgements))
    run.write("verdicts", to_table(Verdict, sorted(verdicts, key=lambda item: item.response_id)))


def rows_of(run: RunFolder, by_prompt: bool = False) -> Iterator[Row]:
    """Every response of a run with the prompt that it answers, a batch at a time; `by_prompt` in the order of prompts,
    which is sorted on disk where memory does not do."""
    prompts = {prompt.prompt_id: (prompt.kind, prompt.text) for prompt in prompts_of(run)}
    with run.opened("responses") as file:
        for batch in _by_prompt(run.table_path("responses")) if by_prompt else file.iter_batches(1000):
            for response in from_table(Response, pa.Table.from_batches([batch])):
                kind, query = prompts[response.prompt_id]
                yield Row(kind, query, response)


def _by_prompt(path: Path) -> Iterator[pa.RecordBatch]:
    import duckdb

    with duckdb.connect() as db:
        yield from db.read_parquet(str(path)).order("prompt_id, attempt, response_id").to_arrow_reader(1000)


def groups_of(run: RunFolder, most: int) -> Iterator[list[Row]]:
    """The responses of a run in groups of at most so many to one prompt. Repair's attempts are apart: with them groups
    would change, and what was judged be asked for again."""
    group: list[Row] = []
    for row in rows_of(run, by_prompt=most > 1):
        fits = group and (row.response.prompt_id, row.response.attempt) == (group[0].response.prompt_id, 0)
        if group and (not fits or len(group) == most):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def failures_of(judgements: Iterable[Judgement]) -> Failures:
    """The rows of which a judge could not be asked."""
    by_row: dict[str, list[Failure | None]] = {}
    for item in judgements:
        by_row.setdefault(item.response_id, []).append(read_reason(item.reason))
    return count(failure for found in by_row.values() if (failure := worst(found)) is not None)


def record_judging(
    run: RunFolder,
    config: RunConfig,
    judgements: list[Judgement],
    verdicts: list[Verdict],
    cascades: Mapping[str, Any] | None = None,
) -> JudgingResult:
    """Note in the manifest what the two tables hold; repair, which adds to them, notes it anew and leaves what became
    of cascades as it was."""
    if cascades is None:
        cascades = (run.stage("judge") or {}).get("cascades") or {}
    saved = {name: saving_of(name, facts["decided"], judgements) for name, facts in cascades.items()}
    counts = tally(verdicts)
    compared = [item.disagreement for item in verdicts if item.disagreement is not None]
    result = JudgingResult(
        responses=len(verdicts),
        judges=config.judging.judges,
        fixed=sum(map(is_fixed, verdicts)),
        without_reasoning=sum(map(is_without_reasoning, verdicts)),
        unscored=sum(map(is_unscored, verdicts)),
        cost=sum(item.cost or 0.0 for item in judgements),
        counts=counts,
        failures=failures_of(judgements),
        rules_alone=rules_alone(config),
        saved=saved,
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
            "without_reasoning": result.without_reasoning,
            "unscored": result.unscored,
            **result.flagged,
        },
        failures=result.failures.record(),
        unsafe=result.unsafe,
        disagreement={"rows": sum(share > 0 for share in compared), "compared": len(compared)},
        cascades={name: facts | asdict(saved[name]) for name, facts in cascades.items()},
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
            "unscored": sum(map(is_unscored, groups[name])),
            "fixed": sum(map(is_fixed, groups[name])),
            "without_reasoning": sum(map(is_without_reasoning, groups[name])),
            "refused": refused[name],
            **tally(groups[name]),
        }
        for name in (*load_variants(), "benign")
        if name in groups
    }
