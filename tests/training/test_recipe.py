from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipelines.errors import UserError
from pipelines.settings.overrides import settings_of
from training.recipes.recipe import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipe_loads_with_its_template(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.chat_template is None or "generation" in (recipe.template_text() or "")


def test_overrides_lie_over_the_file() -> None:
    texts = ["epochs=2", "learning_rate=5e-6", "mixture.benign=7", "lora={r: 8, alpha: 16}"]
    recipe = load_recipe("smollm2-135m-cpu", settings_of(texts))
    whole = load_recipe("smollm2-135m-cpu")
    assert (recipe.epochs, recipe.learning_rate) == (2, 5e-6)
    assert recipe.mixture == {**whole.mixture, "benign": 7}
    assert recipe.lora is not None
    assert (recipe.lora.r, recipe.lora.alpha) == (8, 16)
    assert recipe.batch_size == whole.batch_size


def test_a_mixture_may_be_replaced_whole() -> None:
    assert load_recipe("smollm2-135m-cpu", settings_of(["mixture={short: 5}"])).mixture == {"short": 5}


def test_recipe_is_found_by_path_and_survives_its_own_yaml(tmp_path: Path) -> None:
    recipe = load_recipe("smollm2-135m-cpu", settings_of(["lora.r=4", "lora.alpha=8", "student=some/folder"]))
    path = tmp_path / "mine.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert set(yaml.safe_load(recipe.to_yaml())) == set(Recipe.model_fields) - {"dpo", "kto", "rm", "grpo"}


def test_a_recipe_takes_what_it_leaves_out_from_the_one_that_it_extends(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text("extends: qwen3-8b-lora\nepochs: 3\nlora: {r: 8, alpha: 8}\n", encoding="utf-8")
    whole, found = load_recipe("qwen3-8b-lora"), load_recipe(str(mine))
    assert found == whole.model_copy(update={"epochs": 3, "lora": found.lora})
    assert found.lora is not None
    assert found.lora.r == 8
    mine.write_text("extends: other.yaml\n", encoding="utf-8")
    other.write_text(f"extends: {mine}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.yaml extends itself"):
        load_recipe(str(mine))
    mine.write_text("extends: [qwen3-8b-full]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"Unknown recipe '\['qwen3-8b-full'\]'"):
        load_recipe(str(mine))


def test_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("smollm2-135m-cpu").epochs = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("smolm2-135m-cpu", "", r"Unknown recipe 'smolm2-135m-cpu'. Did you mean 'smollm2-135m-cpu'\?"),
        ("nowhere/mine.yaml", "", "no recipe file 'nowhere/mine.yaml'"),
        ("smollm2-135m-cpu", "epoch=2", r"Unknown key in --set 'epoch'. Did you mean 'epochs'\?"),
        (
            "smollm2-135m-cpu",
            "lora.rank=4",
            r"Unknown key of lora in --set 'rank'. .*r, alpha\. It is in --set lora.rank=4",
        ),
        ("smollm2-135m-cpu", "epochs.more=4", "'epochs.more' cannot be set .*'epochs' is no mapping"),
        ("smollm2-135m-cpu", "epochs=0", r"epochs: input should be greater than 0 \(it is 0\)"),
        ("smollm2-135m-cpu", "learning_rate=fast", r"learning_rate: input should be a valid number.*'fast'"),
        ("smollm2-135m-cpu", "learning_rate=.nan", "learning_rate"),
        ("smollm2-135m-cpu", "mixture={}", "mixture: dictionary should have at least 1 item"),
        ("smollm2-135m-cpu", "lora={r: 4}", "lora.alpha: field required"),
        ("smollm2-135m-cpu", "mixture={a: 1", "the value is not YAML"),
    ],
)
def test_bad_recipe_is_one_clear_line(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_recipe(name, settings_of([text] if text else []))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "message"), [("a: [1", "is not YAML"), ("- a\n- b\n", "is not a YAML mapping")])
def test_recipe_file_must_be_a_mapping(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))


def test_unknown_template_offers_the_nearest() -> None:
    recipe = load_recipe("smollm2-135m-cpu", settings_of(["chat_template=smollm"]))
    with pytest.raises(UserError, match=r"Unknown chat template 'smollm'. Did you mean 'smollm2'\?"):
        recipe.template_text()


def test_train_keeps_the_rest_of_a_named_mixture(
    release: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saferthoughts.cli.main import run_command

    words = ["train", "r1-distill-qwen-7b-full", "--student", str(tiny_student), "--dataset", str(release), "--check"]
    monkeypatch.setattr("sys.argv", ["saferthoughts", *words, "--set", "mixture.improved=2"])
    assert run_command() == 2
    output = capsys.readouterr().err
    assert "'benign'" in output
    assert "the recipe's mixture wants 100" in output
