"""Commands of the reward that GRPO trains by. Reads the bundled examples; judges that it asks keep their answers."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from saferthoughts.cli.options import AsJson, JudgeNames, MaxCost, MaxTokens, Settings, group, show

if TYPE_CHECKING:
    from training.reward.check import RewardCase

reward_app = group("Check which cheats GRPO's reward lets pass.")


@reward_app.callback()
def only_group() -> None:
    """Keep `check` a command of its own."""


@reward_app.command()
def check(
    judges: JudgeNames = None,
    config: Annotated[Path | None, typer.Option(help="A run.yaml, whose judges, teachers and vote are used.")] = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    as_json: AsJson = False,
) -> None:
    """Reward gold answers, flawed ones and known cheats, and show what passes falsely; judges in the rules' place.

    Example: saferthoughts reward check --json

    Example: saferthoughts reward check --judge o3 --max-cost 2
    """
    from pipelines.errors import UserError
    from pipelines.judges.replies import ReplyJudges
    from pipelines.runner.options import Caps
    from training.reward.check import check_reward

    asked = None
    if judges or config:
        asked = ReplyJudges(judges or (), config, Caps(max_cost, max_tokens))
        # Beside the runs and none of them, so that the same is not asked and paid for twice.
        asked.open(Settings.runs / ".reward-check")
    elif max_cost is not None or max_tokens is not None:
        raise UserError("--max-cost and --max-tokens cap what judges take: name one with --judge.")
    cases = check_reward(asked)
    show([_facts(case) for case in cases] if as_json else cases, as_json, _table)


def _facts(case: "RewardCase") -> dict[str, Any]:
    return {
        "group": case.group,
        "example": case.example,
        "kind": case.kind,
        "reward": case.reward.value,
        "reason": case.reward.reason,
        "passes": case.reward.passes,
        "should_pass": case.should_pass,
    }


def _table(cases: "list[RewardCase]") -> Table:
    table = Table(
        title="the reward on the bundled examples and on known cheats",
        caption="gold should pass, everything else should not; wrong: passed, or refused, falsely",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in ("reply", "prompt", "n", "passed", "wrong", "mean", "which"):
        table.add_column(column, justify="right" if column in ("n", "passed", "wrong", "mean") else "left")
    for name, count in Counter((case.group, case.kind) for case in cases).items():
        some = [case for case in cases if (case.group, case.kind) == name]
        passed, wrong = sum(case.reward.passes for case in some), [case for case in some if case.falsely]
        scored = [case.reward.value for case in some if case.reward.value is not None]
        mean = f"{sum(scored) / len(scored):.2f}" if scored else "-"
        unscored = [f"{count - len(scored)} unscored"] if len(scored) < count else []
        which = ", ".join([*unscored, *(case.example for case in wrong)])
        cells = [*name, str(count), str(passed), str(len(wrong)), mean, which]
        table.add_row(*(Text(cell, style="red" if wrong and at == 4 else "") for at, cell in enumerate(cells)))
    return table
