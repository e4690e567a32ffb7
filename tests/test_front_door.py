"""The commands as typed: the order of help, exit codes, one clear line for bad input, nothing half-written."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import command

ROOT = Path(__file__).resolve().parent.parent


def typed(words: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `saferthoughts` with those words in a folder."""
    return command(words, cwd, {**os.environ, **environment})


def typed_afresh(words: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in an interpreter that has loaded nothing yet."""
    return subprocess.run(
        [sys.executable, "-m", "saferthoughts", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert done.stderr.startswith("saferthoughts: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_help_shows_the_stages_in_the_order_of_work(tmp_path: Path) -> None:
    done = typed_afresh(["--help"], tmp_path)
    listed = re.findall(r"^  (\w+)", done.stdout.split("Commands:")[1], re.MULTILINE)
    stages = ["prompts", "generate", "judge", "check", "release", "train", "eval", "report"]
    assert [name for name in listed if name in stages] == stages
    assert done.returncode == 0


def test_help_imports_no_engine(tmp_path: Path) -> None:
    code = (
        "import sys, saferthoughts\n"
        "heavy = {'torch', 'transformers', 'distilabel', 'datasets', 'inspect_ai', 'duckdb', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["generte", "x"], "Unknown stage 'generte'. Did you mean 'generate'?"),
        (["release", "biuld", "x"], "Unknown release command 'biuld'. Did you mean 'build'?"),
        (["generate", "nowhere"], "There is no run 'nowhere' under runs/."),
        (["prompts", "mine", "--harmful", "2"], "No teacher is named."),
        (["prompts", "a/b", "--teacher", "rehearsal"], "Run name 'a/b' cannot be a folder"),
        (["prompts", "mine", "--variant", "shrot"], "Unknown variant 'shrot'. Did you mean 'short'?"),
        (["prompts", "mine", "--teacher", "depseek"], "Unknown teacher 'depseek'. Did you mean 'deepseek'?"),
        (["prompts", "mine", "--teacher", "rehearsal", "--harmful", "9999"], "Asked for 9999 harmful prompts"),
        (["prompts", "mine", "--harmful", "-1"], "-1"),
        (["prompts", "mine", "--harmful", "many"], "many"),
        (["prompts", "mine", "--teacher", "rehearsal", "--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["run", "mine", "--until", "judging"], "Unknown stage 'judging'. Did you mean 'judge'?"),
        (["train", "smollm", "--dataset", "x", "--output", "y"], "Unknown recipe 'smollm'."),
        (["train", "smollm2-135m-cpu", "--dataset", "x", "--output", "y", "--student", "."], "not a checkpoint"),
        (["eval", "nowhere"], "nowhere"),
        (["demo", "--student", "nowhere"], "nowhere"),
        (["demo", "--objective", "kto"], "Unknown objective of the demo 'kto'."),
        (["rehearse", "--fail-429", "2"], "the options: fail_429"),
        (["prompts"], "Missing argument"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path: Path, words: list[str], expected: str) -> None:
    assert_refused(typed(words, tmp_path), expected)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_and_the_line(tmp_path: Path) -> None:
    done = typed_afresh(["--debug", "generate", "nowhere"], tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("saferthoughts: There is no run")


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    assert (
        typed(["prompts", "mine", "--teacher", "rehearsal", "--harmful", "2", "--benign", "1"], tmp_path).returncode
        == 0
    )
    manifest = tmp_path / "runs" / "mine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 0'))
    assert_refused(typed(["generate", "mine"], tmp_path), "made by another version of SaferThoughts")


def test_no_network_for_the_student_is_one_clear_line(tmp_path: Path) -> None:
    done = typed(
        ["student", "fetch"],
        tmp_path,
        SAFERTHOUGHTS_CACHE=str(tmp_path / "cache"),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    assert_refused(done, "--student PATH")
    assert not any((tmp_path / "cache").rglob("*.safetensors"))


def _tiny_disk(folder: Path) -> bool:
    """Mount 200 kB of memory as a disk, where this user may."""
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_is_one_clear_line_and_what_was_finished_stays(tmp_path: Path) -> None:
    disk = tmp_path / "runs"
    disk.mkdir()
    if not _tiny_disk(disk):
        pytest.skip("mounting a small disk needs root")
    try:
        done = typed(["run", "mine", "--teacher", "rehearsal", "--harmful", "60", "--benign", "8"], tmp_path)
        assert done.returncode == 2, done.stderr
        assert "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert not [path for path in disk.rglob("*.parquet") if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_plain_pip_install_stops_with_the_line_that_works(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install -c constraints.txt -e '.[demo]'" in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_there_and_shows_no_secret(tmp_path: Path) -> None:
    done = typed_afresh(["doctor"], tmp_path, OPENAI_API_KEY="sk-very-secret", COLUMNS="200")
    assert done.returncode == 0
    assert "OPENAI_API_KEY is set" in done.stdout
    assert "sk-very-secret" not in done.stdout + done.stderr
    for stage in ("generate", "train", "eval", "GPU", "bubblewrap", "Hub token", "teacher deepseek"):
        assert stage in done.stdout


def test_run_goes_from_prompts_to_a_release_and_a_report(tmp_path: Path) -> None:
    done = typed_afresh(["run", "mine", "--teacher", "rehearsal", "--harmful", "4", "--benign", "3"], tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mine"
    assert (run / "release" / "README.md").exists()
    assert "rehearsal teacher" in (run / "report.html").read_text()
    again = typed(["run", "mine"], tmp_path)
    assert "0 asked for now" in again.stdout
