"""A checkpoint where there is a GPU: vLLM serves it for the run. A stand-in of ours takes vLLM's place on the PATH."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from eval.models.inspect_models import Target
from eval.run.planning import Wanted
from eval.run.stage import evaluate, require_complete

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = f"""\
#!{sys.executable}
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
sys.path.insert(0, {str(ROOT)!r})
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import serve
port = next(int(word.removeprefix("--port=")) for word in sys.argv if word.startswith("--port="))
print("pid", os.getpid(), *sys.argv[1:], flush=True)
serve(RehearsalSettings(port=port), lambda url: None)
"""


def test_checkpoint_is_served_for_the_run_and_its_server_ends(
    students: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable = tmp_path / "bin" / "vllm"
    executable.parent.mkdir()
    executable.write_text(STAND_IN, encoding="utf-8")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{executable.parent}:{os.environ['PATH']}")
    # The one thing that cannot be here.
    monkeypatch.setattr("eval.models.inspect_models.has_gpu", lambda: True)
    model = shutil.copytree(students["after"], tmp_path / "model")
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|assistant|>{%", "<|assistant|><think>\n{%"))
    # The stand-in knows its models by name, and a checkpoint is served under its label.
    results = evaluate([Target("rehearsal-r1", path=model)], Wanted(tasks=("refusal",), limit=1), tmp_path / "out")
    require_complete(results, tmp_path / "out")
    [measured] = results.models
    assert (measured.kind, measured.place, len(measured.weights_sha256 or "")) == ("checkpoint", str(model), 64)
    assert all(one.reasoning and one.answer for one in results.answers)
    words = (tmp_path / "out" / "serve-rehearsal-r1.log").read_text().split()
    assert words[2:4] == ["serve", str(model)]
    assert "--served-model-name=rehearsal-r1" in words
    with pytest.raises(ProcessLookupError):
        os.kill(int(words[1]), 0)
