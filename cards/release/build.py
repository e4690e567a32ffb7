"""Accepted rows to a release folder.

Reads a run's tables; writes, all at once or not at all,

    release/
      README.md           the card
      data/<config>/train-00000-of-00001.parquet    (a further shard every 500 MB)
      objectives/<config>/train-*.parquet    pairs, labels, prompts, steps, where `release.configs` names them
      prompts.jsonl       all prompts of the run, for `saferthoughts regenerate`
      lineage.json        teachers, settings, instructions, rubrics, hashes, counts
      CHANGELOG.md        what differs from the release before
      LICENSE
      plots/              patterns, lengths and survival, as SVG and PNG
      croissant.json      the same for machines that read Croissant
      CITATION.cff        how to cite the release
      checksums.sha256

Run it with `saferthoughts release build RUN`; read it with `datasets.load_dataset("runs/RUN/release", "improved")`.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc

from cards.card.citation import citation
from cards.card.croissant import croissant_json
from cards.card.dataset_card import dataset_card
from cards.card.validator import check_card
from cards.compare import check_version, compare, lines_of, proposed
from cards.objectives.build import write_objectives
from cards.release.lineage import lineage_of
from cards.rows.prompts_file import write_prompts
from cards.rows.rows import configs_of, count_configs, public_rows, released_rows, released_views
from cards.rows.schema import COLUMNS, schema_of
from cards.rows.shards import SHARD_BYTES, ConfigWriter, Written, read_shards
from curation.report.charts import plot_files
from curation.review.gate import check_gate
from pipelines.errors import Incomplete, UserError
from pipelines.freshness import require_fresh
from pipelines.progress import meter
from pipelines.prompts.prompt_sets import UNKNOWN_LICENSE
from pipelines.records import content_id
from pipelines.runs import RunFolder, atomic_folder, file_hash, write_json, write_text
from pipelines.settings.config import Release, RunConfig, load_config
from pipelines.settings.parts import validated

# Characters of each text in the card's sample row.
_SAMPLE_LENGTH = 300


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """Where the release is, its version, and how many rows each configuration has."""

    folder: Path
    version: str
    rows: dict[str, int]


def build_release(
    run: RunFolder,
    since: Path | None = None,
    version: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    license: str | None = None,
) -> ReleaseResult:
    """Build the run's release folder.

    Args:
        run: A run that is checked.
        since: The release before this one: it gives the changelog, and the version where none is wanted.
        version: The version wanted; the run's own if neither is given.
        shard_bytes: About how large a parquet file grows.
        license: The licence; the run's own if not given.

    Raises:
        Incomplete: no text of a teacher is among the accepted rows, or people's review does not meet what the run
            requires.
        UserError: a table is missing, no row was accepted, the version understates what differs from the release
            before, nobody said under which licence imported rows of an unknown one are to be released, or the card is
            not one that the Hub takes.
    """
    config = _configured(run, version, license)
    check_gate(run)
    require_fresh(run, "accepted", "selected")
    run_id = content_id(config.model_dump(mode="json"))
    folder = run.path / "release"
    with atomic_folder(folder) as temporary:
        with released_views(run, temporary / ".scratch") as db:
            counts = count_configs(db)
            if not counts:
                raise UserError(
                    f"{run.path} has no accepted rows to release. Look at the reasons: saferthoughts check {run.name}"
                )
            _check_not_fixed_alone(run, db, counts)
            written = _write_rows(db, temporary, run_id, counts, shard_bytes, config.release.reasoning_key)
            objectives = write_objectives(run, db, config.release, temporary, run_id, shard_bytes)
            lineage = lineage_of(run, db, config, run_id, {name: counts.get(name, 0) for name in configs_of(config)})
            lineage["objectives"] = objectives
        _remove_scratch(temporary)
        lineage["content"] = {name: part.content for name, part in written.items()}
        lineage["sizes"] = {
            name: {"num_bytes": part.num_bytes, "download_size": part.download_size} for name, part in written.items()
        }
        lineage["sample"] = _sample_row(temporary)
        lineage["prompt_ids"], lineage["content"]["prompts"] = write_prompts(temporary, run)
        write_text(temporary / "LICENSE", license_of(config.release))
        write_json(temporary / "lineage.json", lineage)
        lineage, changelog = _versioned(temporary, lineage, since, version)
        write_json(temporary / "lineage.json", lineage)
        write_text(temporary / "CHANGELOG.md", changelog)
        _write_card(temporary, lineage)
        _write_checksums(temporary)
    run.record("release", rows=counts, checksums=file_hash(folder / "checksums.sha256"))
    return ReleaseResult(folder, lineage["version"], counts)


def _configured(run: RunFolder, version: str | None, license: str | None) -> RunConfig:
    """The run's configuration with the version and the licence that were asked for.

    Raises:
        UserError: nobody stated a licence for imported rows of an unknown one.
    """
    config = load_config(run)
    given = {name: value for name, value in (("version", version), ("license", license)) if value is not None}
    if given:
        release = validated(Release, {**config.release.model_dump(), **given}, "the options")
        config = config.model_copy(update={"release": release})
    if license is None and config.release.license == UNKNOWN_LICENSE:
        raise UserError(
            f"The licence of the rows that {run.path} imported is unknown, so the release needs one that you state: "
            f"saferthoughts release build {run.name} --license ID (e.g. mit, cc-by-4.0; see the dataset's own page)"
        )
    return config


def _write_card(folder: Path, lineage: dict[str, Any]) -> None:
    """README.md with its plots, and croissant.json; UserError where the Hub would not take the card."""
    card = dataset_card(lineage)
    check_card(card, folder)
    write_text(folder / "README.md", card)
    for name, content in plot_files(lineage["figures"]).items():
        (folder / "plots").mkdir(exist_ok=True)
        (folder / "plots" / name).write_bytes(content)
    write_text(folder / "croissant.json", croissant_json(lineage, folder))
    write_text(folder / "CITATION.cff", citation(lineage))


def _check_not_fixed_alone(run: RunFolder, db: duckdb.DuckDBPyConnection, counts: Mapping[str, int]) -> None:
    texts = db.sql("FROM released JOIN responses USING (response_id) WHERE reasoning_source <> 'fixed' LIMIT 1")
    if not texts.fetchall():
        raise Incomplete(
            f"A release of {run.path} would hold fixed texts only ({', '.join(counts)}), and nothing that a teacher "
            f"wrote: none is built. Look at why the other rows are rejected: saferthoughts check {run.name}"
        )


def _write_rows(
    db: duckdb.DuckDBPyConnection, folder: Path, run_id: str, counts: dict[str, int], shard_bytes: int, key: str
) -> dict[str, Written]:
    """Every configuration's parquet files, in one pass over the rows."""
    schema = schema_of(COLUMNS, key)
    batches = released_rows(db, folder / ".scratch")
    with ExitStack() as stack, meter("release", total=sum(counts.values())) as shown:
        writers = {
            name: stack.enter_context(ConfigWriter(folder / "data" / name, schema, shard_bytes))
            for name in sorted(counts)
        }
        for rows in batches:
            configs = rows["config"]
            public = public_rows(rows, run_id, key)
            for name in configs.unique().to_pylist():
                writers[name].write(public.filter(pc.equal(configs, name)))
            shown.advance(rows.num_rows)
        written = {name: writer.finish() for name, writer in writers.items()}
    found = {name: part.rows for name, part in written.items()}
    if found != counts:
        raise RuntimeError(f"{counts} rows were to be written, but {found} were")
    return written


