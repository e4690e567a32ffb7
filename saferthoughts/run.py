"""A run: the stages from prompts to a release, as methods with keyword settings and typed results.

Reads and writes the run's folder as `pipelines/runs.py` has it. Stages are imported when they are called: each needs
its own extra only.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pipelines.errors import UserError, unknown
from pipelines.runner.options import RequestOptions
from pipelines.settings.changes import is_imported
from pipelines.settings.options import text_file
from saferthoughts.refusals import require_rows
from saferthoughts.settings import (
    Agreement,
    Assignments,
    ChangeSettings,
    RepairSettings,
    RequestSettings,
    StageSettings,
    StoredPath,
    TeacherSettings,
    checks_folder,
    files_by_name,
    path_of,
    request_options,
    texts_of,
)
from saferthoughts.stored_run import StoredRun

if TYPE_CHECKING:
    from curation.overlap.contamination import Overlap
    from curation.overlap.duplicates import Duplicates
    from curation.quality.checks import CheckResult
    from curation.selection import SelectionResult
    from pipelines.generate.stage import GenerationResult
    from pipelines.judges.stage import JudgingResult
    from pipelines.repairs.accounting import RepairResult
    from saferthoughts.release import Release
    from training.local_judge.distill import DistilResult
    from training.student_nll import NllResult

# What `Run.run` does, in this order.
STAGES = ("generate", "judge", "repair", "check", "release")
# Called after each stage with its name and its result, None where there was nobody to ask.
Progress = Callable[[str, Any], None]


class Run(StoredRun):
    """A run folder and the stages that work on it.

    Every stage goes on where it was stopped and asks only for what is missing. What a stage cannot do it raises as
    `UserError`; where rows are missing, as `Incomplete`; where a signal stopped it, as `Interrupted`.

    >>> import saferthoughts as st
    >>> run = st.Run.create("demo", teacher="rehearsal", harmful=4, benign=2, variants=["direct", "improved"])
    >>> run.generate().kept
    10
    >>> run.judge("rehearsal-judge", "rehearsal-shield").unscored
    0
    >>> repaired = run.repair()
    >>> run.check().rows
    10
    >>> run.table("responses").to_pandas()["variant"].nunique()
    2
    >>> run.release(version="1.0.0").version
    '1.0.0'
    """

    def generate(self, **options: Unpack[StageSettings]) -> "GenerationResult":
        """Ask the teachers for every response that is missing; see `StageSettings` for the options.

        Raises:
            Incomplete: rows failed that may be asked again, more of them are refused for good than may be, or the
                budget is spent; what came back is kept.
            UserError: a key is missing, a teacher does not answer or shows no reasoning, or the run was imported.
        """
        requests = self._prepared({}, **options)
        self._require_teacher()
        from pipelines.generate.stage import generate

        result = generate(self.folder, requests)
        where = str(self.folder.table_path("failed"))
        require_rows(self.name, "generate", result, rows=result.planned, max_failed=requests.max_failed, where=where)
        return result

    def judge(
        self,
        *judges: str,
        vote: str | None = None,
        policies: Assignments | None = None,
        repeat: int | None = None,
        logprobs: bool | None = None,
        **options: Unpack[StageSettings],
    ) -> "JudgingResult":
        """Judge every response.

        Args:
            judges: Names of judges.yaml, which become the run's; its own if none is given.
            vote: "majority", "any" or "all": how many judges must flag.
            policies: Files with a policy of your own, by judge of `form: policy`.
            repeat: How often each verdict is asked for; the share that agrees is its confidence.
            logprobs: Whether judges are asked for the probabilities of their tokens, which are its confidence.
            options: See `StageSettings`.

        Raises:
            Incomplete: the budget is spent, a judge that could not be asked may be asked again, or more rows are
                refused for good than may be; what came back is kept.
            UserError: there are no responses, or a judge is unknown, lacks its key or does not answer.
        """
        given = files_by_name(policies)
        texts = dict(text_file(one, "judges.{}.policy", "--policy", "gpt-oss-safeguard=my-policy.md") for one in given)
        asked = judges or self.config.judging.judges
        for name in (one.partition("=")[0].strip() for one in given):
            if name not in asked:
                raise unknown("judge of this run (--policy)", name, asked)
        also: dict[str, Any] = {"judging.judges": list(judges) or None, "judging.vote": vote, **texts}
        also |= {"judging.repeat": repeat, "judging.logprobs": logprobs}
        requests = self._prepared(also, **options)
        from pipelines.judges.stage import judge

        result = judge(self.folder, requests)
        where = f"reason in {self.folder.table_path('judgements')}"
        require_rows(self.name, "judge", result, rows=result.responses, max_failed=requests.max_failed, where=where)
        return result

    def distil(self, out: StoredPath, *, source: str = "judges", encoder: StoredPath | None = None) -> "DistilResult":
        """Make a local judge, which runs on a CPU, of the run's verdicts, and measure it by cross-validation.

        Args:
            out: The folder to write; it must not exist.
            source: "judges", or "people" for the majorities of their votes.
            encoder: A folder of sentence-transformers; all-MiniLM-L6-v2 if not given.

        Raises:
            UserError: the run was judged by no model, too few rows carry any pattern, or the folder is there already.
        """
        from training.local_judge.distill import SOURCES, distil

        if source not in SOURCES:
            raise unknown("source of labels", source, SOURCES)
        return distil(self.folder, Path(out), source, path_of(encoder))

    def repair(
        self,
        *,
        strategy: str | None = None,
        attempts: int | None = None,
        **options: Unpack[RepairSettings],
    ) -> "RepairResult":
        """Ask again for flagged rows, saying what was wrong; the best attempt of each is kept.

        Args:
            strategy: "instruct", "resample", "edit" or "escalate".
            attempts: Most further attempts at a row.
            options: See `RepairSettings`: a run that was imported has no teacher of its own.

        Raises:
            Incomplete: the budget is spent, a request failed that may be repeated, or the repair of more rows is
                refused for good than may be; what came back is kept.
            UserError: rows have no verdict, or the run was imported and nobody is named.
        """
        given: dict[str, Any] = dict(options)
        who = {name: given.pop(name) for name in TeacherSettings.__annotations__ if name in given}
        requests = self._prepared({"repair.strategy": strategy, "repair.attempts": attempts}, who, **given)
        if not self._may_repair():
            raise UserError(
                f"{self.path} holds an imported dataset: its responses come from no teacher of this run. Say who is to "
                f"be asked for the flagged ones: saferthoughts repair {self.name} --teacher NAME, or --base-url and "
                "--model"
            )
        from pipelines.repairs.stage import repair

        result = repair(self.folder, requests)
        where = f"saferthoughts ledger show {self.name}"
        require_rows(self.name, "repair", result, rows=result.kept.rows, max_failed=requests.max_failed, where=where)
        return result

    def check(
        self, *, checks: StoredPath | None = None, filter: str | None = None, **changes: Unpack[ChangeSettings]
    ) -> "CheckResult":
        """Run the quality queries: accepted rows, and rejected rows with reasons.

        Args:
            checks: A folder of .sql checks of your own, added to ours.
            filter: Which checks decide: all, safety (the study's), but-weak-vacillation or clean.
            changes: See `ChangeSettings`.

        Raises:
            UserError: a table is missing, a check is unknown, or a query does not run.
        """
        from curation.quality.checks import check, filter_settings

        self.change(**changes, also={"checks.folder": checks_folder(checks), **filter_settings(filter)})
        return check(self.folder)

    def duplicates(self, *, engine: str = "local", ray_address: str | None = None) -> "list[Duplicates]":
        """Find near-duplicate requests and responses; `engine` "ray" has a cluster compute, with the same result."""
        from curation.overlap.duplicates import find_duplicates
        from pipelines.runner.options import Engine

        return find_duplicates(self.folder, Engine(engine, ray_address))

    def contamination(self, *against: str, engine: str = "local", ray_address: str | None = None) -> "list[Overlap]":
        """Find overlaps with evaluation sets: their names, files, OWNER/NAME on the Hub, or NAME=FILE."""
        from curation.overlap.contamination import find_contamination
        from pipelines.runner.options import Engine

        return find_contamination(self.folder, against, Engine(engine, ray_address))

    def select(
        self,
        *,
        harmful: int | None = None,
        benign: int | None = None,
        variants: Iterable[str] | None = None,
        paired: bool | None = None,
        stratified: bool | None = None,
        by: str | None = None,
    ) -> "SelectionResult":
        """Draw the rows to release, by the run's numbers or by those given, which then are the run's.

        Args:
            harmful: Harmful rows of each variant.
            benign: Benign rows.
            variants: The variants to draw.
            paired: Only prompts that survive in all of them.
            stratified: Mixed as the prompts are; False draws at random, as the study did.
            by: "student_nll" draws first what the student finds likeliest, after `student_nll`.
        """
        from curation.selection import select

        given: dict[str, Any] = {"harmful": harmful, "benign": benign, "variants": list(texts_of(variants)) or None}
        given |= {"paired": paired, "stratified": stratified, "by": by}
        self.change(also={f"selection.{key}": value for key, value in given.items()})
        return select(self.folder)

    def student_nll(self, student: "StoredPath | None" = None) -> "NllResult":
        """Measure how likely a student finds each accepted response: the table `student_nll`.

        Args:
            student: A checkpoint, or ORG/NAME on the Hub; the one of the last call if not given.

        Raises:
            UserError: nothing was checked, or the student cannot be loaded.
        """
        from training.student_nll import measure

        return measure(self.folder, None if student is None else str(student))

    def release(
        self,
        *,
        version: str | None = None,
        since: "Release | StoredPath | None" = None,
        license: str | None = None,
        configs: Iterable[str] | None = None,
        length_ratio: float | None = None,
        reasoning_key: str | None = None,
    ) -> "Release":
        """Build the release folder.

        Args:
            version: MAJOR.MINOR.PATCH; refused where it understates what changed.
            since: The release before this one, for the version and the changelog.
            license: The licence, by the Hub's name for it; kept in run.yaml, as is what follows.
            configs: What other objectives are trained on: "preference", "unpaired", "prompts", "steps".
            length_ratio: Largest ratio of words between the sides of a preference pair.
            reasoning_key: Where conversations have the reasoning: "inline", "reasoning_content" or "thinking".

        Raises:
            UserError: nothing was accepted, or what the run requires of a release is not met.
        """
        from cards.release.build import build_release
        from saferthoughts.release import Release, release_path

        given = {"license": license, "length_ratio": length_ratio, "reasoning_key": reasoning_key}
        kept: dict[str, Any] = {f"release.{key}": value for key, value in given.items() if value is not None}
        if configs is not None:
            kept["release.configs"] = list(dict.fromkeys(configs))
        if kept:
            self.change(also=kept, agree=True)
        before = None if since is None else release_path(since)
        built = build_release(self.folder, before, version, license=license)
        return Release(built.folder)

    def report(self) -> Path:
        """Write report.html from what the run has so far; its path."""
        from curation.report.page import write_report

        return write_report(self.folder)

    def run(
        self, *, until: str = "release", progress: Progress | None = None, **requests: Unpack[RequestSettings]
    ) -> dict[str, Any]:
        """Run every stage up to `until`, within one budget.

        Args:
            until: The last stage: "generate", "judge", "repair", "check" or "release".
            progress: Is called after each stage with its name and its result.
            requests: See `RequestSettings`.

        Returns:
            Each stage's result, by its name; None for a stage that an imported run has no teacher for.

        Raises:
            UserError: no such stage, or one of a stage's own.
        """
        require_stage(until)
        options = request_options(self.path.parent, **requests)
        self._require_judges(until, options)
        results: dict[str, Any] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            if (stage == "generate" and is_imported(self.folder)) or (stage == "repair" and not self._may_repair()):
                results[stage] = None
            else:
                asks = requests if stage in ("generate", "judge", "repair") else {}
                results[stage] = getattr(self, stage)(**asks)
            if progress is not None:
                progress(stage, results[stage])
        return results

    def _prepared(
        self,
        also: Mapping[str, Any],
        who: Mapping[str, Any] | None = None,
        *,
        settings: Assignments | None = None,
        teachers: StoredPath | None = None,
        agree: Agreement = False,
        **requests: Unpack[RequestSettings],
    ) -> RequestOptions:
        """Change the run as a stage's options say; how it makes its requests."""
        options = request_options(self.path.parent, **requests)
        self.change(settings=settings, teachers=teachers, agree=agree, also=also, **(who or {}))
        return options

    def _may_repair(self) -> bool:
        return not is_imported(self.folder) or bool(self.config.teachers)

    def _require_teacher(self) -> None:
        if is_imported(self.folder):
            raise UserError(
                f"{self.path} holds an imported dataset: its responses come from no teacher of this run, so there is "
                f"none to ask. Judge and check it (saferthoughts judge {self.name}), or have its prompts answered in a "
                "new run: saferthoughts prompts NEW --prompts FILE --teacher NAME"
            )

    def _require_judges(self, until: str, options: RequestOptions) -> None:
        """Refuse before the first stage what would stop a later one: a judge without its key, or without prices."""
        from pipelines.judges.stage import judge_teachers
        from pipelines.runner.session import check_teachers

        config = self.config
        teachers = config.teachers if self._may_repair() else {}
        judges = {} if until == "generate" else judge_teachers(config)
        check_teachers({**teachers, **judges}, options.caps)


def require_stage(name: str) -> None:
    """Refuse a name that is none of `STAGES`.

    Raises:
        UserError: it is none.
    """
    if name not in STAGES:
        raise unknown("stage", name, STAGES)
