"""What runs cost, by day, teacher, judge and run: sums over their ledgers.

Reads the ledger.sqlite and run.yaml of each run; writes nothing. What was taken over from another run's ledger was paid
there and is not counted again. The service's page and GET /costs call it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, load_config
from pipelines.teachers.ledger import DaySpent, Ledger


@dataclass(frozen=True, slots=True)
class CostLine:
    """One model's answers in one run on one day (UTC). `role` is teacher or judge, `name` what the run calls it; names
    of one model are joined. Tokens are counts, `cost` is US dollars of the answers with a price, None where none has
    one; `unpriced` counts the others."""

    run: str
    day: str
    role: str
    name: str
    model: str
    answers: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class CostSum:
    """Lines of one name added up, as `CostLine` has them."""

    name: str
    answers: int
    unpriced: int
    tokens: int
    cost: float | None


def run_costs(run: RunFolder) -> list[CostLine]:
    """A run's lines, the earliest first; none where it has asked nobody.

    Raises:
        UserError: its ledger or configuration cannot be read.
    """
    path = run.path / "ledger.sqlite"
    if not path.exists():
        return []
    config = load_config(run)
    with Ledger.reading(path) as ledger:
        lines = [_line(run.name, config, spent) for spent in ledger.spent_by_day()]
    groups: dict[tuple[str, ...], list[CostLine]] = defaultdict(list)
    for line in lines:
        groups[line.day, line.role, line.name, line.model].append(line)
    return [_joined(group) for group in groups.values()]


def _joined(lines: list[CostLine]) -> CostLine:
    """One line of those that differ in which stage asked alone."""
    whole = _sum("", lines)
    read = sum(line.input_tokens for line in lines)
    return replace(
        lines[0],
        answers=whole.answers,
        unpriced=whole.unpriced,
        input_tokens=read,
        output_tokens=whole.tokens - read,
        cost=whole.cost,
    )


def _line(run: str, config: RunConfig, spent: DaySpent) -> CostLine:
    asked = {name: config.judge_teachers.get(entry.teacher or "") for name, entry in config.judges.items()}
    judges = [name for name, entry in asked.items() if entry is not None and entry.model == spent.model]
    teachers = [name for name, entry in config.teachers.items() if entry.model == spent.model]
    # A model may answer and judge in one run; then the stage that asked decides.
    judged = bool(judges) and (spent.judging or not teachers)
    names = judges if judged else teachers
    return CostLine(
        run=run,
        day=spent.day,
        role="judge" if judged or (spent.judging and not teachers) else "teacher",
        name=", ".join(sorted(names)) or spent.model,
        model=spent.model,
        answers=spent.answers,
        unpriced=spent.unpriced,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cost=spent.cost,
    )


def cost_sums(lines: Iterable[CostLine], name_of: Callable[[CostLine], str]) -> list[CostSum]:
    """Lines added up by a name, in the order of names."""
    groups: dict[str, list[CostLine]] = defaultdict(list)
    for line in lines:
        groups[name_of(line)].append(line)
    return [_sum(name, groups[name]) for name in sorted(groups)]


def _sum(name: str, lines: list[CostLine]) -> CostSum:
    known = [line.cost for line in lines if line.cost is not None]
    return CostSum(
        name=name,
        answers=sum(line.answers for line in lines),
        unpriced=sum(line.unpriced for line in lines),
        tokens=sum(line.input_tokens + line.output_tokens for line in lines),
        cost=sum(known) if known else None,
    )
