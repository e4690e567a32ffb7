"""The first stage: a run folder with its configuration and its prompts.

Reads a prompt set; writes run.yaml and prompts.parquet. Run it with `saferthoughts prompts RUN`; running it again with
other options changes what they name, keeps the prompts that it can, and loses none without consent.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.generate.plan import prompts_of
from pipelines.prompts.growth import drawn_or_grown
from pipelines.prompts.prompt_files import load_files, load_pool
from pipelines.prompts.prompt_sets import PromptPool
from pipelines.records import Prompt, to_table
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.changes import Consent, agree, is_imported, refuse
from pipelines.settings.config import RunConfig, change_config, load_config, save_config
from pipelines.settings.options import Options, configured


@dataclass(frozen=True, slots=True)
class PromptsResult:
    """The run, and how many prompts of each kind it has; `duplicates` were in the source twice and are there once.

    `unread` are the columns of its file of which nothing was made. `kept` and `gone` count the prompts of an earlier
    call that are still there, and those that are not.
    """

    run: RunFolder
    harmful: int
    benign: int
    duplicates: int
    kept: int = 0
    gone: int = 0
    unread: tuple[str, ...] = ()


def start_or_change(runs: Path, name: str, options: Options, consent: Consent = refuse) -> PromptsResult:
    """Start a run by the options, or change a run that exists by what they name.

    Raises:
        UserError: options that do not fit, a source that cannot be read, no consent to what a change would lose.
    """
    folder = RunFolder(runs / name)
    if not (folder.path / "run.yaml").exists():
        return start(runs, name, configured(options), consent)
    if not (folder.path / "manifest.json").exists():  # it was deleted, as the error about it says
        return start(runs, name, configured(options, load_config(folder)), consent)
    run = RunFolder.open(runs, name)
    imported, before = is_imported(run), load_config(run)
    after = configured(options, before, asks=not imported)
    drawing = options.draws() or not options.given() or (after.prompts, after.seed) != (before.prompts, before.seed)
    if imported and drawing:
        raise UserError(f"{run.path} holds an imported dataset, whose prompts are not drawn. Give a new run's name.")
    if drawing or not run.table_path("prompts").exists():
        return start(runs, name, after, consent)
    if after != before:
        agree(run, before, after, None, consent)
        change_config(run, lambda now: configured(options, now, asks=not imported))
    kinds = [prompt.kind for prompt in prompts_of(run)]
    return PromptsResult(run, kinds.count("harmful"), kinds.count("benign"), 0, len(kinds))


def start(runs: Path, name: str, config: RunConfig, consent: Consent = refuse) -> PromptsResult:
    """Draw the prompts of a run and write its folder.

    Raises:
        UserError: the name is no folder name, the prompt set cannot be read or has too few prompts, or there is a run
            that would lose something, and no consent to it.
    """
    wanted = config.prompts
    if wanted.files:
        pool = load_files({str(part): place for part, place in wanted.files.items()}, wanted.columns)
    else:
        pool = load_pool(wanted.source, wanted.kind, wanted.columns)
    folder = RunFolder(runs / name)
    has_some = (folder.path / "run.yaml").exists() and folder.table_path("prompts").exists()
    before, present = (load_config(folder), list(prompts_of(folder))) if has_some else (None, [])
    drawn = drawn_or_grown(pool, config, before, present)
    if before is not None:
        agree(RunFolder.create(runs, name), before, config, drawn, consent)
    run = RunFolder.create(runs, name)
    kept = len({prompt.prompt_id for prompt in drawn} & {prompt.prompt_id for prompt in present})
    save_config(run, config)
    run.write("prompts", to_table(Prompt, drawn))
    harmful = sum(prompt.kind == "harmful" for prompt in drawn)
    run.record(
        "prompts",
        outputs={"prompts.parquet": file_hash(run.table_path("prompts"))},
        pool=_facts(pool),
        counts={"harmful": harmful, "benign": len(drawn) - harmful},
        # A larger number later on gives other prompts than at once: those that were there stay.
        kept_from_earlier=kept,
    )
    return PromptsResult(run, harmful, len(drawn) - harmful, pool.duplicates, kept, len(present) - kept, pool.unread)


def _facts(pool: PromptPool) -> dict[str, str | int]:
    return {
        "name": pool.name,
        "source": pool.source,
        "license": pool.license,
        "sha256": pool.content_hash,
        "behaviours": len(pool.behaviours),
        "templates": len(pool.templates),
        "duplicates_dropped": pool.duplicates,
    }
