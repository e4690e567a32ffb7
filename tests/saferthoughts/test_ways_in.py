"""The README's first way in, by an API key: from a file of keys to a release, within a budget."""

import os
from pathlib import Path
from typing import Any

import yaml

from tests.commands import command
from tests.pipelines.conftest import scripted as scripted

ANSWER = "<think>A plain question.</think>Here is how you do it, step by step, with care."


def test_an_api_key_leads_to_a_release(tmp_path: Path, scripted: Any) -> None:
    (tmp_path / "keys.env").write_text("MY_KEY=key-of-mine\n")
    words = ["run", "mine", "--teacher", "paid", "--teachers", "mine.yaml", "--variant", "direct", "--variant", "nocot"]
    words += ["--harmful", "2", "--benign", "1", "--max-cost", "5"]
    with scripted(lambda body: ANSWER) as server:
        entry = {
            "base_url": server.url,
            "model": "x",
            "api_key_env": "MY_KEY",
            "price": {"input": 0.28, "output": 0.42},
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"paid": entry}))
        refused = command(words, tmp_path)
        assert refused.returncode == 2
        assert "MY_KEY" in refused.stderr
        done = command(["--env-file", "keys.env", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.keys == {"Bearer key-of-mine"}
    assert "$" in done.stderr  # the estimate
    assert (tmp_path / "runs" / "mine" / "release" / "lineage.json").is_file()
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or b"key-of-mine" not in path.read_bytes(), path
    assert "nothing is missing" in command(["status", "mine"], tmp_path, dict(os.environ)).stdout
