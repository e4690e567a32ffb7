"""Import of a third-party dataset as a run, so that it can be checked like one of ours.

Reads what `reading.py` reads; writes a run folder with run.yaml, prompts, responses and failed, the rows that could not
be read with their reasons. Run it with `saferthoughts check RUN --dataset PATH_OR_REPO --map answer=completion`.
Nothing of it was generated here: `saferthoughts repair RUN --teacher NAME` says who is asked for flagged rows.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from curation.datasets.reading import TEACHER, DatasetRows, is_release, read_dataset
from pipelines.errors import UserError
from pipelines.prompts.prompt_sets import UNKNOWN_LICENSE
from pipelines.prompts.variant import load_variants
from pipelines.public_names import public_name
from pipelines.records import Prompt, Response, content_id, to_table
from pipelines.runner.failures import Failure, count
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import Roles, RunConfig, load_config, save_config
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import load_teachers
from pipelines.sources import Source, digest_of

_REFUSED = pa.schema([("row", pa.int64()), ("error", pa.string())])


def import_dataset(
    runs: Path, name: str, source: Source, mapping: Mapping[str, str], kind: str | None, variant: str = "direct"
) -> RunFolder:
    """Make the run; the arguments as for `read_dataset`.

    Raises:
        UserError: as `read_dataset`, or no row can be used, or the run was generated.
    """
    found = read_dataset(source, mapping, kind, variant)
    if not found.responses:
        raise UserError(
            f"None of the {found.count} rows of {source.hub} could be read; the first: {found.refused[0][1]}."
        )
    return _written(runs, name, source, found)


def _written(runs: Path, name: str, source: Source, found: DatasetRows) -> RunFolder:
    prompts, responses = found.prompts, found.responses
    run = RunFolder.create(runs, name)
    if run.stage("generate") is not None and run.stage("import") is None:
        raise UserError(f"{run.path} is a run that was generated. Check a dataset under another name.")
    used = {item.variant for item in responses.values()}
    # Read again, a dataset keeps its run's judges and thresholds.
    config = load_config(run) if (run.path / "run.yaml").exists() else RunConfig()
    release = config.release
    if any(prompt.source_license == UNKNOWN_LICENSE for prompt in prompts.values()):
        # No licence of ours is put on rows of others; whoever builds a release states one.
        release = release.model_copy(update={"license": UNKNOWN_LICENSE, "license_text": None})
    changes = {"release": release, "variants": tuple(name for name in load_variants() if name in used)}
    if not config.teachers:
        changes["roles"] = Roles(reasoning=TEACHER, general=TEACHER)
    save_config(run, resolve(config.model_copy(update=changes), load_teachers(), asks=bool(config.teachers)))
    run.write("prompts", to_table(Prompt, sorted(prompts.values(), key=lambda item: item.prompt_id)))
    run.write("responses", to_table(Response, sorted(responses.values(), key=lambda item: item.response_id)))
    run.write("failed", pa.table(list(map(list, zip(*found.refused, strict=True))) or [[], []], schema=_REFUSED))
    for stale in ("repairs", "duplicates", "contamination", "selected"):
        run.table_path(stale).unlink(missing_ok=True)
    harmful = sum(item.kind == "harmful" for item in prompts.values())
    pool = {
        "name": public_name(source.hub),
        "source": public_name(source.hub),
        "license": "; ".join(sorted({prompt.source_license for prompt in prompts.values()})),
        "sha256": content_id(sorted(prompts)),
        "behaviours": len({item.behaviour_id for item in prompts.values()}),
        "templates": len({item.template_id for item in prompts.values()} - {""}),
        "duplicates_dropped": 0,
    }
    counts = {
        "planned": len(responses) + len(found.refused),
        "kept": len(responses),
        "failed": len(found.refused),
        "asked": 0,
    }
    run.record(
        "import",
        source=source.model_dump(mode="json"),
        release=is_release(source),
        digest=digest_of(source),
        unread=list(found.unread),
        counts=counts,
        failures=count(Failure(reason, True) for _, reason in found.refused).record(),
    )
    run.record("prompts", pool=pool, counts={"harmful": harmful, "benign": len(prompts) - harmful})
    run.record(
        "generate",
        outputs={f"{table}.parquet": file_hash(run.table_path(table)) for table in ("responses", "failed")},
        counts=counts,
    )
    return run
