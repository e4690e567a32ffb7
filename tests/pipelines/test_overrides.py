"""`--set key=value`: what a key reaches, what a value is read as, and what is refused."""

from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.settings.config import RunConfig
from pipelines.settings.overrides import override, safe_yaml, settings_of
from training.recipes.recipe import Recipe, load_recipe

ENTRY = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "sampling": {"max_tokens": 10, "top_p": 0.5}}
VALUES: dict[str, Any] = {
    "prompts": {"harmful": 3, "benign": 2},
    "teachers": {"my-model-v1": ENTRY, "my-model-v1.5": ENTRY},
    "instructions": {"improved": "a"},
}


def changed(*texts: str, shape: Any = RunConfig) -> Any:
    return override(VALUES, settings_of(texts), shape, {"judges": {"o3": {"kind": "patterns", "teacher": "openai-o3"}}})


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("prompts.harmful=7", ("prompts",), {"harmful": 7, "benign": 2}),
        ("prompts={harmful: 7}", ("prompts",), {"harmful": 7, "benign": 2}),
        ("prompts.harmful=null", ("prompts", "harmful"), None),
        ("prompts.harmful=", ("prompts", "harmful"), None),
        ("variants=[short, nocot]", ("variants",), ["short", "nocot"]),
        # The longest known name wins; a name that nobody knows ends before a key of an entry.
        ("teachers.my-model-v1.5.sampling.max_tokens=9", ("teachers", "my-model-v1.5", "sampling", "max_tokens"), 9),
        ("teachers.my-model-v1.sampling.max_tokens=9", ("teachers", "my-model-v1", "sampling", "top_p"), 0.5),
        ("teachers.new-v2.5.model=x", ("teachers", "new-v2.5"), {"model": "x"}),
        ("teachers.my-model-v1.price={input: 0.5, output: 2}", ("teachers", "my-model-v1", "price", "input"), 0.5),
        ("judges.o3.asks=5", ("judges", "o3"), {"kind": "patterns", "teacher": "openai-o3", "asks": 5}),
        ("teachers.my-model-v1.extra_body.a.b=[1]", ("teachers", "my-model-v1", "extra_body"), {"a": {"b": [1]}}),
        # Texts that look like something else stay what was typed; numbers that YAML takes for texts become numbers.
        ("teachers.my-model-v1.model=4.10", ("teachers", "my-model-v1", "model"), "4.10"),
        ("release.title=on", ("release", "title"), "on"),
        ("release.title=2024-01-02", ("release", "title"), "2024-01-02"),
        ("prompts.bare_share=1e-1", ("prompts", "bare_share"), 0.1),
        ("instructions.short=a.b {{ query }}", ("instructions",), {"improved": "a", "short": "a.b {{ query }}"}),
    ],
)
def test_a_setting_changes_what_it_names(text: str, path: tuple[str, ...], value: Any) -> None:
    found = changed(text)
    for part in path:
        found = found[part]
    assert found == value
    assert VALUES["prompts"] == {"harmful": 3, "benign": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed", "--set takes key=value, such as --set seed=1; it got 'seed'."),
        ("=3", "--set takes key=value"),
        ("sede=3", "Unknown key in --set 'sede'. Did you mean 'seed'?"),
        ("prompts.harmfull=3", "Unknown key of prompts in --set 'harmfull'. Did you mean 'harmful'?"),
        ("teachers.my-model-v1.in_fligt=3", "Did you mean 'in_flight'?"),
        ("prompts.harmful.more=3", "'prompts.harmful' is no mapping"),
        ("seed=[", "the value is not YAML"),
        ("seed=!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("seed=&a [*a]", "an alias refers to what it stands in"),
        ("seed=" + "[" * 5000, "nested too deep"),
        ("release.date=2024-13-45", "the value is not YAML"),
    ],
)
def test_what_cannot_be_set_is_one_line(text: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        changed(text)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


def test_aliases_that_multiply_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(Exception, match="aliases stand for more than"):
        safe_yaml("\n".join(lines))
    assert safe_yaml("a: &a [1]\nb: *a") == {"a": [1], "b": [1]}


def test_a_part_of_a_named_mixture_leaves_the_rest() -> None:
    def mixture(*texts: str) -> Any:
        return load_recipe("r1-distill-qwen-7b-full", settings_of(texts)).mixture

    assert mixture() == "safety1k+benign100"
    assert mixture("mixture.improved=500") == {"improved": 500, "benign": 100}
    assert mixture("mixture.benign=5", "mixture.short=7") == {"improved": 1000, "benign": 5, "short": 7}
    assert mixture("mixture={short: 5}", "mixture.benign=2") == {"short": 5, "benign": 2}
    with pytest.raises(UserError, match="mixture"):
        mixture("mixture.improved=0")


def test_a_part_of_a_mixture_with_other_datasets_leaves_them() -> None:
    recipe = load_recipe(
        "r1-distill-qwen-7b-full",
        settings_of(["mixture=safety1k+math4k", "mixture.improved=500", "mixture.math=2000"]),
    )
    assert not isinstance(recipe.mixture, str | dict)
    assert recipe.mixture.release == {"improved": 500}
    assert [(part.name, part.rows, part.hub) for part in recipe.mixture.further] == [
        ("math", 2000, "open-r1/OpenR1-Math-220k")
    ]
    again = Recipe.model_validate(recipe.model_dump(mode="json"))
    assert again == recipe
