"""LiveCodeBench: contest problems by date, answered with a program that has to pass every test.

Dataset   the problems of code_generation_lite's fifth file whose contest fell into the window (`from`, `to`, both
          days included), from the Hub at a pinned commit; or a file of the same columns (question_title,
          question_content, platform, question_id, contest_date, starter_code, difficulty, public_test_cases,
          private_test_cases, metadata); or 3 bundled ones of our own. The window holds for every one of them.
Metric    pass@1: the share of answers whose program passes all public and private tests.
Protocol  the problem as the user's turn; temperature 0.6, top-p 0.95, at most 30,000 tokens; October 2024 to January
          2025. The program is the last fenced block of the answer part that is Python (eval/sandbox/programs.py), or by
          `repository` what stands between the last two fences of the whole response. The benchmark's own template and
          system message are not here: `template` and `system` take files with them, and those bundled are ours. Each
          test is a sandbox of its own, with 6 s of computing and 1 GiB. Differs from LiveCodeBench's own runner: no
          numpy, and 6 s are not counted while the machine is busy with something else.
Source    Jain et al. 2024 (arXiv 2403.07974); the data's card names CC.

Reads those and writes Inspect's log only. Runs programs that models wrote, so it refuses to without bubblewrap; see
eval/sandbox/bubblewrap.py for what that holds. Run through `eval/run/stage.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from anyio import to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.begun import answering
from eval.models.responses import part_of, thought_of
from eval.run.results import DataUsed, Measure
from eval.sandbox.bubblewrap import Limits, SandboxError, available
from eval.sandbox.code_cases import decoded
from eval.sandbox.code_judge import ProgramVerdict, judged
from eval.sandbox.programs import between_last_fences, last_program
from eval.sources import Loaded, Public, distinct, load
from eval.task_prompts import filled, hashes, text
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from pipelines.errors import UserError, unknown
from pipelines.files import file_hash

# The fifth file holds the contests from October 2024 to January 2025, the study's window.
PUBLIC = Public("livecodebench/code_generation_lite", "0fe84c3912ea0c4d4a78037083943e8f0c4dd505", "test5.jsonl", "cc")
SAMPLE = Path(__file__).parent.parent / "data" / "programming.jsonl"
# What `template` and `system` may be beside a file's path.
WORDS = {
    "template": {"plain": "programming", "headed": "programming_headed"},
    "system": {"none": "", "bundled": "programming_system"},
}
PROGRAMS = {"python": last_program, "last": between_last_fences}
SCORER = "passes_tests"
_NEED = {"problem": ("question_content",), "name": ("question_id",), "public": ("public_test_cases",)}
_MAY = {
    "private": ("private_test_cases",),
    "starter": ("starter_code",),
    "day": ("contest_date",),
    "difficulty": ("difficulty",),
    "notes": ("metadata",),
}


@dataclass(frozen=True, slots=True)
class _Tests:
    """A problem's tests as the file has them. They are decoded when a program is there to be tested: they are large."""

    public: str
    private: str
    function: str | None


def problems(request: TaskRequest) -> tuple[list[Sample], dict[str, _Tests], DataUsed]:
    """The problems of the window as samples, and their tests by sample id.

    Raises:
        UserError: they cannot be had, none is in the window, or a date or metadata cannot be read.
    """
    loaded = load(request, PUBLIC, SAMPLE, _NEED, _MAY)
    first, last = (_day(request.settings[edge], f"the setting '{edge}'") for edge in ("from", "to"))
    rows = [row for row in loaded.rows if first <= _contest_day(row, loaded) <= last]
    if not rows:
        raise UserError(
            f"None of the {len(loaded.rows)} problems of {loaded.source} is from {first} to {last}. Choose another "
            "window with the settings from and to."
        )
    rows = rows[: request.limit]
    distinct([row["name"] for row in rows], loaded)
    tests = {row["name"]: _Tests(row["public"], str(row["private"] or ""), _function(row, loaded)) for row in rows}
    template, system = (_words(request, key)[0] for key in WORDS)
    return (
        [_sample(row, template, system) for row in rows],
        tests,
        loaded.used(len(rows), left_out=_outside(loaded, first, last)),
    )


def _outside(loaded: Loaded, first: date, last: date) -> int:
    return sum(not first <= _contest_day(row, loaded) <= last for row in loaded.rows)


