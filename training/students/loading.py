"""Somebody's model, loaded as weights and words: no code of its folder runs, and nothing asks on standard input.

Reads a checkpoint's folder; writes nothing. Every `from_pretrained` of a user's model is here.
"""

import json
from pathlib import Path
from typing import Any

from pipelines.documents import read_json
from pipelines.errors import UserError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Where a folder can name Python of its own, which transformers would import if it were trusted.
_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")


def check_no_code(path: Path) -> None:
    """Refuse a checkpoint that could only be loaded by running what it holds.

    Raises:
        UserError: weights in pickles alone, code named in a configuration, or an adapter that names other weights.
    """
    pickles = sorted(one.name for one in path.iterdir() if one.suffix in _PICKLES and "model" in one.name)
    if pickles and not any(path.glob("*.safetensors")):
        raise UserError(
            f"Student '{path}' has its weights in a pickle ({pickles[0]}), which runs what it holds when it is opened. "
            "Give one with safetensors; who has the model can make it: model.save_pretrained(FOLDER)"
        )
    if (path / "adapter_config.json").exists():
        raise UserError(
            f"Student '{path}' has an adapter_config.json, which names other weights to load. Merge the adapter first: "
            "model.merge_and_unload().save_pretrained(FOLDER)"
        )
    for name in _CONFIGS:
        if (path / name).is_file():
            _check_config(path, name)


def _check_config(path: Path, name: str) -> None:
    try:
        values = read_json(path / name)
    except (OSError, ValueError) as error:
        raise UserError(f"Student '{path}': {name} cannot be read ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(values, dict):
        raise UserError(f"Student '{path}': {name} is not a JSON object.")
    code = values.get("auto_map") or values.get("custom_pipelines")
    if code:
        shown = json.dumps(code)[:120]
        raise UserError(
            f"Student '{path}' names Python of its own in {name} (auto_map: {shown}), which is never run here. If the "
            "model is one that transformers knows, take a copy of the folder and leave auto_map out of it."
        )


def load_tokenizer(path: Path, alone: bool = False) -> Any:
    """The tokenizer of a folder; `alone` where the weights beside it are not to be loaded, and may be of any kind.

    Raises:
        UserError, OSError, ValueError: it names code, or cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not alone:
        check_no_code(path)
    elif (path / "tokenizer_config.json").is_file():
        _check_config(path, "tokenizer_config.json")
    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def load_model(path: Path, **settings: Any) -> Any:
    """The causal language model of a folder, out of safetensors.

    Args:
        path: A checkpoint that `check_checkpoint` let through.
        settings: As `from_pretrained` takes them: dtype, attention, quantisation.

    Raises:
        UserError, OSError, ValueError: it names code, or cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    return _loaded(AutoModelForCausalLM, path, settings)


def load_scorer(path: Path, **settings: Any) -> Any:
    """The same weights below a new head that gives one number for a text; arguments and errors as of `load_model`."""
    from transformers import AutoModelForSequenceClassification

    return _loaded(AutoModelForSequenceClassification, path, {"num_labels": 1, **settings})


def _loaded(kind: Any, path: Path, settings: dict[str, Any]) -> Any:
    check_no_code(path)
    return kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, use_safetensors=True, **settings)


def prompt_of(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> Any:
    """A conversation as the model is prompted with it; arguments and errors as for `rendered`."""
    return rendered(tokenizer, messages, add_generation_prompt=True, **options)


def rendered(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> Any:
    """A conversation by the tokenizer's own chat template, in transformers' sandbox.

    Args:
        tokenizer: The model's.
        messages: [{role, content}, ...].
        options: As `apply_chat_template` takes them; text by default.

    Raises:
        UserError: the template does what the sandbox forbids, or does not take the conversation.
    """
    import jinja2

    settings = {"tokenize": False, **options}
    # A template of others computes: whatever arithmetic or a look-up raises in it is its fault.
    faults = (
        jinja2.TemplateError,
        TypeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
        MemoryError,
    )
    try:
        return tokenizer.apply_chat_template(messages, **settings)
    except faults as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"The chat template of '{tokenizer.name_or_path}' cannot be used: {message}") from error
