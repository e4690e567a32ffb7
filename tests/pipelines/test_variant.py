"""Variants: a folder each, and an instruction that only the teacher ever sees."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.prompts.variant import load_variants, variant

HOSTILE = "{{ 7 * 7 }} {% raw %} <think> {query}"


def test_the_six_variants_come_in_the_studys_order() -> None:
    assert list(load_variants()) == ["direct", "realsafe", "improved", "short", "template", "nocot"]


def test_default_asks_the_query_alone() -> None:
    assert variant("direct").messages("How are you?") == [{"role": "user", "content": "How are you?"}]


@pytest.mark.parametrize("name", ["direct", "realsafe", "improved"])
def test_a_query_that_looks_like_a_template_stays_text_at_the_end(name: str) -> None:
    (message,) = variant(name).messages(HOSTILE)
    assert message["content"].endswith(HOSTILE)


@pytest.mark.parametrize("name", ["short", "template"])
def test_a_system_instruction_leaves_the_query_untouched(name: str) -> None:
    system, user = variant(name).messages(HOSTILE)
    assert user == {"role": "user", "content": HOSTILE}
    assert "<think>" in system["content"]


def test_the_template_instruction_names_all_eight_categories() -> None:
    lines = variant("template").shape.lines
    assert len(lines) == 8
    assert all(f"- {line}\n" in variant("template").messages("x")[0]["content"] for line in lines)


def test_a_folder_more_is_a_variant_more(tmp_path: Path) -> None:
    (tmp_path / "brief").mkdir()
    (tmp_path / "brief" / "variant.yaml").write_text(
        "description: d\nteacher: general\nplacement: system\nshape: {reasoning_words: [1, 5]}\n"
    )
    (tmp_path / "brief" / "instruction.md.jinja").write_text("Be brief.")
    assert load_variants(tmp_path)["brief"].messages("q")[0]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("description", "instruction", "expected"),
    [
        ("teacher: [", "x", r"variant\.yaml is not YAML"),
        ("teacher: general", "x", "does not describe a variant"),
        ("description: d\nteacher: general\nplacement: system\nshape: {reasoning_words: [1, 5]}", None, "has no"),
        (
            "description: d\nteacher: general\nplacement: user\nshape: {reasoning_words: [1, 5]}",
            "one\n{% if %}",
            "jinja, line 2",
        ),
        (
            "description: d\nteacher: general\nplacement: system\nshape: {reasoning_words: [1, 5]}",
            "{{ query }}",
            "jinja, a system message that the query follows by itself, line 1: there is no 'query' here",
        ),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    tmp_path: Path, description: str, instruction: str | None, expected: str
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "variant.yaml").write_text(description)
    if instruction is not None:
        (tmp_path / "odd" / "instruction.md.jinja").write_text(instruction)
    with pytest.raises(UserError, match=expected) as caught:
        load_variants(tmp_path)
    assert "\n" not in str(caught.value)