def _words(request: TaskRequest, key: str) -> tuple[str, dict[str, str]]:
    """The text of the setting `template` or `system`, and its hash by the file's name."""
    known = WORDS[key]
    wanted = str(request.settings.get(key, next(iter(known))))
    if wanted in known:
        return (text(known[wanted]), hashes(known[wanted])) if known[wanted] else ("", {})
    path = Path(wanted)
    if not path.is_file():
        raise unknown(f"livecodebench.{key}, and no file,", wanted, known)
    try:
        return path.read_text(encoding="utf-8"), {path.name: file_hash(path)}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"livecodebench.{key}: {path} cannot be read: {error}") from error


def _sample(row: Mapping[str, Any], template: str, system: str) -> Sample:
    values = {"problem": row["problem"], "starter": str(row["starter"] or "").strip()}
    question = filled(template, "the template of livecodebench", **values)
    asked: str | list[ChatMessage] = question
    if system:
        asked = [ChatMessageSystem(content=system.strip()), ChatMessageUser(content=question)]
    metadata = {"category": str(row["difficulty"] or ""), "question": row["problem"]}
    return Sample(input=asked, id=row["name"], metadata=metadata)


def _contest_day(row: Mapping[str, Any], loaded: Loaded) -> date:
    return _day(row["day"], f"{loaded.source}: contest_date of '{row['name']}'")


def _day(value: Any, what: str) -> date:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError as error:
        raise UserError(f"{what} is '{value}'. It needs a day such as 2024-10-01.") from error


def _function(row: Mapping[str, Any], loaded: Loaded) -> str | None:
    """The function that functional tests call, which the column metadata names."""
    try:
        notes = json.loads(row["notes"] or "{}") if isinstance(row["notes"], str | None) else row["notes"]
        return None if (name := notes.get("func_name")) is None else str(name)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{loaded.source}: metadata of '{row['name']}' is no JSON object.") from error


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the problems cannot be had.
    """
    samples, tests, used = problems(request)
    task = Task(
        dataset=MemoryDataset(samples, name="livecodebench"),
        solver=answering(request.settings),
        scorer=_scoring(tests, request.settings.get("part", "answer"), request.settings.get("program", "python")),
        config=request.decoding,
        epochs=request.settings["epochs"],
        name="livecodebench",
    )
    return BuiltTask(task, used, _words(request, "template")[1] | _words(request, "system")[1])


def _scoring(tests: Mapping[str, _Tests], part: str, program_by: str) -> Scorer:
    """The scorer over these tests. They are no argument of it: Inspect writes those into its log."""
    if program_by not in PROGRAMS:
        raise unknown("livecodebench.program", program_by, PROGRAMS)

    @scorer(metrics=[mean(), stderr()], name=SCORER)
    def passes_tests() -> Scorer:
        """1 where the program passes every test, else 0, also where the answer was cut off or holds no program.

        Unscored where its tests cannot be read or the sandbox fails. `detail`: `failure` is "", "no answer",
        "no program" or how the first failing test ended; `tests` counts outcomes, `untried` those not run after it.
        """

        async def score(state: TaskState, target: Target) -> Score:
            thought = thought_of(state.output)
            seen = part_of(thought, part)
            program = PROGRAMS[program_by](seen)
            if program is None:
                failure = "no program" if seen.strip() else "no answer"
                metadata = {"reasoning": thought.reasoning, "detail": {"failure": failure}}
                return Score(value=0, answer=thought.answer, explanation=failure, metadata=metadata)
            try:
                verdict = await _judged(program, tests[str(state.sample_id)])
            except (SandboxError, ValueError) as error:
                metadata = {"reasoning": thought.reasoning, "detail": {"failure": "no verdict"}}
                return Score.unscored(reason=str(error)[:300], answer=thought.answer, metadata=metadata)
            detail = {
                "failure": verdict.failure or "",
                "tests": dict(verdict.results),
                "untried": verdict.untried,
                "reason": verdict.detail,
            }
            metadata = {"reasoning": thought.reasoning, "detail": detail}
            return Score(value=int(verdict.passed), answer=thought.answer, metadata=metadata)

        return score

    return passes_tests()


async def _judged(program: str, tests: _Tests) -> ProgramVerdict:
    cases = await to_thread.run_sync(decoded, tests.public, tests.private)
    return await judged(program, cases, tests.function, Limits())


@task
def livecodebench(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec(
    "livecodebench", "LiveCodeBench", Measure("pass_at_1", "pass@1", "higher"), SCORER, build, needs=available
)
