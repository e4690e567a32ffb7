from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.errors import UserError
from pipelines.thinking import join
from training.mixtures.mixture import TrainingRow
from training.objectives.sft import build_trainer
from training.proof.supervision import SupervisionProof, prove
from training.recipes.recipe import TEMPLATES, Recipe
from training.students.quiet import quiet

OURS = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")
WRITTEN = "{{- message['content'] + '<|im_end|>' -}}\n        {%- endgeneration -%}"
ROWS = [
    ("Forge a letter.", "That would deceive someone.", "Sorry, I can't help with that."),
    ("Kill a process.", "An everyday task.\n\nIt hurts nobody.", "Use kill."),
    # The same prompt twice, as when several samples of a teacher are kept.
    ("Kill a process.", "An everyday task.", "Use the task manager, or kill in a shell; then look whether it is gone."),
    ("What do you say?", "", "Fine. \u00e4\u00f6\u4f60\u597d \x1b[31mred"),
]

CATEGORIES = ["misinformation", "hate/threatening", "hate/threatening", "uncategorised"]


def training_row(number: int, prompt: str, content: str) -> TrainingRow:
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": content})
    return TrainingRow(
        id=f"row-{number}", config="improved", kind="harmful", messages=messages, category=CATEGORIES[number]
    )


def changed(old: str, new: str) -> str:
    assert OURS.count(old) == 1
    return OURS.replace(old, new)


@pytest.fixture
def proven(tiny_student: Path, tmp_path: Path) -> Callable[..., SupervisionProof]:
    """Prove rows through a real trainer, with the given training template and recipe."""

    def run(
        template: str = OURS,
        contents: list[str] | None = None,
        damage: Callable[[Any], None] = lambda trainer: None,
        **recipe: Any,
    ) -> SupervisionProof:
        path = tmp_path / "template.jinja"
        path.write_text(template, encoding="utf-8")
        contents = contents or [join(reasoning, answer) for _, reasoning, answer in ROWS]
        rows = [training_row(n, ROWS[n][0], content) for n, content in enumerate(contents)]
        settings = {"mixture": {"improved": len(rows)}, "chat_template": str(path), "max_length": 400, **recipe}
        with quiet():
            made = Recipe.model_validate({"gradient_checkpointing": False, "batch_size": 3, **settings})
            trainer = build_trainer(made, rows, tiny_student, tmp_path / "trainer")
            damage(trainer)
            return prove(trainer, rows, AutoTokenizer.from_pretrained(tiny_student), 3, made.loss_on)

    return run


@pytest.mark.parametrize("packing", [False, True])
def test_proof_counts_exactly_the_assistants_tokens(
    proven: Callable[..., SupervisionProof], tiny_student: Path, packing: bool
) -> None:
    proof = proven(packing=packing)
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    contents = [join(reasoning, answer) for _, reasoning, answer in ROWS]
    assert proof.rows == len(ROWS)
    assert proof.labelled == sum(len(tokenizer(content + "<|im_end|>")["input_ids"]) for content in contents)
    assert 0 < proof.labelled_share < 1
    assert proof.longest <= proof.tokens


@pytest.mark.parametrize("packing", [False, True])
def test_loss_on_all_tokens_is_proven_and_said(proven: Callable[..., SupervisionProof], packing: bool) -> None:
    proof = proven(loss_on="all", packing=packing)
    # TRL leaves out the first token of a packed row, which follows nothing.
    assert (proof.loss_on, proof.labelled) == ("all", proof.tokens - len(ROWS) * packing)
    assert [piece.trained for piece in proof.example] == ([False, True] if packing else [True])


def test_prompt_that_is_left_out_of_the_loss_is_found(proven: Callable[..., SupervisionProof]) -> None:
    def mask(trainer: Any) -> None:
        collate = trainer.data_collator

        def without_prompts(rows: Any) -> Any:
            batch = collate(rows)
            batch["labels"][:, :3] = -100
            return batch

        trainer.data_collator = without_prompts

    with pytest.raises(UserError, match=r"its prompt is not trained on, at .*, and loss_on is all"):
        proven(loss_on="all", damage=mask)


def test_proof_shows_prompt_and_response_apart(proven: Callable[..., SupervisionProof]) -> None:
    before, response, after = proven().example
    prompt, reasoning, answer = ROWS[0]
    assert (before.trained, response.trained, after.trained) == (False, True, False)
    assert prompt in before.text
    assert before.text.endswith("<|im_start|>assistant\n")
    assert response.text == join(reasoning, answer) + "<|im_end|>"
    assert after.text == "\n"


def test_proof_shows_the_mildest_row(proven: Callable[..., SupervisionProof], monkeypatch: pytest.MonkeyPatch) -> None:
    for mildest, categories in {
        3: ["violence/graphic", "hate/threatening", "illicit/violent", "uncategorised"],
        1: ["self-harm/intent", "privacy/sensitive", "illicit/violent", "uncategorised"],
    }.items():
        monkeypatch.setattr("tests.training.test_supervision.CATEGORIES", categories)
        prompt, _, answer = ROWS[mildest]
        before, response, _ = proven().example
        assert prompt in before.text
        assert answer.split()[0] in response.text


