"""Which prompts a student has been trained on: those of a release.

Reads a release's parquet files; writes nothing.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError


def trained_prompts(release: Path) -> frozenset[str]:
    """sha256 of each prompt of a release, with no space around it.

    Raises:
        UserError: the folder is no release, or a table of it cannot be read.
    """
    tables = sorted(release.glob("data/*/*.parquet"))
    if not tables:
        raise UserError(f"'{release}' is no release: it has no data/CONFIG/*.parquet. Give --release its folder.")
    found = set()
    for path in tables:
        try:
            prompts = pq.read_table(path, columns=["prompt"]).column("prompt")
        except (pa.ArrowException, KeyError, OSError) as error:
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{path} cannot be read ({told}). Fetch or build the release again.") from error
        found |= {prompt_sha256(prompt) for prompt in prompts.to_pylist()}
    return frozenset(found)


def prompt_sha256(prompt: str) -> str:
    """A prompt's sha256, as `Asked.trained` has it."""
    return hashlib.sha256(prompt.strip().encode()).hexdigest()
