"""Flagged rows to mended rows: the teacher is asked again with what was wrong, and the best attempt is kept.

Reads run.yaml, prompts, responses and verdicts; adds attempts to responses.parquet, writes judgements.parquet and
verdicts.parquet anew with theirs, and repairs.parquet, which tells the attempts at every flagged row and the one that
is kept. Run it with `saferthoughts repair RUN`; running it again asks nothing that the ledger holds. An attempt with
another strategy takes the place of an earlier repair's attempts.
"""

import json
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.errors import UserError
from pipelines.freshness import require_fresh
from pipelines.generate.plan import request_fields
from pipelines.judges.panel import Panel
from pipelines.judges.rows import Row, flags_of
from pipelines.judges.stage import by_variant, judge_teachers, record_judging, rows_of, write_verdicts
from pipelines.progress import console
from pipelines.records import PATTERNS, Judgement, Repair, Response, Verdict, content_id, from_table, to_table
from pipelines.repairs.accounting import RepairResult, account
from pipelines.repairs.requests import repair_messages, template_hashes
from pipelines.runner.asker import Asker
from pipelines.runner.estimate import Known, Load, repairs_of, survey
from pipelines.runner.failures import Failure, count, failure_of, read_reason, worst
from pipelines.runner.options import DEFAULTS, RequestOptions
from pipelines.runner.preflight import check_judges_answer, check_teachers_answer
from pipelines.runner.session import StageWork, check_teachers, run_stage
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.client import TeacherError
from pipelines.teachers.ledger import Ledger
from pipelines.teachers.reply import Reply
from pipelines.thinking import split

