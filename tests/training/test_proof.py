"""The proof on anybody's data: it labels as TRL does, names what is lost, and what it says to change mends it."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.chat_template_utils import _CHAT_TEMPLATES_DIR as TRL_TEMPLATES
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from pipelines.sources import Source
from saferthoughts.cli.proof import proof as command_of_proof
from tests.commands import command
from tests.training.conftest import conversation
from training.proof.dataset import WAYS, Trainer, prove_row
from training.proof.dataset_rows import read_conversations
from training.students.quiet import quiet

R1, QWEN3, LLAMA, GPT_OSS = (
    (TRL_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    for name in ("deepseek_r1_distill", "qwen3", "llama3_1", "gptoss")
)
ONE = conversation("How do I kill a process?", "An everyday task.\n\nIt hurts nobody.", "Use the task manager.")
TWO = [*ONE, *conversation("And two of them?", "The same, twice.", "Use it twice.")]


@pytest.fixture
def rows_at(tmp_path: Path) -> Callable[..., Path]:
    """A file of rows, each a list of messages or all of its columns."""

    def write(*rows: Any) -> Path:
        path = tmp_path / f"rows-{len(list(tmp_path.glob('rows-*')))}.jsonl"
        lines = [json.dumps(row if isinstance(row, dict) else {"messages": row}) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def tokenizer_with(tiny_student: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A tokenizer's folder with a chat template."""

    def make(template: str) -> Path:
        folder = tmp_path / "tokenizer"
        folder.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_student / name, folder)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return folder

    return make


@pytest.mark.parametrize("template", [R1, QWEN3, GPT_OSS])
def test_every_way_labels_as_trl_does(
    template: str,
    rows_at: Callable[..., Path],
    tokenizer_with: Callable[[str], Path],
    tiny_student: Path,
    tmp_path: Path,
) -> None:
    rows, _ = read_conversations(Source(hub=str(rows_at(ONE, TWO))), {})
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_with(template))
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    for way in WAYS:
        columns = [{"messages": row.messages()} for row in rows]
        if way == "prompt-completion":
            columns = [{"prompt": row.messages()[:-1], "completion": row.messages()[-1:]} for row in rows]
        with quiet():
            arguments = SFTConfig(
                str(rows_at().with_name(way)), assistant_only_loss=way == "trl", use_cpu=True, max_length=None
            )
            theirs = SFTTrainer(model, arguments, train_dataset=Dataset.from_list(columns), processing_class=tokenizer)
        for row, prepared in zip(rows, theirs.train_dataset, strict=True):
            document = prove_row(row, Trainer(tokenizer, way)).document
            assert (list(document.ids), list(document.labels)) == (prepared["input_ids"], prepared["labels"]), way


def proof(*words: object) -> Any:
    return command(["proof", *map(str, words)], timeout=300)


def test_lost_reasoning_is_named_and_what_is_said_to_change_mends_it(
    rows_at: Callable[..., Path], tokenizer_with: Callable[[str], Path]
) -> None:
    rows, folder = rows_at(ONE), tokenizer_with(R1)
    done = proof(rows, "--tokenizer", folder, "--trainer", "plain")
    assert done.returncode == 1
    assert "the first is row 1: its reasoning is not in what the trainer reads: 'An everyday task." in done.stderr
    assert "Change: Train with assistant_only_loss=True on `messages` (--trainer trl)." in done.stderr
    assert "reasoning:   0 of" in done.stdout
    mended = proof(rows, "--tokenizer", folder, "--json")
    found = json.loads(mended.stdout)
    assert (mended.returncode, found["rows_with_a_loss"], found["first"]) == (0, 0, None)
    for part in ("reasoning", "answer", "end-of-turn"):
        assert found["parts"][part]["trained"] == found["parts"][part]["tokens"] > 0


def test_an_earlier_turns_reasoning_counts(rows_at: Callable[..., Path], tokenizer_with: Callable[[str], Path]) -> None:
    done = proof(rows_at(ONE, TWO), "--tokenizer", tokenizer_with(QWEN3), "--trainer", "plain", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["rows_with_a_loss"], found["first"][0]) == (1, 1, 2)
    assert 0 < found["parts"]["reasoning"]["trained"] < found["parts"]["reasoning"]["tokens"]


