"""The release folder: what people load, whole or not at all, the same bytes for the same rows."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas
import pyarrow as pa
import pytest

from cards.card.dataset_card import dataset_card
from cards.card.validator import front_matter_of
from cards.release.build import build_release
from cards.rows.row_order import cut, parts_of
from curation.quality.checks import check
from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.judges.stage import judge
from pipelines.prompts.stage import start
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.options import Options, configured
from pipelines.thinking import join
from tests.commands import command

CONFIGS = ["direct", "realsafe", "improved", "short", "template", "nocot", "benign"]
HOUSE_COLUMNS = [
    *("id", "messages", "query", "reasoning", "answer", "config", "variant", "kind", "category", "behaviour_id"),
    *("template_id", "prompt_id", "source", "source_license", "teacher", "sampling", "finish_reason"),
    *("reasoning_source", "attempts", "parent_id", "lack_of_safety_awareness", "overthinking", "strong_vacillation"),
    *("weak_vacillation", "harmful_additions", "inconsistency", "judge", "safety_verdict", "compliance"),
    *("disagreement", "evidence", "judgements", "unscored_reason", "review_votes", "input_tokens", "output_tokens"),
    "run_id",
]


def load(run: RunFolder, config: str) -> datasets.Dataset:
    return datasets.load_dataset(str(run.path / "release"), config, split="train", cache_dir=str(run.path / "cache"))


def test_load_dataset_reads_every_config(released: RunFolder) -> None:
    assert datasets.get_dataset_config_names(str(released.path / "release")) == CONFIGS
    for config in CONFIGS:
        assert load(released, config).column_names == HOUSE_COLUMNS


def test_two_releases_in_folders_of_one_name_are_not_taken_for_each_other(released: RunFolder, tmp_path: Path) -> None:
    """`datasets` keeps what it read under the folder's name; what is in the card must tell the two apart."""
    first = shutil.copytree(released.path / "release", tmp_path / "first" / "release")
    released.write("accepted", released.read("accepted").slice(3))
    build_release(released)
    lengths = []
    for folder in (first, released.path / "release", first):
        names = datasets.get_dataset_config_names(str(folder))
        loaded = [
            datasets.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "one")) for name in names
        ]
        lengths.append({name: len(rows) for name, rows in zip(names, loaded, strict=True)})
    assert lengths[0] == lengths[2]
    assert sum(lengths[0].values()) == sum(lengths[1].values()) + 3


def test_rows_are_the_accepted_ones_each_in_its_config(released: RunFolder) -> None:
    accepted = set(released.read("accepted")["response_id"].to_pylist())
    found = [row_id for config in CONFIGS for row_id in load(released, config)["id"]]
    assert sorted(found) == sorted(accepted)
    assert set(load(released, "benign")["kind"]) == {"benign"}
    assert set(load(released, "improved")["kind"]) == {"harmful"}


def test_messages_hold_the_bare_prompt_and_the_canonical_string(released: RunFolder) -> None:
    prompts = {prompt.text for prompt in from_table(Prompt, released.read("prompts"))}
    for row in load(released, "improved"):
        user, assistant = row["messages"]
        assert user == {"role": "user", "content": row["query"]}
        assert row["query"] in prompts
        assert assistant == {"role": "assistant", "content": join(row["reasoning"], row["answer"])}


def test_duckdb_reads_the_files_as_they_are(released: RunFolder) -> None:
    pattern = released.path / "release" / "data" / "improved" / "train-*.parquet"
    (count,) = duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall()[0]  # noqa: S608
    assert count == len(load(released, "improved"))


def test_the_same_rows_give_the_same_bytes_in_any_order(released: RunFolder) -> None:
    before = (released.path / "release" / "checksums.sha256").read_text()
    responses = from_table(Response, released.read("responses"))
    released.write("responses", to_table(Response, responses[::-1]))
    judge(released)
    check(released)
    build_release(released)
    assert (released.path / "release" / "checksums.sha256").read_text() == before


