"""Serving a model: the command, and a server that is up for as long as it is wanted and never longer.

vLLM itself lies outside: a program of its name takes its place, which loads nothing, listens where it is told to and
has a worker process, as vLLM does.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from pipelines.errors import UserError
from pipelines.settings.teacher import Teacher
from pipelines.teachers import server_process
from pipelines.teachers.probe import probe
from pipelines.teachers.vllm_command import PARSERS, options_of, serve_command
from pipelines.teachers.vllm_server import served

ROOT = Path(__file__).parents[2]
STAND_IN = f"""\
#!{sys.executable}
import json, os, signal, subprocess, sys, time
mode = os.environ.get("STAND_IN", "")
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(os.environ["STAND_IN_RECORD"] + ".new", "w") as file:
    json.dump({{"argv": sys.argv[1:], "pids": [os.getpid(), worker.pid], "keeper": os.getppid()}}, file)
os.replace(os.environ["STAND_IN_RECORD"] + ".new", os.environ["STAND_IN_RECORD"])
if mode == "dies":
    print("\\x1b[31mloading the checkpoint\\x1b[0m\\nno GPU was found", flush=True)
    sys.exit(3)
if mode == "deaf":
    time.sleep(600)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
sys.path.insert(0, {str(ROOT)!r})
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import serve
port = next(int(word.removeprefix("--port=")) for word in sys.argv if word.startswith("--port="))
serve(RehearsalSettings(port=port), lambda url: print("serving", url, flush=True))
"""


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Puts the stand-in on the PATH; gives what it wrote down: its arguments and the processes it is made of."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "vllm").write_text(STAND_IN, encoding="utf-8")
    (folder / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_RECORD", str(tmp_path / "record.json"))

    def read() -> dict[str, Any]:
        wait_until(lambda: (tmp_path / "record.json").exists())
        return dict(json.loads((tmp_path / "record.json").read_text(encoding="utf-8")))

    return read


def entry(**serve: Any) -> Teacher:
    return Teacher.model_validate({"model": "rehearsal-r1", "serve": {"model": "org/some-model", **serve}})


def wait_until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("model", "parser"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v3"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", None),
        ("Qwen/QwQ-32B", "deepseek_r1"),
        ("zai-org/GLM-4.5-Air", "glm45"),
        ("openai/gpt-oss-20b", "openai_gptoss"),
        ("moonshotai/Kimi-K2-Thinking", "kimi_k2"),
        ("moonshotai/Kimi-K2-Instruct-0905", None),
        ("MiniMaxAI/MiniMax-M2", "minimax_m2"),
        ("ibm-granite/granite-3.3-8b-instruct", "granite"),
        ("tencent/Hunyuan-A13B-Instruct", "hunyuan_a13b"),
        ("/models/qwq-32b/", "deepseek_r1"),
        ("qwen3/some-model-of-ours", None),
        ("meta-llama/Llama-3.3-70B-Instruct", None),
    ],
)
def test_reasoning_parser_is_that_of_the_models_family(model: str, parser: str | None) -> None:
    given = [word for word in serve_command(model, 8000).argv if word.startswith("--reasoning-parser")]
    assert given == ([f"--reasoning-parser={parser}"] if parser else [])


def test_reasoning_parsers_name_the_vllm_they_were_checked_with() -> None:
    version = yaml.safe_load(PARSERS.read_text(encoding="utf-8"))["checked_with"]
    assert f"(checked with vLLM {version})" in serve_command("Qwen/Qwen3-8B", 8000).note


def test_unknown_family_gets_no_parser_and_is_told_so() -> None:
    command = serve_command("org/some-model", 8123)
    assert command.argv == (
        "vllm",
        "serve",
        "org/some-model",
        "--host=127.0.0.1",
        "--port=8123",
        "--max-model-len=auto",
    )
    assert "<think>" in command.note
    assert command.base_url == "http://127.0.0.1:8123/v1"


def test_settings_take_the_place_of_ours() -> None:
    args = options_of(
        ["max_model_len=4k", "enforce-eager=true", "enable-prefix-caching=false", "reasoning-parser=mine"]
    )
    words = serve_command("Qwen/Qwen3-8B", 8000, args).argv[3:]
    assert words == (
        "--host=127.0.0.1", "--port=8000", "--max-model-len=4k", "--enforce-eager", "--no-enable-prefix-caching",
        "--reasoning-parser=mine",
    )  # fmt: skip


@pytest.mark.parametrize("model", ["", "-h", "--host=0.0.0.0", " x", "x\ny", "x\0", "x\x1b[2J"])
def test_names_that_vllm_would_misread_are_refused(model: str) -> None:
    with pytest.raises(UserError, match="is no model's name") as refused:
        serve_command(model, 8000)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("arg", ["--host=0.0.0.0", "--host", "--api_key=x", "--uds=/x", "--headless"])
def test_arguments_that_open_or_hide_the_server_are_refused(arg: str) -> None:
    with pytest.raises(UserError, match="vllm serve cannot have --"):
        serve_command("org/some-model", 8000, [arg, "0.0.0.0"])


@pytest.mark.parametrize("setting", ["tensor-parallel-size", "-x=1", "a b=1", "=1", "port=1"])
def test_settings_of_another_form_are_refused(setting: str) -> None:
    with pytest.raises(UserError, match="--set"):
        options_of([setting])


def test_line_can_be_typed_into_a_shell() -> None:
    model = "org/$(touch pwned); echo 'x"
    args = options_of(["hf-overrides={\"a\": '; rm x'}"])
    command = serve_command(model, 8000, args)
    assert tuple(shlex.split(command.line())) == command.argv
    shell = subprocess.run(
        ["sh", "-c", f"set -- {command.line()}; printf '%s' \"$3\""], capture_output=True, text=True, check=True
    )
    assert shell.stdout == model


def test_served_teacher_answers_inside_the_block_and_is_gone_after_it(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    with served("mine/7b", entry(args=["--enforce-eager"]), tmp_path / "run") as url:
        with urlopen(f"{url}/models") as answer:
            assert "rehearsal-r1" in answer.read().decode()
        processes = recorded()["pids"]
        assert all(alive(pid) for pid in processes)
    assert not any(alive(pid) for pid in processes)
    with pytest.raises(URLError):
        urlopen(f"{url}/models")
    port = url.split(":")[2].removesuffix("/v1")
    assert recorded()["argv"] == [
        "serve", "org/some-model", "--host=127.0.0.1", f"--port={port}", "--max-model-len=auto",
        "--served-model-name=rehearsal-r1", "--enforce-eager",
    ]  # fmt: skip
    assert f"serving {url}" in (tmp_path / "run" / "serve-mine_7b.log").read_text(encoding="utf-8")


def test_served_teacher_can_be_tested(recorded: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    (found,) = probe("mine", entry(), tmp_path)
    assert (found.model, found.source) == ("rehearsal-r1", "reasoning_content")
    assert f"serving {found.url}" in (tmp_path / "serve-mine.log").read_text(encoding="utf-8")
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_served_model_name_never_meets_a_shell(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "org/$(touch pwned);touch pwned`touch pwned`"
    with served("t", entry(model=name), tmp_path):
        assert recorded()["argv"][1] == name
    assert not (tmp_path / "pwned").exists()


def test_served_teacher_is_gone_after_an_error_in_the_block(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="of ours"), served("t", entry(), tmp_path):
        raise ValueError("of ours")
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_server_listens_where_its_entry_says(recorded: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    port = free_port()
    with served("t", entry(args=["--port", str(port)]), tmp_path) as url:
        assert url == f"http://127.0.0.1:{port}/v1"
    assert recorded()["argv"].count(f"--port={port}") == 1


def test_taken_port_is_told_before_anything_starts(recorded: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"Port {port} of 127.0.0.1 cannot be used"),
            served("t", entry(args=[f"--port={port}"]), tmp_path),
        ):
            pass
    assert not (tmp_path / "record.json").exists()


def test_server_that_dies_is_told_with_the_end_of_its_log(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "dies")
    with pytest.raises(UserError) as refused, served("t", entry(), tmp_path):
        pass
    assert "teacher 't' ended with exit code 3" in str(refused.value)
    assert str(refused.value).endswith("ends with: loading the checkpoint | no GPU was found")
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_server_that_does_not_answer_in_time_is_stopped(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "deaf")
    with (
        pytest.raises(UserError, match=r"within 1\.5 s.*--set teachers\.t\.serve\.health_timeout_s=3"),
        served("t", entry(health_timeout_s=1.5), tmp_path),
    ):
        pass
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_missing_vllm_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"vLLM is not installed.*\.\[vllm\]"), served("t", entry(), tmp_path):
        pass


def start_elsewhere(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process of ours with a served teacher; returns once the server answers."""
    code = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from pipelines.settings.teacher import Serve, Teacher
        from pipelines.teachers.vllm_server import served
        with served("t", Teacher(model="rehearsal-r1", serve=Serve(model="org/m")), Path({str(tmp_path)!r})) as url:
            print(url, flush=True)
            time.sleep(600)
    """)
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    assert starter.stdout.readline().startswith("http://127.0.0.1:")
    return starter


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_does_not_outlive_whoever_started_it(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path, number: signal.Signals
) -> None:
    with start_elsewhere(tmp_path) as starter:
        processes = [*recorded()["pids"], recorded()["keeper"]]
        assert all(alive(pid) for pid in processes)
        starter.send_signal(number)
        starter.wait()
        wait_until(lambda: not any(alive(pid) for pid in processes))
        assert starter.returncode != 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has gone")
def test_server_does_not_outlive_its_keeper(recorded: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    with served("t", entry(), tmp_path):
        server, worker = recorded()["pids"]
        os.kill(recorded()["keeper"], signal.SIGKILL)
        wait_until(lambda: not alive(server))
        assert not alive(server)
        os.kill(worker, signal.SIGKILL)  # without a keeper, workers are the server's own to end


def test_forked_child_leaves_the_server_to_its_parent(recorded: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    block = served("t", entry(), tmp_path)
    url = block.__enter__()
    child = os.fork()
    if child == 0:
        try:
            block.__exit__(None, None, None)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with urlopen(f"{url}/models") as answer:
        assert answer.status == 200
    block.__exit__(None, None, None)
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_keeper_kills_what_does_not_end_when_told() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-I", server_process.__file__, str(os.getpid()), "0.5", sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as kept:
        assert kept.stdout is not None
        assert kept.stdout.readline() == "up\n"
        started = time.monotonic()
        kept.terminate()
        assert kept.wait(300) == 128 + signal.SIGKILL
    assert time.monotonic() - started > 0.4


def run_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "saferthoughts", "teachers", "serve", "Qwen/Qwen3-8B", *words]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_runs_the_server_passes_signals_on_and_exits_with_it(
    recorded: Callable[[], dict[str, Any]], number: signal.Signals
) -> None:
    port = free_port()
    with subprocess.Popen(
        run_command("--run", "--port", str(port)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert any(f"answers at http://127.0.0.1:{port}/v1" in line for line in running.stderr)
        running.send_signal(number)
        assert running.wait(300) == 130
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_command_exits_as_the_server_does(recorded: Callable[[], dict[str, Any]]) -> None:
    done = subprocess.run(
        run_command("--run", "--port", str(free_port())),
        cwd=ROOT, env={**os.environ, "STAND_IN": "dies"}, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert (done.returncode, "no GPU was found" in done.stdout) == (3, True)
    assert not any(alive(pid) for pid in recorded()["pids"])


def test_command_alone_prints_one_line_and_starts_nothing(
    recorded: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    done = subprocess.run(run_command(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "vllm serve Qwen/Qwen3-8B --host=127.0.0.1 --port=8000 --max-model-len=16384 --reasoning-parser=qwen3\n"
    )
    assert "saferthoughts teachers test --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-8B" in done.stderr
    assert not (tmp_path / "record.json").exists()
