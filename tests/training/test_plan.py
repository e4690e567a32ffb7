"""The memory that a training takes, reckoned on the real models' shapes without their weights."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from training.recipes.recipe import load_recipe
from training.trainer.estimate import Sharding, memory_gb, sharding_of

GPU = 85.0
QWEN_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
QWEN_32B = {"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40}
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
SHAPES: dict[str, Any] = {
    "r1-distill-qwen-7b": Qwen2Config(
        vocab_size=152064,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        **QWEN_7B,  # type: ignore[arg-type]
    ),
    "r1-distill-qwen-32b": Qwen2Config(
        vocab_size=152064,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        **QWEN_32B,  # type: ignore[arg-type]
    ),
    "r1-distill-llama-8b": LlamaConfig(vocab_size=128256, num_key_value_heads=8, **LLAMA_8B),  # type: ignore[arg-type]
}


def shape(name: str, dtype: torch.dtype = torch.float32) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(SHAPES[name], dtype=dtype)


@pytest.mark.parametrize(
    ("name", "billions"), [("r1-distill-qwen-7b", 7.6), ("r1-distill-qwen-32b", 32.8), ("r1-distill-llama-8b", 8.0)]
)
def test_the_shapes_are_the_models(name: str, billions: float) -> None:
    assert sum(p.numel() for p in shape(name).parameters()) / 1e9 == pytest.approx(billions, abs=0.05)


@pytest.mark.parametrize(
    ("name", "processes", "sharding", "fits"),
    [
        ("r1-distill-qwen-7b", 1, "none", False),
        ("r1-distill-qwen-7b", 8, "none", False),
        ("r1-distill-qwen-7b", 8, "zero2", True),
        ("r1-distill-qwen-7b", 4, "whole", True),
        ("r1-distill-llama-8b", 4, "zero2", True),
        ("r1-distill-qwen-32b", 8, "zero2", False),
        ("r1-distill-qwen-32b", 8, "whole", True),
        ("r1-distill-qwen-32b", 4, "whole", False),
    ],
)
def test_all_weights_fit_where_they_are_known_to(name: str, processes: int, sharding: Sharding, fits: bool) -> None:
    recipe = load_recipe(f"{name}-full")
    needed = memory_gb(shape(name), recipe, recipe.max_length, processes, sharding)
    assert (needed < GPU) == fits, needed


def test_adapters_of_the_7b_model_fit_one_gpu_of_24_gb_in_bfloat16_and_not_all_weights() -> None:
    model = shape("r1-distill-qwen-7b", torch.bfloat16)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    recipe = load_recipe("r1-distill-qwen-7b-lora")
    needed = memory_gb(model, recipe, 2048, 1, "none")
    assert 15.2 < needed < 24
    assert memory_gb(model, recipe.model_copy(update={"batch_size": 8}), 2048, 1, "none") > 24


def test_recomputing_activations_is_what_saves_memory() -> None:
    model, recipe = shape("r1-distill-qwen-7b"), load_recipe("r1-distill-qwen-7b-full")
    kept = recipe.model_copy(update={"gradient_checkpointing": False})
    assert memory_gb(model, kept, 4096, 8, "whole") > memory_gb(model, recipe, 4096, 8, "whole") + 10


@pytest.mark.parametrize(
    ("environment", "sharding"),
    [
        ({}, "none"),
        ({"ACCELERATE_USE_FSDP": "true"}, "whole"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, "zero2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "whole"),
    ],
)
def test_what_accelerate_splits_is_read_from_its_environment(
    environment: dict[str, str], sharding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_ZERO_STAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sharding_of() == sharding
