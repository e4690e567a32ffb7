"""What docs/releases.md says of who reads a release: every line is run on a built one, as it is written."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cards.hub.describe import describe
from cards.rows.schema import COLUMNS
from saferthoughts.release import Release
from tests.commands import command

DOCS = Path(__file__).parents[2] / "docs" / "releases.md"
LINES = re.findall(
    r"^\| ([^|]+) \| `([a-z]\w*)(\.[^|]+)` \| (improved|all) \|$", DOCS.read_text(encoding="utf-8"), re.M
)


@pytest.fixture(scope="module")
def release(released_once: Path) -> Release:
    return Release(released_once / "release")


def count(read: Any) -> int:
    """The rows of whatever a reader gives."""
    if hasattr(read, "process"):
        read.load()
        return sum(len(rows) for rows, _ in read.process())
    return len(read) if hasattr(read, "__len__") else sum(1 for _ in read)


def test_the_table_has_the_readers_that_are_here() -> None:
    assert {reader for _, reader, _, _ in LINES} == {
        *("datasets", "pandas", "polars", "duckdb", "mlcroissant", "distilabel"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("reader", "line", "what"), [line[1:] for line in LINES], ids=[line[0] for line in LINES])
def test_a_reader_takes_a_release_as_it_is(
    release: Release, reader: str, line: str, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    module = importlib.import_module("distilabel.steps" if reader == "distilabel" else reader)
    names = {reader: importlib.import_module(reader), module.__name__: module}
    read = eval(f"{reader}{line}".replace("RELEASE", str(release.path)), names)  # noqa: S307 - a line of our own docs
    expected = release.rows["improved"] if what == "improved" else sum(release.rows.values())
    assert count(read) == expected


@pytest.mark.filterwarnings("ignore")
def test_scout_scans_a_release_as_the_docs_make_it_one(release: Release, tmp_path: Path) -> None:
    scout: Any = pytest.importorskip("inspect_scout", reason="inspect-scout is not installed (not of any extra)")
    import duckdb

    (line,) = re.findall(r'^duckdb\.sql\("(COPY .*TRANSCRIPTS.*)"\)$', DOCS.read_text(encoding="utf-8"), re.M)
    (tmp_path / "rows").mkdir()
    duckdb.sql(line.replace("RELEASE", str(release.path)).replace("TRANSCRIPTS", str(tmp_path / "rows")))
    words = [scout.grep_scanner(["sorry"])]
    done = scout.scan(scanners=words, transcripts=scout.transcripts_from(str(tmp_path / "rows")), scans=str(tmp_path))
    (found,) = scout.scan_results_df(done.location).scanners.values()
    assert found["transcript_task_set"].value_counts().to_dict() == release.rows
    assert found["value"].astype(float).sum() > 0


def test_nulls_are_where_the_columns_say_so(release: Release) -> None:
    import polars

    rows = polars.read_parquet(release.path / "**" / "*.parquet")
    assert rows.columns == [column.name for column in COLUMNS]
    nulls = {name for name, found in rows.null_count().to_dicts()[0].items() if found}
    assert nulls <= {column.name for column in COLUMNS if column.null != "never null"}
    assert set(rows.group_by("config").len().rows()) == set(release.rows.items())
    assert set(
        rows.filter(polars.col("kind") == "harmful").select(polars.col("config") == polars.col("variant")).rows()
    ) == {(True,)}


# Keys of a dataset's entry, as docs.axolotl.ai/docs/config-reference.html and LLaMA-Factory's data/README.md have them.
AXOLOTL = {
    *("path", "split", "type", "name", "revision", "data_files", "ds_type", "chat_template", "field_messages"),
    *("message_property_mappings", "roles_to_train", "train_on_eos", "roles"),
}
LLAMA_FACTORY = {
    *("hf_hub_url", "ms_hub_url", "script_url", "file_name", "formatting", "ranking", "subset", "folder", "columns"),
    *("tags", "split", "num_samples"),
}


def test_entries_for_other_trainers_have_documented_keys_and_find_the_rows(release: Release, tmp_path: Path) -> None:
    import datasets

    written = tmp_path / "axolotl.yaml"
    words = ["release", "describe", str(release.path), "--for", "axolotl", "--output", str(written)]
    assert command(words, tmp_path).returncode == 0
    again = command(words, tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    entries = yaml.safe_load(written.read_text())["datasets"]
    assert [entry["name"] for entry in entries] == ["improved", "benign"]
    for entry in entries:
        assert set(entry) <= AXOLOTL
        rows = datasets.load_dataset(entry["path"], entry["name"], split=entry["split"], cache_dir=str(tmp_path))
        assert entry["field_messages"] in rows.column_names
        assert set(rows[0]["messages"][0]) == set(entry["message_property_mappings"].values())
    found = yaml.safe_load(describe(release.path, "llama-factory", ["short"]))["saferthoughts_short"]
    assert set(found) <= LLAMA_FACTORY
    assert {path.suffix for path in Path(found["file_name"]).iterdir()} == {".parquet"}
    roles = [
        turn[found["tags"]["role_tag"]]
        for turn in release.table("short").to_arrow().to_pylist()[0][found["columns"]["messages"]]
    ]
    assert roles == [found["tags"]["user_tag"], found["tags"]["assistant_tag"]]


def test_entries_name_the_hub_where_the_release_was_asked_for_there(release: Release) -> None:
    from cards.hub.hub import address_of

    address = address_of("me/safe-reasoning@v1.0.0")
    (entry,) = yaml.safe_load(describe(release.path, "axolotl", ["short"], address))["datasets"]
    assert (entry["path"], entry["name"], entry["revision"]) == ("me/safe-reasoning", "short", "v1.0.0")
    found = yaml.safe_load(describe(release.path, "llama-factory", ["short"], address))["saferthoughts_short"]
    assert (found["hf_hub_url"], found["subset"]) == ("me/safe-reasoning", "short")
