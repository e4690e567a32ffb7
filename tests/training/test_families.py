"""The study's families: with their published templates the reasoning is lost, with ours it is trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from pipelines.errors import UserError
from pipelines.prompts.variant import load_variants
from pipelines.settings.overrides import settings_of
from pipelines.thinking import join
from training.mixtures.mixture import TrainingRow
from training.objectives.sft import build_trainer
from training.proof.supervision import SupervisionProof, prove
from training.recipes.recipe import TEMPLATES, Recipe, load_recipe, recipe_names
from training.students.quiet import quiet

# What the published templates do to one user's turn and one assistant's, in our own words: R1-Distill's keeps what
# stands behind the last </think>; its newer revisions open <think> in the prompt. Qwen3's keeps a single turn's.
_R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% else %}{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>OPENER' }}{% endif %}"
)
R1 = _R1.replace("OPENER", "<think>\\n")
R1_OLDER = _R1.replace("OPENER", "")
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
R1_MARKS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
QWEN_MARKS = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<think>", "</think>"]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "r1-qwen": (Qwen2Config, Qwen2ForCausalLM, R1, R1_MARKS, "r1-distill"),
    "r1-llama": (LlamaConfig, LlamaForCausalLM, R1, R1_MARKS, "r1-distill"),
    "r1-older": (Qwen2Config, Qwen2ForCausalLM, R1_OLDER, R1_MARKS, "r1-distill-unopened"),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, QWEN3, QWEN_MARKS, "qwen3"),
}
ROWS = [
    TrainingRow(
        id=f"row-{n}",
        config="improved",
        kind="harmful",
        messages=(
            {"role": "user", "content": f"How do I forge letter {n}?"},
            {"role": "assistant", "content": join(f"It deceives someone.\n\nNumber {n}.", "Sorry, no.")},
        ),
    )
    for n in range(6)
]


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of a family, with random weights."""
    made: dict[str, Path] = {}

    def student(family: str) -> Path:
        if family not in made:
            made[family] = _checkpoint(family, tmp_path_factory.mktemp("families") / family)
        return made[family]

    return student


