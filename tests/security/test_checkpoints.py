"""Somebody's checkpoint is weights and words: nothing of it runs, and nothing asks on standard input."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eval.run.logs import check_log_name, read_log
from pipelines.errors import UserError
from tests.security.commands import Command
from tests.security.hostile import Canary
from training.students.loading import prompt_of
from training.students.student import check_checkpoint
from training.trainer.checkpoints import Workplace
from training.trainer.steps import _train

EVIL = pickle.dumps(Canary(), protocol=2)
CODE = {"AutoModelForCausalLM": "modeling_theirs.Theirs", "AutoTokenizer": ["tokenization_theirs.Theirs", None]}


def checkpoint(folder: Path) -> Path:
    """A folder that looks like a checkpoint, with weights of no tensor."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "modeling_theirs.py").write_text("import os\nos.system('touch HIT')\n")
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    return folder


def _pickled(folder: Path, name: str, content: bytes = EVIL) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickled weights": (lambda one: _pickled(one, "pytorch_model.bin"), "in a pickle (pytorch_model.bin)"),
    "a shard of pickles": (lambda one: _pickled(one, "pytorch_model-00001-of-00002.bin"), "in a pickle"),
    "a torch file": (lambda one: _pickled(one, "model.pt"), "in a pickle (model.pt)"),
    "a packed pickle": (lambda one: _pickled(one, "model.pth", b"7z\xbc\xaf'\x1c" + EVIL), "in a pickle (model.pth)"),
    "a last checkpoint": (lambda one: _pickled(one, "model.ckpt"), "in a pickle (model.ckpt)"),
    "a pickle by another name": (lambda one: _pickled(one, "model.safetensors"), "the whole of model.safetensors"),
    "code in config.json": (
        lambda one: (one / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": CODE})),
        "names Python of its own in config.json (auto_map: ",
    ),
    "code in tokenizer_config.json": (
        lambda one: (one / "tokenizer_config.json").write_text(json.dumps({"auto_map": CODE})),
        "names Python of its own in tokenizer_config.json",
    ),
    "code in generation_config.json": (
        lambda one: (one / "generation_config.json").write_text(json.dumps({"auto_map": CODE})),
        "names Python of its own in generation_config.json",
    ),
    "an adapter to other weights": (
        lambda one: (one / "adapter_config.json").write_text('{"base_model_name_or_path": "theirs/other"}'),
        "adapter_config.json, which names other weights",
    ),
    "a configuration nested deeply": (
        lambda one: (one / "config.json").write_text("[" * 100_000),
        "config.json cannot be read",
    ),
    "a configuration that is a list": (lambda one: (one / "config.json").write_text("[]"), "is not a JSON object"),
    "an index of files above": (
        lambda one: (
            (one / "model.safetensors").rename(one / "model-00001-of-00001.safetensors"),
            (one / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x.safetensors"}}'),
        ),
        "safetensors of its own folder",
    ),
    "an index of pickles": (
        lambda one: (
            (one / "model.safetensors").rename(one / "model-00001-of-00001.safetensors"),
            (one / "model.safetensors.index.json").write_text('{"weight_map": {"a": "evil.bin"}}'),
        ),
        "safetensors of its own folder",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_checkpoint_that_would_run_is_refused_by_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    student = checkpoint(tmp_path / "student")
    check_checkpoint(student)
    spoil, word = SPOILT[name]
    spoil(student)
    with pytest.raises(UserError) as caught:
        check_checkpoint(student)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("HIT"))


def test_the_command_asks_nothing_and_runs_nothing(command: Command, tmp_path: Path) -> None:
    student = checkpoint(tmp_path / "student")
    SPOILT["code in config.json"][0](student)
    done = command("chat", str(student), stdin="y\ny\n")
    assert done.code == 2, done.output
    assert "names Python of its own in config.json" in done.output
    assert not list(tmp_path.rglob("HIT"))


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch HIT') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for a in range(99999999) %}x{% endfor %}",
        "{{ nothing.there.at.all }}",
        "{% if",
    ],
)
def test_a_chat_template_is_shut_in_with_an_error_of_ours(
    tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    monkeypatch.chdir(tmp_path)
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=r"The chat template of '.*' cannot be used") as caught:
        prompt_of(tokenizer, [{"role": "user", "content": "a"}])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "HIT").exists()


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt"])
def test_a_training_that_goes_on_unpickles_nothing_that_runs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' own loading of a checkpoint's state, on a pickle that would make a file."""
    import torch
    from transformers import Trainer

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save({}, folder / "scheduler.pt")
    (folder / name).write_bytes(EVIL)

    class Bare(Trainer):  # type: ignore[misc,unused-ignore]
        """A trainer without a model: what was not set is off."""

        def __getattr__(self, name: str) -> Any:
            return False

    trainer: Any = Bare.__new__(Bare)
    values = {
        "args": SimpleNamespace(world_size=1, process_index=0, device="cpu"),
        "optimizer": optimizer,
        "lr_scheduler": SimpleNamespace(load_state_dict=dict),
        "is_deepspeed_enabled": False,
        "is_fsdp_enabled": False,
        "accelerator": SimpleNamespace(distributed_type=None),
    }
    for key, value in values.items():
        object.__setattr__(trainer, key, value)

    class Going:
        def train(self, resume_from_checkpoint: str) -> None:
            if name == "rng_state.pth":
                trainer._load_rng_state(resume_from_checkpoint)
            else:
                trainer._load_optimizer_and_scheduler(resume_from_checkpoint)

    going: Any = Going()
    with pytest.raises(UserError, match="holds a pickle of more than tensors"):
        _train(going, Workplace(tmp_path, folder))
    assert not list(tmp_path.rglob("HIT"))


@pytest.mark.parametrize("name", ["../x.eval", "/etc/passwd", "logs\\x.eval", "C:x.eval", "logs/x.pkl", "a\x00.eval"])
def test_results_name_logs_of_their_own_folder_alone(name: str) -> None:
    with pytest.raises(UserError, match="The results name a log"):
        check_log_name(name)


def test_a_log_that_is_a_link_or_a_bomb_is_refused(tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "secret.eval").write_text("secret")
    (folder / "link.eval").symlink_to(tmp_path / "secret.eval")
    with pytest.raises(UserError, match="leads out of"):
        read_log(folder, "link.eval")
    with zipfile.ZipFile(folder / "bomb.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b"0" * 700_000_000)
    with pytest.raises(UserError, match="unfolds from"):
        read_log(folder, "bomb.eval")
    (folder / "torn.eval").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is no log of Inspect's"):
        read_log(folder, "torn.eval")
