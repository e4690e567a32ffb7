"""Changes of a run that exists: the one way to change run.yaml, and what a change would cost of what is there.

Reads run.yaml, prompts.parquet and ledger.sqlite; writes run.yaml. `saferthoughts generate RUN --set ...` and the like
change a run; `pipelines/prompts/stage.py` does where prompts are drawn anew.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pipelines.errors import UserError
from pipelines.generate.plan import plan, prompts_of
from pipelines.records import Prompt
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, change_config, load_config
from pipelines.settings.options import Options, configured
from pipelines.teachers.ledger import Ledger

# Called with what a change would cost; returns where it may be made, and raises a UserError where not.
Consent = Callable[[str], None]


def refuse(cost: str) -> None:
    """The consent of a caller that cannot ask anybody.

    Raises:
        UserError: always.
    """
    raise UserError(f"{cost} Agree to it with --yes (in Python: agree=True), or give a new run's name.")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a change takes from a run: prompts by kind, answers of the ledger that no longer serve, what is replaced."""

    prompts: dict[str, tuple[int, int]]
    answers: tuple[int, int]
    replaced: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether it takes anything."""
        return bool(self.replaced or self.answers[0] or any(gone for gone, _ in self.prompts.values()))

    def message(self, run: RunFolder) -> str:
        """The cost in words."""
        gone = [f"{count} of its {had} {kind} prompts" for kind, (count, had) in self.prompts.items() if count]
        parts = list(self.replaced)
        if gone:
            parts.append(f"{' and '.join(gone)} would go")
        if self.answers[0]:
            parts.append(
                f"{self.answers[0]} of its {self.answers[1]} answers would no longer serve (the ledger keeps them for "
                "the settings that they were asked with)"
            )
        if (run.path / "release").exists():
            parts.append("its release would be built anew")
        return f"This changes {run.path}: {'; '.join(parts)}."


def is_imported(run: RunFolder) -> bool:
    """Whether the run's responses come from somebody else's dataset."""
    return run.stage("import") is not None


def knows_baseline(run: RunFolder) -> bool:
    """Whether rows of `direct` are a baseline here: in a run of ours, and in a release of ours that was read back. Rows
    of others are in that variant for want of another."""
    stage = run.stage("import")
    return stage is None or bool(stage.get("release"))


def change(run: RunFolder, options: Options, consent: Consent = refuse) -> RunConfig:
    """Change what the options name in run.yaml, and nothing else; the prompts stay.

    Raises:
        UserError: a value that does not fit, one that draws other prompts, or no consent to what would be lost.
    """
    if not options.given():
        return load_config(run)

    def changed(before: RunConfig) -> RunConfig:
        named = bool(options.teacher or options.base_url or before.teachers)
        after = configured(options, before, asks=named or not is_imported(run))
        if (after.prompts, after.seed) != (before.prompts, before.seed):
            again = f"saferthoughts prompts {run.name}"
            raise UserError(
                f"'prompts' and 'seed' decide which prompts the run has. Change them where those are drawn: {again}"
            )
        if after != before:
            agree(run, before, after, None, consent)
        return after

    return change_config(run, changed)


def agree(
    run: RunFolder, before: RunConfig, after: RunConfig, prompts: Collection[Prompt] | None, consent: Consent
) -> None:
    """Ask for consent where a change takes something; `prompts` are the new ones, None where they stay.

    Raises:
        UserError: there is none.
    """
    cost = cost_of(run, before, after, prompts)
    if cost.any:
        consent(cost.message(run))


def cost_of(run: RunFolder, before: RunConfig, after: RunConfig, prompts: Collection[Prompt] | None) -> Cost:
    """What a change takes from a run."""
    if not run.table_path("prompts").exists():
        return Cost({}, (0, 0), ())
    old = list(prompts_of(run))
    new = old if prompts is None else prompts
    kept = {prompt.prompt_id for prompt in new}
    kinds: dict[str, tuple[int, int]] = {}
    for prompt in old:
        gone, had = kinds.get(prompt.kind, (0, 0))
        kinds[prompt.kind] = (gone + (prompt.prompt_id not in kept), had + 1)
    answers = (0, 0) if is_imported(run) else _answers(run, before, old, after, new)
    return Cost(kinds, answers, tuple(_replaced(before, after)))


def _answers(
    run: RunFolder, before: RunConfig, old: Iterable[Prompt], after: RunConfig, new: Iterable[Prompt]
) -> tuple[int, int]:
    """How many answers no longer serve, of how many that do."""
    path = run.path / "ledger.sqlite"
    if not path.exists():
        return 0, 0
    ledger = Ledger(path)
    try:
        keys = {ask.key for ask in plan(before, old) if ask.key and ledger.has(ask.key)}
    finally:
        ledger.close()
    return len(keys - {ask.key for ask in plan(after, new)}) if keys else 0, len(keys)


def _replaced(before: RunConfig, after: RunConfig) -> Iterable[str]:
    for what, old, new in (
        ("source of prompts", before.prompts.named, after.prompts.named),
        ("seed", before.seed, after.seed),
        ("variant of benign prompts", before.benign_variant, after.benign_variant),
    ):
        if old != new:
            yield f"its {what} would be {new} in place of {old}"
    if gone := [name for name in before.variants if name not in after.variants]:
        yield f"the variants {', '.join(gone)} would go"
    named: set[str] = set()
    for role in ("reasoning", "general"):
        old, new = getattr(before.roles, role), getattr(after.roles, role)
        entry, other = before.teachers.get(old), after.teachers.get(new)
        if entry is None or (old == new and (other is None or entry.model == other.model)):
            continue
        line = f"its teacher {old} ({entry.model}) would be replaced by {new}{f' ({other.model})' if other else ''}"
        if line not in named:
            named.add(line)
            yield line