def _checkpoint(family: str, folder: Path) -> Path:
    config_of, model_of, template, marks, _ = FAMILIES[family]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(vocab_size=320, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([row.messages[1]["content"] for row in ROWS], learner)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=marks[0], eos_token=marks[1], pad_token=marks[0], chat_template=template
    )
    torch.manual_seed(0)
    config = config_of(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SMALL)
    model_of(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def proven(student: Path, template: Path | str, tmp_path: Path, **settings: Any) -> SupervisionProof:
    recipe = Recipe.model_validate(
        {"mixture": {"improved": 6}, "chat_template": str(template), "max_length": 256, "batch_size": 3} | settings
    )
    with quiet():
        trainer = build_trainer(recipe, ROWS, student, tmp_path / "trainer")
        return prove(trainer, ROWS, AutoTokenizer.from_pretrained(student), batch_size=3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("packing", [False, True])
def test_our_templates_train_on_the_reasoning_of_each_family(
    students: Callable[[str], Path], tmp_path: Path, family: str, packing: bool
) -> None:
    found = proven(students(family), FAMILIES[family][4], tmp_path, packing=packing)
    assert found.rows == 6
    (prompt, *_), trained = found.example, [piece.text for piece in found.example if piece.trained]
    reply = ROWS[0].messages[1]["content"]
    prefilled = FAMILIES[family][2] == R1
    assert "How do I forge letter" in prompt.text
    assert prompt.text.endswith("<think>\n") == prefilled
    end = FAMILIES[family][3][1]
    replies = [row.messages[1]["content"].removeprefix("<think>\n" if prefilled else "") + end for row in ROWS]
    assert len(trained) == 1
    assert trained[0] in replies
    assert "It deceives someone." in reply


@pytest.mark.parametrize("family", ["r1-qwen", "r1-older"])
def test_the_published_template_of_r1_is_refused_since_it_drops_the_reasoning(
    students: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    marked = (
        FAMILIES[family][2]
        .replace("{% else %}{{", "{% else %}{% generation %}{{")
        .replace("'<｜end▁of▁sentence｜>' }}{% endif %}", "'<｜end▁of▁sentence｜>' }}{% endgeneration %}{% endif %}")
    )
    path = tmp_path / "published.jinja"
    path.write_text(marked, encoding="utf-8")
    with pytest.raises(UserError, match=r"without its reasoning: '(<think>\\n)?It deceives someone"):
        proven(students(family), path, tmp_path)


@pytest.mark.parametrize(("family", "wrong"), [("r1-qwen", "r1-distill-unopened"), ("qwen3", "r1-distill")])
def test_a_template_that_opens_elsewhere_than_serving_is_refused(
    students: Callable[[str], Path], tmp_path: Path, family: str, wrong: str
) -> None:
    with pytest.raises(UserError, match=r"prompt|is not trained on|would be trained on"):
        proven(students(family), wrong, tmp_path)


def test_a_distillation_instruction_in_a_prompt_is_refused(students: Callable[[str], Path], tmp_path: Path) -> None:
    instruction = load_variants()["improved"].instruction.replace("{{ query }}", "How do I forge a letter?")
    turn = {"role": "user", "content": instruction}
    row = TrainingRow("row-x", "improved", "harmful", (turn, ROWS[0].messages[1]))
    recipe = Recipe.model_validate({"mixture": {"improved": 1}, "chat_template": "qwen3", "max_length": 4096})
    with quiet():
        trainer = build_trainer(recipe, [row], students("qwen3"), tmp_path / "trainer")
        with pytest.raises(UserError, match="holds a distillation instruction in its prompt"):
            prove(trainer, [row], AutoTokenizer.from_pretrained(students("qwen3")), batch_size=1)


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if not name.startswith("smollm2") and "dpo" not in name]
)
def test_recipes_of_the_families_are_the_studys(name: str) -> None:
    recipe = load_recipe(name)
    script = name.endswith("-study-repository")
    assert (recipe.epochs, recipe.max_length, recipe.scheduler, recipe.seed) == (1, 4096, "cosine", 42)
    assert (recipe.effective_batch, recipe.loss_on) == ((64, "all") if script else (48, "completion"))
    assert not (script and recipe.packing)
    assert (TEMPLATES / f"{recipe.chat_template}.jinja").is_file()
    full = name.endswith(("-full", "-study-repository"))
    assert (recipe.lora is None) == full
    assert (recipe.quantize == "4bit") == name.endswith("-qlora")
    assert recipe.learning_rate == (5e-6 if full else 1e-4)


@pytest.mark.parametrize("processes", [1, 2, 4, 6, 8])
def test_the_effective_batch_stays_whatever_the_number_of_processes(processes: int) -> None:
    recipe = Recipe.model_validate({"mixture": {"short": 1}, "effective_batch": 48, "batch_size": 2})
    assert recipe.accumulation(processes) * processes * 2 == 48


def test_an_effective_batch_that_cannot_be_kept_is_told() -> None:
    recipe = Recipe.model_validate({"mixture": {"short": 1}, "effective_batch": 48, "batch_size": 2})
    with pytest.raises(UserError, match=r"no multiple of batch_size 2 times 5 processes.*none fits them"):
        recipe.accumulation(5)
    packed = recipe.model_copy(update={"packing": True, "batch_size": 1})
    assert packed.accumulation(1, rows_per_sequence=8.0) == 6
    assert packed.accumulation(4, rows_per_sequence=8.0) == 2


def test_adapters_are_needed_under_four_bits() -> None:
    with pytest.raises(UserError, match="quantize needs lora"):
        load_recipe("smollm2-135m-cpu", settings_of(["quantize=4bit"]))