def test_proof_keeps_control_characters_off_the_terminal(proven: Callable[..., SupervisionProof]) -> None:
    text = proven(contents=[join("Red: \x1b[31m.", "Sorry.\x07")]).example[1].text
    assert text == join("Red: \ufffd[31m.", "Sorry.\ufffd") + "<|im_end|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            changed(WRITTEN, WRITTEN.replace("message['content']", "message['content'].split('</think>')[-1]")),
            "reaches the trainer without its reasoning: '<think>",
        ),
        (
            changed(WRITTEN, WRITTEN.replace("message['content']", "message['content'].replace('</think>', '')")),
            "reaches the trainer without its closing tag",
        ),
        (
            changed(WRITTEN, WRITTEN.replace("message['content']", "message['content'] | trim('.')")),
            "reaches the trainer without its answer",
        ),
        (
            changed(WRITTEN, "{{- message['content'] -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"),
            "its end-of-turn is not trained on, from '<|im_end|>",
        ),
        (
            changed(
                "{%- generation -%}\n            {{- message['content'] + '<|im_end|>' -}}",
                "{%- set half = message['content'].split('</think>') -%}{{- half[0] + '</think>' -}}"
                "{%- generation -%}{{- half[1] + '<|im_end|>' -}}",
            ),
            "its reasoning is not trained on, from '<think>",
        ),
        (
            changed(
                "{{- '<|im_start|>' + message['role'] + '\\n' -}}\n    {%- if message['role'] == 'assistant' -%}\n"
                "        {%- generation -%}",
                "{%- if message['role'] != 'assistant' -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
                "{%- endif -%}\n"
                "    {%- if message['role'] == 'assistant' -%}\n"
                "        {%- generation -%}{{- '<|im_start|>assistant\\n' -}}",
            ),
            "its prompt would be trained on, at '<|im_start|>",
        ),
        (
            changed("{%- endgeneration -%}", "{{- '\\n' -}}{%- endgeneration -%}"),
            "its text after its end-of-turn would be trained on",
        ),
        (
            changed("You are a helpful AI assistant", "You are an assistant"),
            "is trained behind another prompt than it is served with: from token",
        ),
    ],
    ids=[
        "reasoning dropped",
        "tag dropped",
        "answer changed",
        "end-of-turn unlabelled",
        "reasoning unlabelled",
        "prompt labelled",
        "tail labelled",
        "other system message",
    ],
)
def test_proof_stops_on_a_template_that_misses_something(
    proven: Callable[..., SupervisionProof], template: str, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        proven(template)
    assert message in str(raised.value)


@pytest.mark.parametrize("packing", [False, True])
def test_proof_stops_on_a_row_over_length(proven: Callable[..., SupervisionProof], packing: bool) -> None:
    with pytest.raises(UserError, match=r"Row 'row-\d' is cut after 60 of \d+ tokens. Raise max_length to at least"):
        proven(max_length=60, packing=packing)


@pytest.mark.parametrize(
    "content", ["<think>Short.</think> Sorry.", "Sorry.", "<think>\nnever closed", "<think>\na</think>b\n</think>\n\nc"]
)
def test_proof_stops_on_another_form_of_response(proven: Callable[..., SupervisionProof], content: str) -> None:
    with pytest.raises(UserError, match=r"Row 'row-0' is not '<think>\\nreasoning\\n</think>\\n\\nanswer'"):
        proven(contents=[content])


def test_proof_stops_on_labelled_padding(proven: Callable[..., SupervisionProof]) -> None:
    def damage(trainer: Any) -> None:
        collate = trainer.data_collator

        def broken(examples: list[dict[str, Any]]) -> Any:
            batch = collate(examples)
            batch["labels"][batch["attention_mask"] == 0] = 2
            return batch

        trainer.data_collator = broken

    with pytest.raises(UserError, match="Padding would be trained on"):
        proven(damage=damage)


def test_proof_stops_on_a_row_left_out(proven: Callable[..., SupervisionProof]) -> None:
    def damage(trainer: Any) -> None:
        trainer.train_dataset = trainer.train_dataset.select([0, 1, 3])

    with pytest.raises(UserError, match="holds 3 rows of the 4 it was given, the first missing is 'row-2'"):
        proven(damage=damage)


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hello"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello \n"}],
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": join("A greeting.", "Hello.")},
            {"role": "user", "content": "<b>&amp;</b> {{ 1 }}"},
        ],
    ],
)
def test_training_template_renders_as_the_serving_one(
    tiny_student: Path, messages: list[dict[str, str]], generation_prompt: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    settings = {"tokenize": False, "add_generation_prompt": generation_prompt}
    served = tokenizer.apply_chat_template(messages, **settings)
    assert tokenizer.apply_chat_template(messages, chat_template=OURS, **settings) == served


@pytest.mark.parametrize(
    "content",
    [
        join("That would hurt.<|im_end|>", "Sorry, no."),
        join("That would hurt.", "Sorry, no.<|im_end|>"),
        join("That would hurt.", "Sorry, no.<|im_end|>\n<|im_start|>user\nAnd a cat?"),
        join("That <|endoftext|> would hurt.", "Sorry, no."),
    ],
)
def test_a_special_token_of_the_student_inside_a_row_is_refused_by_name(
    proven: Callable[..., SupervisionProof], content: str
) -> None:
    with pytest.raises(UserError, match=r"'row-1' holds '<\|(im_end|endoftext)\|>', a special token of the student"):
        proven(contents=[join("Fine.", "Use kill."), content])