def test_many_rows_in_parts_give_the_bytes_of_one(released: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows stand for millions of them; the files of one table are open at a time."""
    before = (released.path / "release" / "checksums.sha256").read_text()
    rows = released.read("accepted").num_rows
    monkeypatch.setattr("cards.rows.row_order._PART_ROWS", 1)
    monkeypatch.setattr("cards.rows.row_order._MOST_PARTS", 5)
    monkeypatch.setattr("cards.rows.rows.BATCH", 3)
    assert len(parts_of(iter([pa.record_batch({"id": [str(n)]}) for n in range(rows)]), rows)) == 5
    parts: list[int] = []

    def watched(*arguments: Any) -> list[Path]:
        paths = cut(*arguments)
        parts.append(len(paths))
        assert not [one for one in Path("/proc/self/fd").iterdir() if str(one.resolve()).endswith(".arrow")]
        return paths

    monkeypatch.setattr("cards.rows.rows.cut", watched)
    build_release(released)
    assert parts == [5] * 5
    assert (released.path / "release" / "checksums.sha256").read_text() == before


def test_two_runs_with_one_seed_give_the_same_parquet(released: RunFolder, tmp_path: Path) -> None:
    other = start(
        tmp_path / "other", "another-name", configured(Options(harmful=12, benign=6, seed=5, teacher="rehearsal"))
    ).run
    generate(other)
    judge(other)
    repair(other)
    check(other)
    build_release(other)
    ours, theirs = (
        {
            path.relative_to(run.path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (run.path / "release" / "data").rglob("*.parquet")
        }
        for run in (released, other)
    )
    assert ours == theirs
    assert len(ours) == len(CONFIGS)


def test_checksums_name_every_file_and_fit(released: RunFolder) -> None:
    folder = released.path / "release"
    lines = (folder / "checksums.sha256").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == files - {"checksums.sha256"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == value for name, value in listed.items())


def test_no_accepted_rows_leave_the_old_release_alone(released: RunFolder) -> None:
    before = (released.path / "release" / "checksums.sha256").read_text()
    released.write("accepted", released.read("accepted").slice(0, 0))
    with pytest.raises(UserError, match="no accepted rows"):
        build_release(released)
    assert (released.path / "release" / "checksums.sha256").read_text() == before


def test_a_rehearsal_release_says_so_first_and_is_tagged(released: RunFolder) -> None:
    card = (released.path / "release" / "README.md").read_text()
    front, body = card.split("---\n")[1:3]
    assert ", rehearsal]\n" in front
    assert body.lstrip().startswith("**Made by the rehearsal teacher")


def test_a_release_of_a_real_teacher_does_not_call_itself_a_rehearsal() -> None:
    lineage = json.loads((Path(__file__).parent / "lineage.json").read_text())
    lineage["rehearsal"] = False
    card = dataset_card(lineage)
    assert "rehearsal" not in front_matter_of(card)["tags"]
    assert "Made by the rehearsal teacher" not in card


def test_prompts_of_a_release_that_was_made_again_were_not_drawn() -> None:
    lineage = json.loads((Path(__file__).parent / "lineage.json").read_text())
    before = {"run_id": "0123456789abcdef", "version": "2.1.0", "title": "Theirs"}
    card = dataset_card(lineage | {"regenerated_from": before})
    assert "prompts are those of an earlier release, Theirs 2.1.0 (run 0123456789abcdef), which has them from" in card
    assert "were drawn from" not in card


def test_the_card_is_the_golden_one() -> None:
    here = Path(__file__).parent
    assert dataset_card(json.loads((here / "lineage.json").read_text())) == (here / "card.golden.md").read_text()


def test_numbers_on_the_card_are_those_of_the_folder(released: RunFolder) -> None:
    card = (released.path / "release" / "README.md").read_text()
    for config in CONFIGS:
        assert f"| {config} | {len(load(released, config))} |" in card
    assert "{{" not in card
    assert "None" not in card


def test_a_variant_without_rows_has_no_config(judged: RunFolder) -> None:
    responses = from_table(Response, judged.read("responses"))
    judged.write("responses", to_table(Response, [r for r in responses if r.variant != "short"]))
    judge(judged)
    repair(judged)
    check(judged)
    build_release(judged)
    assert "short" not in datasets.get_dataset_config_names(str(judged.path / "release"))
    assert not (judged.path / "release" / "data" / "short").exists()


def test_a_build_on_a_full_disk_leaves_no_trace(judged: RunFolder, small_disk: Callable[[int], Path]) -> None:
    check(judged)
    size = sum(path.stat().st_size for path in judged.path.rglob("*") if path.is_file())
    # Room for the run and for a part of its release.
    disk = small_disk(size + 200_000)
    run = RunFolder(shutil.copytree(judged.path, disk / "small"))
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        build_release(run)
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_the_same_rows_give_the_same_bytes_on_any_number_of_threads(released: RunFolder) -> None:
    sums = set()
    for threads in ("1", "7"):
        shutil.rmtree(released.path / "release")
        env = {**os.environ, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        words = ["--runs", str(released.path.parent), "release", "build", released.name]
        # DuckDB takes as many threads as the process has processors.
        done = command(words, env=env, processors=int(threads))
        assert done.returncode == 0, done.stderr
        sums.add((released.path / "release" / "checksums.sha256").read_text())
    assert len(sums) == 1


def test_pandas_reads_what_datasets_reads(released: RunFolder) -> None:
    rows = pandas.read_parquet(released.path / "release" / "data" / "improved")
    assert list(rows.columns) == HOUSE_COLUMNS
    assert list(rows["id"]) == list(load(released, "improved")["id"])


def test_release_needs_a_check_first(judged: RunFolder) -> None:
    shutil.rmtree(judged.path / "release", ignore_errors=True)
    with pytest.raises(UserError, match="saferthoughts check small"):
        build_release(judged)
