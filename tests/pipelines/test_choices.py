"""A run's choices by the commands as typed: what is not given stays, losses are told first, no key is repeated."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from saferthoughts.cli.main import run_command

KEY = "sk-proj-4f9Qw7LmZx81NbVc52TyHg"
# A command's exit code, its stdout and its stderr.
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run a command of the front door as `main` does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saferthoughts", *words])
        code = run_command()
        got = capsys.readouterr()
        return code, got.out, got.err

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "lock" not in path.name}


def test_fewer_prompts_are_told_with_their_counts_and_need_a_yes(judged: RunFolder, typed: Typed) -> None:
    before = content(judged.path)
    code, _, output = typed("run", "small", "--harmful", "3")
    assert code == 2
    assert output.count("\n") == 1
    assert re.search(r"9 of its 12 harmful prompts would go; 45 of its 66 answers would no longer serve", output), (
        output
    )
    assert output.endswith("saferthoughts run small --harmful 3 --yes; to keep it, give a new run's name.\n")
    assert content(judged.path).keys() - before.keys() <= {str(judged.path / "ledger.sqlite-shm")}
    assert (judged.path / "run.yaml").read_bytes() == before[str(judged.path / "run.yaml")]
    assert judged.table_path("prompts").read_bytes() == before[str(judged.table_path("prompts"))]

    code, out, output = typed("prompts", "small", "--harmful", "3", "--yes")
    assert code == 0, output
    assert "9 of its 12 harmful prompts would go" in output
    assert "3 harmful and 6 benign prompts, 9 of them were there before and 9 went" in out
    assert "0 asked for now" in typed("generate", "small")[1]
    config = load_config(judged)
    assert (config.prompts.benign, config.seed, set(config.teachers)) == (6, 5, {"rehearsal", "rehearsal-general"})


def test_another_judge_changes_nothing_else(judged: RunFolder, typed: Typed) -> None:
    before = load_config(judged)
    prompts = judged.table_path("prompts").read_bytes()
    code, out, output = typed("run", "small", "--judge", "rehearsal-judge", "--until", "judge")
    assert code == 0, output
    assert "78 responses judged by rehearsal-judge" in out
    assert "0 asked for now" in out
    after = load_config(judged)
    assert after.judging.judges == ("rehearsal-judge",)
    assert (after.teachers, after.prompts, after.seed) == (before.teachers, before.prompts, before.seed)
    assert judged.table_path("prompts").read_bytes() == prompts


def test_an_option_that_equals_a_default_counts_as_given(judged: RunFolder, typed: Typed) -> None:
    # The run's seed is 5 and the default 0; the run has variants, and naming all of them again changes nothing.
    code, _, output = typed("prompts", "small", "--seed", "0")
    assert (code, "its seed would be 0 in place of 5" in output) == (2, True)
    assert typed("generate", "small", "--set", "samples=1", "--set", "instructions.short=a=b {{ query }}")[0] == 2
    assert load_config(judged).instructions == {}


def test_a_person_at_a_terminal_is_asked(judged: RunFolder, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda text, err: False)
    code, _, output = typed("prompts", "small", "--seed", "9")
    assert (code, "Nothing was changed" in output) == (2, True)
    monkeypatch.setattr(typer, "confirm", lambda text, err: True)
    assert typed("prompts", "small", "--seed", "9")[0] == 0
    assert load_config(judged).seed == 9


def test_a_new_run_without_a_teacher_is_told_the_choices(tmp_path: Path, typed: Typed) -> None:
    for command in ("run", "prompts"):
        code, _, output = typed(command, "mine", "--harmful", "2")
        assert code == 2
        for choice in ("--base-url", "--teacher NAME", "--teacher rehearsal", "teachers list"):
            assert choice in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["generate", "judge", "repair", "check"])
def test_every_stage_takes_settings_and_keeps_them(judged: RunFolder, typed: Typed, stage: str) -> None:
    before = load_config(judged)
    code, _, output = typed(
        stage, "small", "--set", "checks.copied_share=0.3", "--set", "teachers.rehearsal.in_flight=7"
    )
    assert code == 0, output
    after = load_config(judged)
    assert (after.checks.copied_share, after.teachers["rehearsal"].in_flight) == (0.3, 7)
    assert after.model_copy(update={"checks": before.checks, "teachers": before.teachers}) == before
    code, _, output = typed(stage, "small", "--set", "checks.copied_shre=0.3")
    assert code == 2
    assert "Did you mean 'copied_share'?" in output
    code, _, output = typed(stage, "small", "--set", "prompts.harmful=2")
    assert (code, "saferthoughts prompts small" in output) == (2, True)
    code, _, output = typed(stage, "small", "--set", "teachers.rehearsal.sampling.max_tokens=99")
    assert (code, "answers would no longer serve" in output) == (2, True)
    code, _, output = typed(stage, "small", "--set", "teachers.openai.in_flight=3")
    assert (code, "this run asks no teacher 'openai'" in output) == (2, True)


def test_an_added_teachers_file_brings_a_judge(judged: RunFolder, tmp_path: Path, typed: Typed, scripted: Any) -> None:
    def says(body: dict[str, Any]) -> str:
        return "unsafe\nS1" if "[detail withheld]" in json.dumps(body) else "safe"

    with scripted(says) as endpoint:
        (tmp_path / "mine.yaml").write_text(
            yaml.safe_dump({"my-guard-v1.5": {"base_url": endpoint.url, "model": "guard"}})
        )
        own = ("--set", "judges.own={kind: safety, form: llamaguard, teacher: my-guard-v1.5}", "--judge", "own")
        limit = ("--set", "teachers.my-guard-v1.5.in_flight=3")
        code, out, output = typed("judge", "small", "--teachers", "mine.yaml", *own, *limit)
    assert code == 0, output
    assert "judged by own" in out
    assert load_config(judged).judge_teachers["my-guard-v1.5"].in_flight == 3


def test_a_teacher_at_an_address_has_a_name_that_is_told(tmp_path: Path, typed: Typed) -> None:
    at = ("--base-url", "http://127.0.0.1:9/v1", "--model", "lab/My-R1-v1.5", "--harmful", "2", "--benign", "1")
    code, out, output = typed("prompts", "mine", *at, "--set", "teachers.My-R1-v1.5.sampling.max_tokens=2000")
    assert code == 0, output
    assert "teachers My-R1-v1.5 (lab/My-R1-v1.5)" in out
    run = RunFolder.open(tmp_path / "runs", "mine")
    assert load_config(run).teachers["My-R1-v1.5"].sampling.max_tokens == 2000
    # The server moved: that alone changes.
    assert typed("prompts", "mine", "--base-url", "http://127.0.0.1:10/v1")[0] == 0
    moved = load_config(run).teachers["My-R1-v1.5"]
    assert (moved.base_url, moved.sampling.max_tokens) == ("http://127.0.0.1:10/v1", 2000)
    code, out, _ = typed("prompts", "other", *at, "--name", "own", "--set", "teachers.own.in_flight=3")
    assert (code, "teachers own (lab/My-R1-v1.5)" in out) == (0, True)


def test_a_run_whose_teacher_is_called_flags_goes_on(tmp_path: Path, typed: Typed) -> None:
    at = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert typed("prompts", "old", *at, "--name", "flags", "--harmful", "2", "--benign", "1")[0] == 0
    assert typed("prompts", "old", *at, "--api-key-env", "MY_KEY")[0] == 0
    config = load_config(RunFolder.open(tmp_path / "runs", "old"))
    assert (list(config.teachers), config.teachers["flags"].api_key_env) == (["flags"], "MY_KEY")


@pytest.mark.parametrize(
    "words",
    [
        ("--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--api-key-env", KEY),
        ("--api-key-env", KEY),
        ("--base-url", f"http://user:{KEY}@127.0.0.1:9/v1", "--model", "m"),
        ("--base-url", f"http://127.0.0.1:9/v1?api_key={KEY}", "--model", "m"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.api_key_env={KEY}"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.api_key={KEY}"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.extra_body.extra_headers.Authorization=Bearer {KEY}"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.extra_body={{api_key: {KEY}}}"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.in_flight={KEY}"),
        ("--teacher", "vllm", "--set", f"teachers.vllm.api_key_env=[{KEY}"),
        ("--teacher", "own", "--teachers", "named.yaml"),
        ("--teacher", "own", "--teachers", "broken.yaml"),
        ("--teacher", "own", "--teachers", "header.yaml"),
    ],
)
def test_a_key_is_refused_and_repeated_nowhere(tmp_path: Path, typed: Typed, words: tuple[str, ...]) -> None:
    entry = "own:\n  base_url: http://127.0.0.1:9/v1\n  model: m\n"
    (tmp_path / "named.yaml").write_text(f"{entry}  api_key_env: {KEY}\n")
    (tmp_path / "broken.yaml").write_text(f'{entry}  api_key_env: "{KEY}\n')
    (tmp_path / "header.yaml").write_text(f"{entry}  extra_body:\n    extra_headers:\n      X-Api-Key: {KEY}\n")
    for debug in ((), ("--debug",)):
        code, out, output = typed(*debug, "prompts", "mine", "--harmful", "2", "--benign", "1", *words)
        assert code == 2
        assert KEY not in out + output
        assert KEY[8:] not in out + output
        assert debug or output.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000/v1", "begins with http:// or https://"),
        ("ftp://127.0.0.1/v1", "begins with http:// or https://"),
        ("http:///v1", "names no host"),
        ("http://127.0.0.1:80000/v1", "Port out of range"),
        ("http://127.0.0.1:8000/v1/chat/completions", "leave out /chat/completions"),
        ("http://127.0.0.1:8000/v1?x=1", "ends before '?'"),
        ("http://127.0.0.1 :8000/v1", "no spaces"),
    ],
)
def test_an_address_is_checked_when_it_is_given(tmp_path: Path, typed: Typed, url: str, expected: str) -> None:
    for words in (("prompts", "mine"), ("teachers", "test"), ("eval",)):
        code, _, message = typed(*words, "--base-url", url, "--model", "m")
        assert code == 2
        assert expected in message
    assert not (tmp_path / "runs").exists()


def test_an_imported_dataset_is_judged_by_models_and_not_repaired(tmp_path: Path, typed: Typed, scripted: Any) -> None:
    rows = [
        {"prompt": f"How do I pick lock {n}?", "reasoning": "Should I?", "answer": "No.", "kind": "harmful"}
        for n in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    code, out, output = typed("check", "audit", "--dataset", "rows.jsonl")
    assert code == 0, output
    with scripted(lambda body: "safe") as endpoint:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"lab": {"base_url": endpoint.url, "model": "guard"}}))
        own = ("--set", "judges.own={kind: safety, form: llamaguard, teacher: lab}", "--judge", "own")
        code, out, output = typed(
            "judge", "audit", *own, "--teachers", "mine.yaml", "--set", "teachers.lab.in_flight=2"
        )
        assert code == 0, output
        assert "3 responses judged by own" in out
        assert len(endpoint.requests) == 3
        # What was chosen stays, also when the dataset is read again.
        assert typed("check", "audit", "--dataset", "rows.jsonl", "--set", "checks.copied_share=0.4")[0] == 0
        assert load_config(RunFolder.open(tmp_path / "runs", "audit")).judging.judges == ("own",)
    code, out, _ = typed("judge", "audit", "--judge", "rules")
    assert (code, "3 responses judged by rules" in out) == (0, True)
    for stage in ("repair", "generate"):
        code, _, output = typed(stage, "audit")
        assert (code, "its responses come from no teacher of this run" in output) == (2, True)
    code, _, output = typed("prompts", "audit", "--harmful", "1", "--teacher", "rehearsal")
    assert (code, "holds an imported dataset" in output) == (2, True)
    code, _, output = typed("run", "audit", "--until", "check")
    assert code == 0, output


def test_doctor_and_teachers_print_brackets_as_they_are(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    from pipelines import doctor

    def version(name: str) -> str:
        if name == "argilla":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    code, out, _ = typed("doctor")
    # The table folds its cells.
    assert (code, "pip install -c constraints.txt -e '.[review]'" in " ".join(out.split())) == (0, True)
    (tmp_path / "mine.yaml").write_text(
        "'[bold]x[/bold]': {base_url: 'http://127.0.0.1:9/v1', model: ':smile:[red]m'}\n"
    )
    code, out, _ = typed("teachers", "list", "--teachers", "mine.yaml")
    assert "[bold]x[/bold]" in out
    assert ":smile:[red]m" in out
