"""Our parts of Distilabel under its own scheduler, as its users have them: in processes of their own, with its CLI."""

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from pipelines.generate import planned_responses, reasoning_llm, safe_reasoning
from pipelines.generate.plan import plan, prompts_of
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.teachers.ledger import Ledger
from tests import commands

# A pipeline of somebody's own, with a step behind ours.
PIPELINE = """
import json, sys
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, KeepColumns
from pipelines.generate.reasoning_llm import ReasoningLLM
from pipelines.generate.safe_reasoning import SafeReasoning

url, ledger, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
entry = {"model": "rehearsal-r1", "base_url": url, "retries": 0}
with Pipeline(name="mine", cache_dir=sys.argv[4]) as pipeline:
    load = LoadDataFromDicts(data=[{"prompt": f"How do I keep {n} bees?"} for n in range(rows)])
    ask = SafeReasoning(name="ask", variant="improved", llm=ReasoningLLM(teacher=entry, ledger=ledger))
    keep = KeepColumns(columns=["prompt", "reasoning", "answer", "model_name", "finish_reason", "error"])
    load >> ask >> keep
if __name__ == "__main__":
    found = pipeline.run(use_cache=False)
    print(json.dumps(found["default"]["train"].to_list()))
"""


def piped(folder: Path, url: str, rows: int = 3) -> list[dict[str, Any]]:
    """The rows of that pipeline."""
    (folder / "mine.py").write_text(PIPELINE, encoding="utf-8")
    words = [sys.executable, "mine.py", url, str(folder / "ledger.sqlite"), str(rows), str(folder / "cache")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def asked(url: str) -> int:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return int(json.load(answer)["requests"])


def test_a_pipeline_of_ones_own_has_reasoning_apart_and_asks_nothing_twice(tmp_path: Path) -> None:
    with rehearsing() as url:
        rows = piped(tmp_path, url)
        assert asked(url) == 3
        again = piped(tmp_path, url)
        assert asked(url) == 3
    assert rows == again
    assert [row["prompt"] for row in rows] == [f"How do I keep {n} bees?" for n in range(3)]
    for row in rows:
        assert row["reasoning"]
        assert row["answer"]
        assert "think>" not in row["reasoning"] + row["answer"]
        assert (row["model_name"], row["finish_reason"], row["error"]) == ("rehearsal-r1", "stop", "")


def test_a_row_that_fails_says_why(tmp_path: Path) -> None:
    with rehearsing(RehearsalSettings(fail_500=1.0)) as url:
        [row] = piped(tmp_path, url, rows=1)
    assert (row["reasoning"], row["answer"]) == (None, None)
    assert "HTTP 500" in row["error"]


def test_the_pipeline_of_a_run_runs_by_itself_in_a_copy_of_it(judged: RunFolder, tmp_path: Path) -> None:
    saved = judged.path / "pipeline.yaml"
    text = saved.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "127.0.0.1" not in text
    [step] = yaml.safe_load(text)["pipeline"]["steps"]
    assert step["step"]["run"] == "."
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("run.yaml", "prompts.parquet", "pipeline.yaml"):
        shutil.copyfile(judged.path / name, elsewhere / name)
    command = [
        str(Path(sys.executable).with_name("distilabel")),
        "pipeline",
        "run",
        "--config",
        "pipeline.yaml",
        "--ignore-cache",
    ]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    run = RunFolder(elsewhere)
    planned = {ask.key for ask in plan(load_config(run), prompts_of(run)) if ask.key}
    ledger = Ledger(elsewhere / "ledger.sqlite")
    assert len(planned) == 66
    assert planned <= set(ledger.every_key())
    ledger.close()


def test_examples_of_docstrings_are_true() -> None:
    modules = [reasoning_llm, safe_reasoning, planned_responses]
    assert all(doctest.DocTestFinder().find(module) for module in modules)
    code = (
        "import doctest, importlib, sys\n"
        "sys.exit(sum(doctest.testmod(importlib.import_module(name)).failed for name in sys.argv[1:]))"
    )
    done = commands.command(["-c", code, *(module.__name__ for module in modules)], timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_crash_after_importing_distilabel_prints_no_local_variables() -> None:
    code = (
        "from pipelines.generate import planned_responses\n"
        "def crash():\n"
        "    key = 'sk-' + 'very-secret'\n"
        "    raise RuntimeError('boom')\n"
        "crash()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: boom" in done.stderr
    assert "sk-very-secret" not in done.stderr
