"""Decoding a student whose marks of reasoning are special tokens: it stays reasoning, and `train --check` tells."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.models.hf_local import Student
from pipelines.thinking import join, split
from saferthoughts.cli.training import show_plan
from training.recipes.recipe import Recipe
from training.students.chat import parted
from training.students.decoding import ReplyDecoder

REPLY = join("It is harmless.", "Use the task manager.")


@pytest.fixture(params=["special", "ordinary"])
def student(request: pytest.FixtureRequest, tiny_student: Path, tmp_path: Path) -> Path:
    """The tiny student, with <think> and </think> as special tokens of its tokenizer or as text."""
    folder = shutil.copytree(tiny_student, tmp_path / request.param)
    if request.param == "special":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        others = ["<|channel>", "<|END_THINKING|>", "<unused94>", "<|end|>", "<|user|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", *others]})
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def tokens_of(folder: Path, text: str) -> tuple[Any, list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"]


def test_marks_are_kept_and_other_special_tokens_are_not(student: Path) -> None:
    tokenizer, tokens = tokens_of(student, REPLY)
    decoder = ReplyDecoder(tokenizer)
    marks = ("</think>", "<think>", "<unused94>", "<|END_THINKING|>", "<|channel>")
    assert decoder.marks == (marks if student.name == "special" else ())
    assert decoder.decode([*tokens, tokenizer.eos_token_id]) == REPLY
    lost = tokenizer.decode(tokens, skip_special_tokens=True)
    assert (lost == REPLY) is (student.name == "ordinary")


def test_chat_streams_reasoning_apart(student: Path) -> None:
    import torch
    from transformers import TextIteratorStreamer

    tokenizer, tokens = tokens_of(student, REPLY)
    streamer: Any = TextIteratorStreamer(ReplyDecoder(tokenizer), skip_prompt=False)  # type: ignore[arg-type]
    for token in [*tokens, tokenizer.eos_token_id]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    parts = list(parted(streamer))
    texts = {
        section: "".join(part.text for part in parts if part.section == section) for section in ("reasoning", "answer")
    }
    assert texts == {"reasoning": "It is harmless.", "answer": "Use the task manager."}


def test_eval_splits_what_the_student_wrote(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    tokenizer, tokens = tokens_of(student, REPLY)
    script = iter([*tokens, tokenizer.eos_token_id])
    # The weights are random; what they would say is the one thing that is scripted.
    monkeypatch.setattr("eval.models.hf_local._choose", lambda logits, rows: torch.tensor([next(script)]))
    opened = Student(student)
    try:
        done = opened.submit([{"role": "user", "content": "How?"}], 200).result(timeout=300)
    finally:
        opened.close()
    found = split(done.text)
    assert (found.reasoning, found.answer, done.stop_reason) == ("It is harmless.", "Use the task manager.", "stop")


def test_check_says_how_reasoning_is_marked(student: Path, release: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(
        mixture={"improved": 2}, chat_template="smollm2", max_length=512, student=str(student), dataset=str(release)
    )
    show_plan(None, recipe)
    output = " ".join(capfd.readouterr().out.split())
    special = (
        "reasoning is marked by special tokens (</think> <think> <unused94> <|END_THINKING|> <|channel>): eval and"
    )
    assert ((special in output), ("marked by ordinary text" in output)) == (
        student.name == "special",
        student.name != "special",
    )