def _sample_row(folder: Path) -> dict[str, Any] | None:
    """A benign row with a short prompt, its texts cut, for the card; None where the release has no benign row."""
    rows = next(read_shards(folder, "benign"), None)
    if rows is None or not rows.num_rows:
        return None
    shortest = min(range(rows.num_rows), key=lambda at: (len(rows["query"][at].as_py()), at))
    (row,) = rows.slice(shortest, 1).to_pylist()
    turns = [{part: _cut(text) for part, text in turn.items()} for turn in row["messages"]]
    return {**{name: _cut(value) for name, value in row.items()}, "messages": turns}


def _cut(value: Any) -> Any:
    return f"{value[:_SAMPLE_LENGTH]}..." if isinstance(value, str) and len(value) > _SAMPLE_LENGTH else value


def _remove_scratch(folder: Path) -> None:
    scratch = folder / ".scratch"
    for path in scratch.glob("*"):
        path.unlink()
    if scratch.exists():
        scratch.rmdir()


def _write_checksums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_text(folder / "checksums.sha256", sums)


def _versioned(
    folder: Path, lineage: dict[str, Any], since: Path | None, version: str | None
) -> tuple[dict[str, Any], str]:
    """The lineage with its version, and the changelog, by what differs from the release before."""
    heading = "# Changelog\n"
    if since is None:
        return lineage, f"{heading}\n## {lineage['version']}\n\n- First release.\n"
    compared = compare(since, folder)
    lineage["version"] = version or proposed(compared.versions[0], compared.step)
    check_version(compared, lineage["version"])
    earlier = since / "CHANGELOG.md"
    older = earlier.read_text(encoding="utf-8").removeprefix(heading) if earlier.exists() else ""
    lines = lines_of(compared) or ["Nothing differs in the rows."]
    changes = "".join(f"- {line}\n" for line in lines)
    return lineage, f"{heading}\n## {lineage['version']}\n\n{changes}{older}"


def license_of(release: Release) -> str:
    """The text of the release's licence: the one given, our own, or where to find it."""
    if release.license_text:
        return f"{release.license_text.strip()}\n"
    if release.license == "apache-2.0":
        return (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8")
    if release.license == UNKNOWN_LICENSE:
        return "The licence of this dataset is unknown.\n"
    return f"This dataset is licensed under {release.license}. Its text: https://spdx.org/licenses/\n"
