"""What a stage does about rows whose requests failed: goes on, or raises `Incomplete`. Reads and writes nothing."""

import math
from typing import TYPE_CHECKING, Literal

from pipelines.command_line import typed_command
from pipelines.errors import Incomplete

if TYPE_CHECKING:
    from pipelines.generate.stage import GenerationResult
    from pipelines.judges.stage import JudgingResult
    from pipelines.repairs.accounting import RepairResult
    from pipelines.runner.failures import Failures

AskingStage = Literal["generate", "judge", "repair"]
# How rows end that are refused for good.
_ENDED: dict[AskingStage, str] = {"generate": "left out", "judge": "unscored", "repair": "left as they were"}


def refused_words(stage: AskingStage, failures: "Failures", rows: int) -> str:
    """How many of a stage's rows are refused for good, and how those end."""
    first = failures.reasons[0][0]
    return f"{failures.permanent} of {rows} are refused for good and {_ENDED[stage]} ({first})"


def require_rows(
    run: str,
    stage: AskingStage,
    result: "GenerationResult | JudgingResult | RepairResult",
    *,
    rows: int,
    max_failed: float,
    where: str,
) -> None:
    """Let a stage's result pass where nothing failed that may be asked again.

    Args:
        run: The run's name.
        stage: The stage.
        result: What it did.
        rows: All rows of the run, of which `max_failed` is a share.
        max_failed: The most that may be refused for good.
        where: Where they are listed.

    Raises:
        Incomplete: some may be asked again, or more are refused for good than may be; `result` is in it.
    """
    failures = result.failures
    if not failures.rows:
        return
    again = f"saferthoughts {stage} {run}"
    transient = failures.rows - failures.permanent
    if transient:
        raise Incomplete(
            f"{failures.rows} failed, see {where} (the first: {failures.reasons[0][0]}). Ask "
            f"{'those' if transient == failures.rows else f'{transient} of them'} again: {typed_command(again)}",
            result,
        )
    share = failures.permanent / rows
    if share > max_failed:
        most = f"--max-failed {math.ceil(100 * share)}%"
        raise Incomplete(
            f"{refused_words(stage, failures, rows)}: {share:.1%}, more than the {max_failed:.1%} of --max-failed; see "
            f"{where}. Go on without them: {typed_command(again, most)}. After a change at the provider, let them be "
            f"asked once more: saferthoughts ledger forget {run}",
            result,
        )