# Keeps a repair's answers apart from the further samples of a prompt, which count from 0 as well.
_APART = 1000


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt at a row with what the judges say of it; attempt 0 is the row as it was generated."""

    row: Row
    verdict: Verdict
    judgements: tuple[Judgement, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        return flags_of(self.row, self.verdict)

    @property
    def unscored(self) -> bool:
        return bool(self.verdict.reason or self.verdict.safety_reason)

    def rank(self) -> tuple[bool, int, int, int]:
        """The best attempt has the lowest: scored, fewest faults, shortest, earliest."""
        response = self.row.response
        length = len(response.reasoning) + len(response.answer)
        return (self.unscored or not response.answer.strip(), len(self.flags), length, response.attempt)


def repair(run: RunFolder, options: RequestOptions = DEFAULTS) -> RepairResult:
    """Ask again for every flagged row.

    Raises:
        UserError: a table or a key is missing, a teacher refuses every request, or nothing more can be kept.
        Interrupted: it was stopped by a signal.
        Incomplete: the budget is spent.
    """
    config = load_config(run)
    require_fresh(run, "verdicts")
    _check_verdicts(run)
    flagged = list(flagged_rows(run, config))
    silent = silent_teachers(run)
    asked = [(row, verdict) for row, verdict in flagged if not _in_vain(config, row, silent)]
    trees: list[list[_Attempt]] = []
    failed: list[Failure] = []
    if asked and config.repair.attempts:
        config, expected = _before_asking(run, config, options, [row for row, _ in asked])
        panel = Panel(config)

        async def repaired(item: tuple[Row, Verdict], asker: Asker) -> tuple[list[_Attempt], Failure | None]:
            return await _attempts(config, panel, _Attempt(*item), asker)

        teachers = {**config.teachers, **judge_teachers(config)}
        stage = StageWork("repair", asked, len(asked), repaired, teachers, expected)
        done = run_stage(run, stage, config.seed, options)
        trees = [tree for tree, _ in done]
        failed = [failure for _, failure in done if failure is not None]
    repairs = [item for tree in trees for item in _repairs(config, tree)]
    further = [attempt for tree in trees for attempt in tree[1:]]
    attempts = [item.row.response for item in further]
    judgements = [entry for item in further for entry in item.judgements]
    verdicts = [item.verdict for item in further]
    generated = [item for item in from_table(Response, run.read("responses")) if not item.attempt]
    original = {item.response_id for item in generated}
    # Verdicts before responses: killed in between, the run has verdicts of unknown rows, and no row without a verdict.
    old_judgements = [item for item in from_table(Judgement, run.read("judgements")) if item.response_id in original]
    old_verdicts = [item for item in from_table(Verdict, run.read("verdicts")) if item.response_id in original]
    judgements, verdicts = old_judgements + judgements, old_verdicts + verdicts
    write_verdicts(run, judgements, verdicts)
    run.write("repairs", to_table(Repair, sorted(repairs, key=lambda item: (item.root_id, item.attempt))))
    both = sorted(generated + attempts, key=lambda item: item.response_id)
    run.write("responses", to_table(Response, both))
    record_judging(run, config, judgements, verdicts)
    by_response = {item.response_id: item for item in both}
    result = account(run, config.repair.strategy, repairs, by_response, len(flagged) - len(asked), count(failed))
    superseded = {item.response_id for item in repairs if not item.chosen}
    by_id = {item.response_id: item for item in verdicts}
    _record(run, config, result, by_variant(run, by_id, superseded))
    return result


def _before_asking(
    run: RunFolder, config: RunConfig, options: RequestOptions, rows: list[Row]
) -> tuple[RunConfig, Load]:
    """Have who was not asked before answer a first question, and say what repair will take."""
    check_teachers({**config.teachers, **judge_teachers(config)}, options.caps)
    with closing(Ledger(run.path / "ledger.sqlite")) as ledger:
        for other in options.reuse:
            ledger.borrow(other)
        teachers, planned = {_asked(config, row) for row in rows}, survey(run, config, ledger).kinds
        taken = check_teachers_answer(run, config, ledger, teachers, planned, {}, True)
        if taken is not config:
            config, planned = taken, survey(run, taken, ledger).kinds
        kinds = {(kind.teacher, kind.variant, kind.benign): kind for kind in planned}
        found = Counter((_asked(config, row), row.response.variant, row.kind == "benign") for row in rows)
        flagged = {kinds[name]: float(count) for name, count in found.items() if name in kinds}
        load = repairs_of(config, Known.of(ledger), flagged)
    config = check_judges_answer(run, config, options.reuse)
    console.print(f"repair: about {load.requests:,.0f} requests, verdicts among them: {load.words()}", soft_wrap=True)
    return config, load


def _check_verdicts(run: RunFolder) -> None:
    judged = set(run.read("verdicts")["response_id"].to_pylist())
    missing = sum(row.response.response_id not in judged for row in rows_of(run))
    if missing:
        raise UserError(f"{missing} responses of {run.path} have no verdict. Run first: saferthoughts judge {run.name}")


def flagged_rows(run: RunFolder, config: RunConfig) -> Iterator[tuple[Row, Verdict]]:
    """The generated rows with a fault that another attempt could mend, in the order of ids; unscored ones, of which
    nothing is known, and those of variants with a fixed text or without repair are not among them."""
    verdicts = {item.response_id: item for item in from_table(Verdict, run.read("verdicts"))}
    for row in rows_of(run):
        response = row.response
        if response.attempt or not response.teacher:
            continue
        if not _repaired(config, row):
            continue
        verdict = verdicts[response.response_id]
        if flags_of(row, verdict):
            yield row, verdict


def _repaired(config: RunConfig, row: Row) -> bool:
    """Whether the row's variant is repaired. A benign row is no baseline, and its one fault is that it refuses: it is
    repaired, unless the run names other variants."""
    if row.kind == "benign" and not config.repair.variants:
        return True
    return config.repairs(row.response.variant)


def silent_teachers(run: RunFolder) -> set[str]:
    """Teachers that show no reasoning in any row: to ask them once more would give no more."""
    reasoning: dict[str, bool] = {}
    for row in rows_of(run):
        response = row.response
        if response.teacher and not response.attempt:
            reasoning[response.teacher] = reasoning.get(response.teacher, False) or bool(response.reasoning.strip())
    return {teacher for teacher, shown in reasoning.items() if not shown}


def _in_vain(config: RunConfig, row: Row, silent: Container[str]) -> bool:
    """Whether an attempt could not be judged either: a harmful prompt is judged by its reasoning."""
    return row.kind == "harmful" and _asked(config, row) in silent


async def _attempts(
    config: RunConfig, panel: Panel, first: _Attempt, asker: Asker
) -> tuple[list[_Attempt], Failure | None]:
    """Ask, judge, and ask again until nothing is wrong or the attempts are used; and the request that failed."""
    tree = [first]
    while tree[-1].flags and len(tree) <= config.repair.attempts:
        try:
            following = await _ask_again(config, tree, asker)
        except TeacherError as error:
            return tree, failure_of(error)  # what there is is kept
        judgements = await panel.judge(following, asker)
        tree.append(_Attempt(following, panel.verdict(following, judgements), tuple(judgements)))
        if tree[-1].unscored:
            return tree, worst(read_reason(item.reason) for item in judgements)
    return tree, None


async def _ask_again(config: RunConfig, tree: list[_Attempt], asker: Asker) -> Row:
    last, attempt = tree[-1], len(tree)
    response = last.row.response
    name, strategy = _asked(config, last.row), config.repair.strategy
    teacher = config.teachers[name]
    messages = repair_messages(strategy, config, last.row, last.flags, _evidence(last.verdict), attempt)
    sample = response.sample + _APART * attempt
    fields = request_fields(teacher, sample)
    reply = await asker.ask(name, messages, fields, sample)
    thought = split(reply.content, reply.reasoning_content, reply.reasoning, teacher.reasoning_style)
    reasoning, answer, source = thought.reasoning.strip(), thought.answer.strip(), thought.source
    if strategy == "edit":
        reasoning, answer, source = answer, response.answer, response.reasoning_source  # type: ignore[assignment]
    return replace(
        last.row,
        response=replace(
            response,
            response_id=content_id(tree[0].row.response.response_id, strategy, attempt),
            attempt=attempt,
            parent_id=response.response_id,
            reasoning=reasoning,
            answer=answer,
            reasoning_source=source,
            **_facts(reply),
            teacher=name,
            model=teacher.model,
            sampling=json.dumps(request_fields(teacher, response.sample), sort_keys=True),
            request_key=asker.key(name, messages, fields, sample),
        ),
    )


def _asked(config: RunConfig, row: Row) -> str:
    """Who is asked for a row again: the teacher that wrote it, or the run's where that was somebody else's model."""
    name = row.response.teacher if row.response.teacher in config.teachers else config.teacher_of(row.response.variant)
    return str(name)


def _facts(reply: Reply) -> dict[str, Any]:
    names = ("finish_reason", "input_tokens", "output_tokens", "latency_s", "cost")
    return {name: getattr(reply, name) for name in names}


def _evidence(verdict: Verdict) -> dict[str, str]:
    return {str(label): str(span) for label, span in json.loads(verdict.evidence).items()}


def _repairs(config: RunConfig, tree: list[_Attempt]) -> list[Repair]:
    best = min(tree, key=_Attempt.rank)
    return [
        Repair(
            root_id=tree[0].row.response.response_id,
            response_id=item.row.response.response_id,
            attempt=item.row.response.attempt,
            strategy=config.repair.strategy,
            patterns=None if item.unscored else sum(flag in PATTERNS for flag in item.flags),
            flagged=",".join(item.flags),
            chosen=item is best,
        )
        for item in tree
    ]


def _record(run: RunFolder, config: RunConfig, result: RepairResult, after: dict[str, Any]) -> None:
    facts = {**asdict(result), "failures": result.failures.record()}
    earlier = run.stage("repair") or {}
    run.record(
        "repair",
        outputs={
            f"{name}.parquet": file_hash(run.table_path(name))
            for name in ("responses", "judgements", "verdicts", "repairs")
        },
        templates=template_hashes(),
        attempts=config.repair.attempts,
        **facts,
        after=after,
        by_strategy={**earlier.get("by_strategy", {}), result.strategy: facts},
    )
