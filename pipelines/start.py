"""The first stage: a run folder with its configuration and its prompts.

Reads a prompt set; writes run.yaml and prompts.parquet. Run it with `saferthoughts prompts RUN`; running it again with
other options changes both, and the ledger keeps what was answered.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.config import RunConfig, save_config
from pipelines.prompt_sets import PromptPool, draw, load_pool
from pipelines.records import Prompt, to_table
from pipelines.runs import RunFolder, file_hash


@dataclass(frozen=True, slots=True)
class Started:
    """The run, and how many prompts of each kind it has; `duplicates` were in the source twice and are there once.

    `replaced` counts the prompts that were there before, 0 where these are the first or the same.
    """

    run: RunFolder
    harmful: int
    benign: int
    duplicates: int
    replaced: int = 0


def start(runs: Path, name: str, config: RunConfig) -> Started:
    """Draw the prompts of a run and write its folder.

    Raises:
        UserError: the name is no folder name, the prompt set cannot be read or has too few prompts.
    """
    wanted = config.prompts
    pool = load_pool(wanted.source, wanted.kind)
    drawn = draw(pool, wanted.harmful, wanted.benign, config.seed, wanted.bare_share)
    run = RunFolder.create(runs, name)
    before = run.stage("prompts")
    save_config(run, config)
    run.write("prompts", to_table(Prompt, drawn))
    outputs = {"prompts.parquet": file_hash(run.table_path("prompts"))}
    harmful = sum(prompt.kind == "harmful" for prompt in drawn)
    run.record(
        "prompts",
        outputs=outputs,
        pool=_facts(pool),
        counts={"harmful": harmful, "benign": len(drawn) - harmful},
    )
    changed = before is not None and before["outputs"] != outputs
    replaced = sum(before["counts"].values()) if before is not None and changed else 0
    return Started(run, harmful, len(drawn) - harmful, pool.duplicates, replaced)


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
