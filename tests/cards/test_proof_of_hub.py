"""The proof reads a dataset and a tokenizer from the Hub, and no weights."""

import json
from pathlib import Path
from typing import Any

from tests.training.conftest import tiny_student as tiny_student  # a fixture

TWICE = """
import json, sys
from saferthoughts.cli.main import run_command
for words in json.loads(sys.argv.pop()):
    sys.argv[:] = ["saferthoughts", *words]
    if code := run_command():
        sys.exit(code)
    print(f"({code or 0})", flush=True)
"""


def test_a_dataset_and_a_tokenizer_of_the_hub_are_proven(hub: Any, tiny_student: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "<think>\nA.\n</think>\n\nB."}]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    made = (
        "import huggingface_hub as h, sys; a = h.HfApi(); a.create_repo('acme/rows', repo_type='dataset'); "
        "a.upload_folder(repo_id='acme/rows', repo_type='dataset', folder_path=sys.argv[1]); "
        "a.create_repo('acme/tiny'); a.upload_folder(repo_id='acme/tiny', folder_path=sys.argv[2])"
    )
    hub.python(made, str(tmp_path / "rows"), str(tiny_student))
    # Both in one process, since each would load transformers.
    proven = ["proof", "acme/rows", "--tokenizer", "acme/tiny", "--trainer", "plain"]
    gone = ["proof", "acme/rows", "--tokenizer", "acme/none"]
    done = hub.run("-c", TWICE, json.dumps([proven, gone]))
    assert (done.returncode, done.stderr.count("\n")) == (2, 2), done.stderr
    assert "acme/rows, 1 rows, by plain" in done.stdout
    assert done.stdout.endswith("(0)\n")
    assert "Tokenizer 'acme/none' is no folder here" in done.stderr
    assert not [path for path, *_ in hub.log() if "safetensors" in path]