def test_a_row_that_is_cut_says_how_long_it_is(
    rows_at: Callable[..., Path], tokenizer_with: Callable[[str], Path]
) -> None:
    words = [rows_at(ONE), "--tokenizer", tokenizer_with(QWEN3), "--max-length"]
    cut = proof(*words, 40)
    assert "its reasoning is cut off at 40 of" in cut.stderr
    needed = cut.stderr.partition("Raise max_length to at least ")[2].strip(".\n")
    assert (cut.returncode, proof(*words, needed).returncode) == (1, 0)


def test_reasoning_behind_an_empty_block_is_a_loss(rows_at: Callable[..., Path], tiny_student: Path) -> None:
    # What TRL 1.7 made of Qwen3.5's own replies, whose opener stands in the prompt.
    (row,), _ = read_conversations(
        Source(hub=str(rows_at([*ONE[:1], {**ONE[1], "content": "R.\n</think>\n\nA."}]))), {}
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    written = "{{ '<think>\n\n</think>\n\n' + message.content }}"
    template = (
        "{% for message in messages %}<|im_start|>{% if message.role == 'user' %}{{ message.content }}"
        f"{{% else %}}{written}{{% endif %}}<|im_end|>{{% endfor %}}"
    )
    (loss,) = prove_row(row, Trainer(tokenizer, "plain", template)).losses
    assert "its reasoning is behind a block that is closed already: '<|im_start|><think>" in loss.words()


def test_the_usual_length_is_trls() -> None:
    assert inspect.signature(command_of_proof).parameters["max_length"].default == SFTConfig.max_length


def test_mild_rows_are_shown_first_and_other_peoples_columns_are_read(
    rows_at: Callable[..., Path], tokenizer_with: Callable[[str], Path]
) -> None:
    row = {"prompt": "Hurt.", "completion": "Sorry.", "thinking": "No.", "category": "violence"}
    rows = rows_at(row, {**row, "prompt": "Knit.", "category": "definitions"}, {"prompt": "", "completion": None})
    done = proof(rows, "--tokenizer", tokenizer_with(GPT_OSS))
    assert (done.returncode, done.stderr.splitlines()) == (
        0,
        ["Next: saferthoughts train RECIPE --dataset RELEASE --check"],
    )
    assert "left out: 1 rows, the first is row 3: the response is NoneType, not text" in done.stdout
    assert "Knit." in done.stdout
    assert "Hurt." not in done.stdout
    lost = proof(rows, "--tokenizer", tokenizer_with(R1))
    assert "Change: Put the reasoning into `content`" in lost.stderr


def test_what_cannot_be_proven_is_told_in_a_line(
    rows_at: Callable[..., Path], tokenizer_with: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tokenizer_with(QWEN3)
    rows = rows_at(ONE)
    (tmp_path / "broken.jinja").write_text("{% for message in messages %}", encoding="utf-8")
    (tmp_path / "code.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8")
    llama = tmp_path / "llama.jinja"
    llama.write_text(LLAMA, encoding="utf-8")
    no_words = rows.with_name("text.jsonl")
    no_words.write_text('{"text": "Hello."}\n')
    cases: list[tuple[list[object], int, str]] = [
        ([rows, "--tokenizer", tmp_path / "none"], 2, "is neither a folder nor ORG/NAME on the Hub"),
        ([rows, "--tokenizer", folder, "--trainer", "tlr"], 2, "Unknown way in --trainer 'tlr'. Did you mean 'trl'?"),
        ([rows, "--tokenizer", folder, "--template", tmp_path / "broken.jinja"], 2, "TemplateSyntaxError"),
        ([rows, "--tokenizer", folder, "--template", tmp_path / "code.jinja"], 2, "SecurityError"),
        ([rows, "--tokenizer", folder, "--template", tmp_path], 2, "cannot be read as text"),
        ([no_words, "--tokenizer", folder], 2, "say which is the prompt and which the response"),
        ([rows_at(ONE[:1]), "--tokenizer", folder], 2, "None of the 1 rows"),
        ([rows_at(conversation("Hi.", "", "Ho.")), "--tokenizer", folder], 1, "has reasoning: neither <think>"),
        ([rows, "--tokenizer", folder, "--template", llama], 1, "finds no {% generation %} markers. Change: Give the"),
    ]
    for words, code, message in cases:
        done = proof(*words)
        assert (done.returncode, len(done.stderr.splitlines()) <= 1) == (code, True), done.stderr
        assert message in done.stderr, (message, done.stderr)
