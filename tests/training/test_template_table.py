"""The table of chat templates in docs/proof.md: held to the installed TRL and transformers, and written by

python -m tests.training.test_template_table
"""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.chat_template_utils import _CHAT_TEMPLATES_DIR as TRL_TEMPLATES

from pipelines.prompts.turns import Turn
from pipelines.thinking import join
from tests.commands import ROOT
from training.proof.dataset import COMPLETION, REASONING, WAYS, Trainer, prove_row
from training.proof.dataset_rows import KEYS, Conversation
from training.recipes.recipe import TEMPLATES
from training.students.quiet import quiet

PAGE = ROOT / "docs" / "proof.md"
BEGIN, END = "<!-- templates: begin -->\n", "<!-- templates: end -->\n"
# Where transformers has whole templates in its code.
IN_CODE = {"llama4": "processing_llama4", "qwen2_audio": "processing_qwen2_audio", "smolvlm": "processing_smolvlm"}


class InParts(Conversation):
    """A conversation whose contents are lists of parts, as templates of models that see or hear want them."""

    def messages(self, key: str | None = None) -> list[dict[str, str]]:
        turns = super().messages(key)
        return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]  # type: ignore[dict-item]


def turns_of(*exchanges: tuple[str, str, str]) -> tuple[Turn, ...]:
    return tuple(
        turn
        for question, reasoning, answer in exchanges
        for turn in (Turn("user", question), Turn("assistant", join(reasoning, answer)))
    )


ONE = turns_of(("How do I kill a process?", "An everyday task.\nIt hurts nobody.", "Use the task manager."))
TWO = ONE + turns_of(("And two of them?", "That is the same, twice.", "Close both."))


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that has every byte as a token, and nothing else."""
    letters = ["<eos>", "<bos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", bos_token="<bos>")


def templates() -> Iterator[tuple[str, str]]:
    for path in sorted(TRL_TEMPLATES.glob("*.jinja")):
        if not path.stem.endswith("_training"):
            yield path.stem, path.read_text(encoding="utf-8")
    found = find_spec("transformers")
    assert found is not None
    assert found.origin is not None
    for name, module in IN_CODE.items():
        source = (Path(found.origin).parent / "models" / name / f"{module}.py").read_text(encoding="utf-8")
        texts = [
            node.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{%" in node.value
        ]
        yield f"{name} (transformers)", max(texts, key=len)
    for path in sorted(TEMPLATES.glob("*.jinja")):
        yield f"{path.stem} (ours)", path.read_text(encoding="utf-8")


def cell(trainer: Trainer, key: str, kind: type[Conversation]) -> str:
    """What becomes of the reasoning under one key."""
    for turns in (ONE, TWO) if trainer.way != COMPLETION else (ONE,):
        found = prove_row(kind(1, turns), trainer, key).losses
        losses = {loss.part for loss in found}
        if "conversation" in losses:
            return "refused"
        if "answer" in losses:
            return "**all lost**"
        if any("closed already" in loss.why for loss in found):
            return "**misplaced**"
        if REASONING in losses:
            return "**lost**" if turns is ONE else "last turn"
        if losses:
            return "no end"
    return "kept"


def table() -> str:
    words = tokenizer()
    found: dict[tuple[str, ...], list[str]] = {}
    for name, template in templates():
        words.chat_template = template
        for kind in (Conversation, InParts):
            cells = tuple(cell(Trainer(words, way), key, kind) for way, key in product(WAYS, KEYS))
            if "**all lost**" not in cells and set(cells) != {"refused"}:
                break
        found.setdefault(cells, []).append(f"{name}{' (in parts)' if kind is InParts else ''}")
    lines = [
        f"TRL {version('trl')}, transformers {version('transformers')}; `r_c` is `reasoning_content`:",
        "",
        f"| chat template | {' | '.join(f'{way}, {key}' for way, key in product(WAYS, KEYS))} |".replace(
            "reasoning_content", "r_c"
        ),
        "|---" * (len(WAYS) * len(KEYS) + 1) + "|",
    ]
    lines += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in found.items()]
    return "\n".join(["", *lines, "", ""])


def test_the_table_of_templates_is_that_of_the_installed_packages() -> None:
    tested = dict(re.findall(r"(?m)^(trl|transformers)==(\S+)$", (ROOT / "constraints.txt").read_text()))
    if any(version(name) != pinned for name, pinned in tested.items()):
        pytest.skip(f"needs the versions that were tested: {tested}")
    with quiet():
        assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0] == table()


if __name__ == "__main__":
    with quiet():
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
