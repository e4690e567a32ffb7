"""Whatever was made while `direct` was called `default`: runs, releases, recipes, sweeps, results and typed names."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cards.compare import compare
from cards.release.build import build_release
from cards.release.regenerate import Answering, regenerate
from cards.release_folder import lineage_now
from curation.quality.checks import check
from curation.report.data import figures_of
from curation.selection import select
from curation.sql.query import query
from eval.report.paper_results import study_row
from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.records import Response, from_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, load_config, save_config
from pipelines.settings.old_names import all_names_now, first_name, keys_now, rows_now
from pipelines.settings.options import Options, configured
from pipelines.settings.parts import validated
from pipelines.teachers.ledger import Ledger
from saferthoughts.cli.app import app
from service.rows.columns import filter_of
from training.mixtures.mixture import draw
from training.mixtures.mixture_rows import load_blend
from training.recipes.recipe import Recipe, load_recipe
from training.sweeps.sweep import Sweep, members_of
from training.sweeps.sweep_run import _where_it_is
from training.trainer.checkpoints import fingerprint_of


def renamed_back(path: Path) -> None:
    """A table as it was written before: what `rows_now` changes, the other way round."""
    table = pq.read_table(path)
    for name in ("variant", "config"):
        if name in table.column_names:
            old = ["default" if value == "direct" else value for value in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(old, pa.string()))
    pq.write_table(table, path)


def text_renamed_back(path: Path) -> None:
    text = re.sub(r'"direct"', '"default"', path.read_text())
    path.write_text(re.sub(r"(?m)^(- |benign_variant: )direct$", r"\1default", text))


@pytest.fixture(scope="module")
def made_before(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was generated, judged, repaired and selected before the name changed, and beside it its release."""
    folder = tmp_path_factory.mktemp("before")
    run = RunFolder(Path(shutil.copytree(judged_once, folder / "small")))
    # All variants were repaired and checked for patterns then.
    config = load_config(run)
    everyone = {"variants": config.variants}
    changes = {key: getattr(config, key).model_copy(update=everyone) for key in ("repair", "checks")}
    save_config(run, config.model_copy(update=changes))
    repair(run)
    check(run)
    select(run)
    save_config(run, config)
    for table in ("responses", "failed", "selected"):
        renamed_back(run.table_path(table))
    for name in ("manifest.json", "run.yaml"):
        text_renamed_back(run.path / name)
    assert "- default\n" in (run.path / "run.yaml").read_text()
    assert '"default": {' in (run.path / "manifest.json").read_text()
    built = RunFolder(Path(shutil.copytree(run.path, folder / "built")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.freshness.stale", lambda run, *tables: [])
        shutil.move(build_release(built).folder, folder / "release")
    release_renamed_back(folder / "release")
    return folder


def release_renamed_back(folder: Path) -> None:
    """A release's folder, card and lineage as they were before."""
    (folder / "data" / "direct").rename(folder / "data" / "default")
    text_renamed_back(folder / "lineage.json")
    lineage = json.loads((folder / "lineage.json").read_text())
    for entry in lineage["variants"].values():
        for key in ("repaired", "pattern_checked", "flagged"):
            del entry[key]
    (folder / "lineage.json").write_text(json.dumps(lineage))
    card = (folder / "README.md").read_text()
    card = re.sub(r"  default: true\n", "", card).replace("config_name: direct", "config_name: default")
    (folder / "README.md").write_text(card.replace("data/direct/", "data/default/"))


@pytest.fixture
def before(made_before: Path, tmp_path: Path) -> RunFolder:
    """The run of before, the test's own to change."""
    return RunFolder(Path(shutil.copytree(made_before / "small", tmp_path / "runs" / "small")))


@pytest.fixture
def release(made_before: Path, tmp_path: Path) -> Path:
    """The release of before, the test's own to change."""
    return Path(shutil.copytree(made_before / "release", tmp_path / "release"))


def test_a_run_of_before_goes_on_and_asks_nothing_again(before: RunFolder) -> None:
    ids = {row.response_id: row.variant for row in from_table(Response, before.read("responses")) if not row.attempt}
    assert set(ids.values()) >= {"direct", "improved"}
    answers = Ledger(before.path / "ledger.sqlite").totals().answers
    asked = generate(before).asked
    assert asked == 0
    assert Ledger(before.path / "ledger.sqlite").totals().answers == answers
    # Rows keep their ids, by which people's votes and earlier releases know them.
    assert {row.response_id: row.variant for row in from_table(Response, before.read("responses"))} == ids
    assert "default" not in pq.read_table(before.table_path("responses"))["variant"].to_pylist()


def test_tables_of_before_say_the_new_name_everywhere(before: RunFolder) -> None:
    assert load_config(before).variants[0] == load_config(before).benign_variant == "direct"
    found = query(before, "SELECT DISTINCT variant FROM responses ORDER BY 1")["variant"].to_pylist()
    assert "direct" in found
    assert "default" not in found
    assert "direct" in query(before, "SELECT DISTINCT config FROM selected")["config"].to_pylist()
    figures = figures_of(before)
    assert {part["config"] for part in figures["funnel"]} >= {"direct", "benign"}
    assert '"default"' not in json.dumps(figures)


def test_another_release_of_such_a_run_has_the_same_rows_by_id(before: RunFolder, release: Path) -> None:
    found = {row.config: row for row in compare(release, build_release(before).folder).rows}
    assert found["direct"].before > 0
    assert (found["direct"].added, found["direct"].removed, found["direct"].changed) == (0, 0, 0)


def test_a_release_of_before_regenerates_compares_and_trains(release: Path, tmp_path: Path) -> None:
    done = regenerate(release, tmp_path / "runs", "again", Answering("rehearsal", "rehearsal-general"))
    assert load_config(done).variants[0] == "direct"
    assert (
        lineage_now(release)["rows"]["direct"] == json.loads((release / "lineage.json").read_text())["rows"]["default"]
    )
    rows = draw(release, load_blend({"direct": 2, "benign": 1}).release, 1, tmp_path / "cache").counts()
    assert {name: sum(kinds.values()) for name, kinds in rows.items()} == {"direct": 2, "benign": 1}


def test_a_lineage_with_both_names_is_refused(release: Path) -> None:
    lineage = json.loads((release / "lineage.json").read_text())
    lineage["variants"]["direct"] = lineage["variants"]["default"]
    (release / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(UserError, match="'default' and 'direct' are one variant: 'direct' is its name now"):
        lineage_now(release)


def test_what_is_typed_by_the_old_name_is_taken_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(
        Options(
            teacher="rehearsal", variants=("default",), sets=("benign_variant=default", "repair.variants=[default]")
        )
    )
    assert (config.variants, config.benign_variant, config.repair.variants) == (("direct",), "direct", ("direct",))
    recipe = tmp_path / "old.yaml"
    recipe.write_text("mixture: {default: 1000, benign: 100}\n")
    assert load_recipe(str(recipe)).mixture == {"direct": 1000, "benign": 100}
    assert capsys.readouterr().err.count("variant 'default' is called 'direct' now") == 4


def test_the_command_line_takes_the_old_name(tmp_path: Path) -> None:
    words = ["--runs", str(tmp_path), "prompts", "mine", "--teacher", "rehearsal", "--variant", "default"]
    done = CliRunner().invoke(app, [*words, "--harmful", "2", "--benign", "1"])
    assert done.exit_code == 0
    assert "variants direct;" in done.output
    assert RunFolder.open(tmp_path, "mine").path.joinpath("run.yaml").read_text().count("default") == 0


def test_settings_of_a_mixture_reach_the_variant_by_both_names(tmp_path: Path) -> None:
    from pipelines.settings.overrides import settings_of

    recipe = tmp_path / "old.yaml"
    recipe.write_text("mixture: {default: 1000, benign: 100}\n")
    for name in ("default", "direct"):
        assert load_recipe(str(recipe), settings_of([f"mixture.{name}=5"])).mixture == {"direct": 5, "benign": 100}
    recipe.write_text("mixture: {default: 1000, direct: 100}\n")
    with pytest.raises(UserError, match="are one variant"):
        load_recipe(str(recipe))


def test_students_and_sweeps_of_before_are_the_same_ones(tmp_path: Path) -> None:
    old, new = ({"mixture": {name: 10, "benign": 2}} for name in ("default", "direct"))
    first = fingerprint_of(Recipe.model_validate(old), "rows", "weights")
    assert first == fingerprint_of(Recipe.model_validate(new), "rows", "weights")
    sweep = Sweep(recipe="smollm2-135m-cpu", dataset="somewhere", grids={"variants": {"mixture": [{"default": 10}]}})
    (member,) = members_of(sweep, None, None, None, [])
    assert member.name == "mixture=direct_10"
    (tmp_path / "mixture=default_10").mkdir()
    assert _where_it_is(member, tmp_path).name == "mixture=default_10"


def test_the_study_and_filters_know_both_names() -> None:
    model = "DeepSeek-R1-Distill-Qwen-7B"
    assert study_row(model, "default") == study_row(model, "direct") != None  # noqa: E711
    other = study_row(model, "default@Gemini-2.5-Pro")
    assert other is not None
    assert other.method == "direct@Gemini-2.5-Pro"
    assert filter_of("variant:eq:default") == filter_of("variant:eq:direct")


def test_names_that_only_look_like_the_old_one_stay() -> None:
    values = {"teacher": "default", "requests": {"default": 1}, "variants": ["default"], "inner": {"config": "default"}}
    assert all_names_now(values) == {
        "teacher": "default",
        "requests": {"default": 1},
        "variants": ["direct"],
        "inner": {"config": "direct"},
    }
    assert first_name("direct") == "default"
    assert keys_now({"default": 1, "x": 2}) == {"direct": 1, "x": 2}
    assert rows_now(pa.table({"config": ["default", None]})).to_pylist() == [{"config": "direct"}, {"config": None}]
    teachers = {
        "teachers": {"t": {"model": "m", "base_url": "http://127.0.0.1:1", "extra_body": {"variant": "default"}}}
    }
    assert validated(RunConfig, teachers, "x").teachers["t"].extra_body == {"variant": "default"}
