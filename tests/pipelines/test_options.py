"""Configuration: flags over file over defaults, every name checked, no key ever stored."""

from pathlib import Path

import pytest
import yaml

from pipelines.errors import UserError
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, load_config, save_config
from pipelines.settings.options import Options, configured
from pipelines.settings.teacher import load_teachers


def test_the_rehearsal_teacher_answers_all_six_variants_where_it_is_named_and_only_there() -> None:
    config = configured(Options(teacher="rehearsal"))
    assert config.variants == ("direct", "realsafe", "improved", "short", "template", "nocot")
    assert set(config.teachers) == {"rehearsal", "rehearsal-general"}
    with pytest.raises(UserError, match=r"No teacher is named\..*--teacher rehearsal"):
        configured(Options())
    assert configured(Options(variants=("nocot",), sets=("benign_variant=nocot",))).teachers == {}


def test_flags_win_over_the_file_and_set_wins_over_flags(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nprompts: {harmful: 5, benign: 6}\nroles: {reasoning: openai}\n")
    config = configured(Options(config=file, harmful=7, sets=("prompts.bare_share=0.25", "seed=3")))
    assert (config.seed, config.prompts.harmful, config.prompts.benign, config.prompts.bare_share) == (3, 7, 6, 0.25)


def test_one_named_teacher_answers_every_variant_unless_a_general_one_is_given() -> None:
    assert configured(Options(teacher="deepseek")).roles.general == "deepseek"
    assert configured(Options(teacher="deepseek", general_teacher="openai")).roles.general == "openai"


def test_an_endpoint_from_flags_is_a_teacher() -> None:
    config = configured(Options(base_url="http://127.0.0.1:9/v1", model="m"))
    assert config.teachers["m"].model == "m"
    named = configured(Options(base_url="http://127.0.0.1:9/v1", model="lab/My R1:8b", name="mine"))
    assert named.roles.reasoning == named.roles.general == "mine"
    assert set(configured(Options(base_url="http://127.0.0.1:9/v1", model="lab/My R1:8b")).teachers) == {"My-R1-8b"}
    # The judge `openai` must not become this endpoint.
    assert set(configured(Options(base_url="http://127.0.0.1:9/v1", model="lab/openai")).teachers) == {
        "openai-endpoint"
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(teacher="depseek"), "Unknown teacher 'depseek'. Did you mean 'deepseek'?"),
        (Options(variants=("shrot",)), "Unknown variant 'shrot'. Did you mean 'short'?"),
        (Options(sets=("prompts.harmfull=3",)), "Unknown key of prompts in --set 'harmfull'. Did you mean 'harmful'?"),
        (Options(sets=("seed",)), "--set takes key=value"),
        (Options(sets=("seed.x=1",), seed=4), "'seed.x' cannot be set"),
        (Options(teacher="rehearsal", sets=("prompts.bare_share=2",)), "less than or equal to 1"),
        (Options(model="m"), "--base-url and --model go together"),
        (Options(config=Path("nowhere.yaml")), "There is no file nowhere.yaml"),
    ],
)
def test_bad_options_are_one_clear_line(options: Options, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        configured(options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_teachers_add_to_the_shipped_ones(tmp_path: Path) -> None:
    file = tmp_path / "teachers.yaml"
    file.write_text("lab: {base_url: 'http://127.0.0.1:9/v1', model: r2, price: {input: 1.0, output: 2.0}}\n")
    teachers = load_teachers(file)
    assert teachers["lab"].price is not None
    assert teachers["lab"].price.of(1_000_000, 500_000) == 2.0
    assert "deepseek" in teachers


def test_teacher_without_an_endpoint_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "teachers.yaml"
    file.write_text("lab: {model: r2}\n")
    with pytest.raises(UserError, match="teacher 'lab'"):
        load_teachers(file)


def test_a_key_never_reaches_run_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-very-secret")
    run = RunFolder.create(tmp_path, "mine")
    save_config(run, configured(Options(teacher="deepseek")))
    text = (run.path / "run.yaml").read_text()
    assert "DEEPSEEK_API_KEY" in text
    assert "sk-very-secret" not in text


def test_run_yaml_reads_back_as_it_was(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    config = configured(Options(teacher="openai", seed=9))
    save_config(run, config)
    assert load_config(run) == config
    assert yaml.safe_load((run.path / "run.yaml").read_text())["seed"] == 9
    assert isinstance(config, RunConfig)


def test_an_instruction_file_replaces_a_variants_wording(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Be careful. {{ query }}")
    config = configured(Options(teacher="openai", instructions=(f"improved={tmp_path / 'mine.txt'}",)))
    assert config.variant("improved").messages("Q?")[0]["content"] == "Be careful. Q?"
    assert config.variant("realsafe").messages("Q?")[0]["content"].startswith("While you think")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("improved", "No slot at all.", "put {{ query }} into it"),
        ("improved", "{{ query", "is not a template"),
        ("nocot", "{{ query }}", "asks nobody"),
        ("imporved", "{{ query }}", "Unknown variant 'imporved'. Did you mean 'improved'?"),
    ],
)
def test_an_instruction_that_cannot_work_is_refused(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        configured(Options(teacher="openai", instructions=(f"{name}={tmp_path / 'mine.txt'}",)))
    assert expected in str(caught.value)
