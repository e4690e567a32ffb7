"""Servers that a study starts: where they go, while which steps they are up, and what does not fit.

vLLM lies outside: a program of its name takes its place, which loads nothing and answers as the rehearsal teacher.
"""

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.errors import Incomplete, UserError
from saferthoughts.studies import work
from saferthoughts.studies.placement import pool_of
from tests.training.test_study import ROOT, Job, invoked

STAND_IN = f"""\
#!{sys.executable}
import os, signal, sys
port = next(word.removeprefix("--port=") for word in sys.argv if word.startswith("--port="))
note = lambda what: os.write(os.open({{record!r}}, os.O_APPEND | os.O_CREAT | os.O_WRONLY), f"{{what}}\\n".encode())
note(f"begin {{port}} {{os.environ['CUDA_VISIBLE_DEVICES']}} {{' '.join(sys.argv[2:])}}")
if sys.argv[2] == "dies":
    sys.exit("no GPU was found")
sys.path.insert(0, {str(ROOT)!r})
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import serve
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    serve(RehearsalSettings(port=int(port)), lambda url: None)
finally:
    note(f"end {{port}}")
"""


def ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


def test_servers_are_up_while_steps_ask_them_each_on_its_own_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, given = tmp_path / "record", {}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").write_text(STAND_IN.replace("{record!r}", repr(str(record))))
    (tmp_path / "bin" / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    models = {"wrote": "rehearsal-r1", "rehearsal-judge": "rehearsal-judge", "lost": "dies"}
    at = dict(zip(models, ports(3), strict=True))
    entries = {
        name: {"model": model, "base_url": f"http://127.0.0.1:{at[name]}/v1", "sampling": {"max_tokens": 900}}
        for name, model in models.items()
    }
    (tmp_path / "entries.yaml").write_text(yaml.safe_dump(entries))
    run = {"teachers": str(tmp_path / "entries.yaml"), "variant": ["direct"], "harmful": 2, "benign": 0, "gpus": 1}
    study: dict[str, Any] = {
        "runs": {
            "both": {**run, "teacher": "wrote", "judge": ["rehearsal-judge"]},
            "one": {**run, "teacher": "wrote", "judge": ["rehearsal-shield"], "harmful": 3},
            "none": {**run, "teacher": "lost", "judge": ["rehearsal-shield"]},
        },
        "servers": {
            "wrote": {"gpus": 2},
            "rehearsal-judge": {"gpus": 1, "set": {"dtype": "half"}},
            "lost": {"gpus": 1},
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))

    def handle(cluster: Any, step: Any, runs: Path, folder: str, gpus: Any) -> Job:
        given[step.labels["run"]] = gpus
        return Job(step, runs)

    monkeypatch.setattr(work, "_handle", handle)
    words = ("--runs", str(tmp_path / "runs"), "study")
    small = [*words, "run", str(tmp_path / "study.yaml"), "--gpus", "3x80"]
    with pytest.raises(UserError, match=r"servers do not fit: wrote, rehearsal-judge take 3 GPUs, .* ask them 1, of 3"):
        invoked(*small)
    assert not record.exists()
    with pytest.raises(Incomplete, match="1 of 3 steps failed and 0 wait"):
        invoked(*small[:-1], "4x80")
    assert given == {"both": ["0"], "one": ["0"]}
    lines = record.read_text().splitlines()
    begun = {line.split()[1]: line for line in lines if line.startswith("begin")}
    assert f"begin {at['wrote']} 1,2 rehearsal-r1" in lines[0]
    assert "--tensor-parallel-size=2" in lines[0]
    assert begun[str(at["rehearsal-judge"])].startswith(f"begin {at['rehearsal-judge']} 3 rehearsal-judge")
    assert "--dtype=half" in begun[str(at["rehearsal-judge"])]
    # Both end before the teacher alone begins anew; in the end nothing is up.
    order = [" ".join(line.split()[:2]) for line in lines if line.split()[1] != str(at["lost"])]
    first, second = at["wrote"], at["rehearsal-judge"]
    assert order[:2] == [f"begin {first}", f"begin {second}"]
    assert set(order[2:4]) == {f"end {first}", f"end {second}"}
    assert order[4:] == [f"begin {first}", f"end {first}"]
    for port in at.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert "no GPU was found" in (tmp_path / "studies" / "study" / "servers" / "lost.log").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--gpus", "8x80", "--set", "servers.llama-guard-3.bytes=1"],
            r"3 of 8 GPUs of 80 GB, and 1 of a step's own mixtral-8x7b .*CUDA_VISIBLE_DEVICES=5,6 .*8x7B\S+ --port 8003"
            r" --set tensor-parallel-size=2 --run llama-guard-3 \(18 GB at 1 bytes .*CUDA_VISIBLE_DEVICES=7 ",
        ),
        # Small ones share a GPU, each with its part of the memory.
        (
            ["--gpus", "2x80", "--set", "evaluations.safety.attacker=reasoningshield"],
            r"CUDA_VISIBLE_DEVICES=1 .*Guard-3-8B --port 8002 --set gpu-memory-utilization=0.58 --run"
            r".*train \S+ direct 42 and 5 more: written for 4 GPUs, and 2 are there",
        ),
        (["--gpus", "0,1"], r"nobody says how much memory the GPUs have \(--gpus 4x80\)"),
    ],
)
def test_the_plan_says_where_servers_go_and_what_does_not_fit(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    student = ["--student", "DeepSeek-R1-Distill-Qwen-7B"]
    printed = invoked("--runs", str(tmp_path / "runs"), "study", "plan", "table1", *student, *words)
    assert re.search(expected, printed), printed[-6000:]


@pytest.mark.parametrize(
    ("text", "expected"), [("2x0", "2x0"), ("a b", "'a b' is no GPU"), ("9x80", "1 GPUs are seen here")]
)
def test_gpus_that_are_not_there_are_refused(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(UserError, match=expected):
        pool_of(text)
    assert pool_of(None).names == pool_of("1x24").names == ("5",)
    assert pool_of("0, 2").names == ("0", "2")
