"""Protocols, suites and what may be set: what stands in the file, and every wrong name told with the right ones."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.protocols import names, parsed, settings
from eval.run.planning import Wanted, plan
from eval.suites import SUITES, TASKS, chosen_tasks, entry, ready
from eval.tasks import none
from eval.training_overlap import trained_prompts
from pipelines.errors import UserError
from pipelines.runs import RunFolder

ROOT = Path(__file__).parents[2]


def table() -> str:
    """Every setting of every task by protocol, as docs/protocols.md has it."""
    lines = [
        f"| task | setting | {' | '.join(f'`{name}`' for name in names())} |",
        "|---|---" + "|---" * len(names()) + "|",
    ]
    for task in TASKS:
        columns = [dict(flat(settings(name, task))) for name in names()]
        for key in dict.fromkeys(key for column in columns for key in column):
            values = " | ".join(str(column.get(key, "")) for column in columns)
            lines.append(f"| {task} | `{key}` | {values} |")
    return "\n".join(lines) + "\n"


def flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def test_the_page_of_protocols_has_every_setting() -> None:
    assert names() == ["paper", "repository", "ours", "quick"]
    page = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    assert table() in page, f"docs/protocols.md needs this table:\n{table()}"


def test_every_task_has_settings_and_every_suite_known_tasks() -> None:
    for task in TASKS:
        assert settings("paper", task)["epochs"] >= 1
    assert all(set(tasks) <= set(TASKS) for tasks in SUITES.values())


def test_a_file_is_a_task_by_itself(tmp_path: Path) -> None:
    for area in ("pipelines", "curation"):
        (tmp_path / area).symlink_to(ROOT / area)
    shutil.copytree(ROOT / "eval", tmp_path / "eval", ignore=shutil.ignore_patterns("__pycache__"))
    ours = (ROOT / "eval" / "tasks" / "none.py").read_text(encoding="utf-8")
    (tmp_path / "eval" / "tasks" / "mine.py").write_text(ours.replace('"none"', '"mine"'), encoding="utf-8")
    code = (
        "from eval.protocols import parsed, settings\n"
        "from eval.suites import TASKS, chosen_tasks, ready\n"
        "assert ready(chosen_tasks('quick', ['mine']))['mine'].decided_by == 'guard'\n"
        "print(TASKS[-1], settings('paper', 'mine', parsed(['mine.max_tokens=9'], TASKS)))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert (
        done.stdout.decode() == "mine {'temperature': 0, 'max_tokens': 9, 'epochs': 1, 'exclude_trained': False}\n"
    ), done.stderr.decode()


def test_overrides_reach_into_a_part_and_leave_the_rest() -> None:
    overrides = parsed(["pair.attacker.temperature=0.5", "pair.streams=2", "math500.epochs=4"], TASKS)
    pair = settings("paper", "pair", overrides)
    assert (pair["attacker"]["temperature"], pair["attacker"]["tries"], pair["streams"]) == (0.5, 3, 2)
    assert settings("paper", "math500", overrides)["epochs"] == 4
    # What was given out is the asker's own.
    pair["attacker"]["tries"] = 99
    assert settings("paper", "pair")["attacker"]["tries"] == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pair", "--set takes key=value, such as --set pair.streams=3"),
        ("pair=3", "--set takes TASK.key=value"),
        ("pare.streams=3", "Unknown task in --set 'pare'. Did you mean 'pair'?"),
        ("pair.steams=3", "Unknown key of pair in --set 'steams'. Did you mean 'streams'?"),
        ("pair.attacker.temp=1", "Unknown key of pair.attacker in --set 'temp'. Choose from: temperature, top_p"),
        (
            "pair.streams.more=1",
            "'pair.streams.more' cannot be set (--set pair.streams.more=1): 'pair.streams' is no mapping",
        ),
        ("pair.streams=0", "streams must be at least 1"),
        ("pair.streams=-1", "streams must be at least 1"),
        ("pair.streams=2.5", "the value must be of the kind of 5"),
        ("pair.streams=many", "the value must be of the kind of 5"),
        ("pair.streams=true", "the value must be of the kind of 5"),
        ("pair.attacker=3", "the value must be of the kind of {"),
        ("none.temperature=3", "temperature is a number from 0 to 2"),
        ("none.temperature=true", "temperature is a number from 0 to 2"),
        ("math500.top_p=1.5", "top_p is a number from 0 to 1"),
        ("xstest.exclude_trained=1", "the value must be of the kind of True"),
        ("livecodebench.from=soon", "the value must be of the kind of datetime.date"),
        ("pair.streams=[", "the value is not YAML"),
    ],
)
def test_wrong_setting_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed([text], TASKS)
    assert expected in str(refused.value)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"Unknown protocol 'papers'. Did you mean 'paper'"):
        settings("papers", "none")
    with pytest.raises(UserError, match=r"Unknown suite 'safe'. Did you mean 'safety'"):
        chosen_tasks("safe")
    with pytest.raises(UserError, match=r"Unknown task 'xtest'. Did you mean 'xstest'"):
        entry("xtest")


def test_tasks_are_run_once_and_in_order() -> None:
    assert chosen_tasks("safety") == ("none", "pap", "pair", "xstest")
    assert chosen_tasks("paper", ["xstest", "none", "xstest"]) == ("none", "xstest")


def test_task_that_cannot_run_here_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(none, "TASK", replace(none.TASK, needs=lambda: "bubblewrap is not installed"))
    with pytest.raises(UserError, match=r"'none' cannot run here: bubblewrap is not installed\..*--task refusal"):
        ready(["refusal", "none"])


@pytest.mark.parametrize("name", SUITES["safety"])
def test_task_whose_figure_is_a_verdict_can_be_scored_anew(name: str) -> None:
    # The engine tells answers under one guard from those under another by this; see eval/run/planning.py.
    assert entry(name).rescorer is not None


def test_trained_questions_are_counted_and_left_out_where_the_protocol_says_so(
    released: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Trained on in a jailbreak template, and asked as it is.
    known = next(row["behaviour"] for row in released.read("prompts").to_pylist() if row["template_id"])
    rows = [{"question": text, "rewrite": f"Once upon a time: {text}"} for text in (known, "Pick a pocket")]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trained = trained_prompts(released.path / "release")
    tasks = ("none", "pap")
    wanted = Wanted(tasks=tasks, trained=trained, data=dict.fromkeys(tasks, data))
    asked = {name: plan(replace(wanted, protocol=name)) for name in ("paper", "ours")}
    lines = capsys.readouterr().err
    for task in tasks:
        assert f"{task}: the model was trained on 1 of the 2 questions" in lines
    counts = {name: [(one.built.data.questions, one.built.data.left_out) for one in asked[name]] for name in asked}
    assert counts == {"paper": [(2, 0)] * 2, "ours": [(1, 1)] * 2}
    data.write_text(json.dumps(rows[0]), encoding="utf-8")
    with pytest.raises(UserError, match=r"trained on each of the 1 questions of questions\.jsonl"):
        plan(replace(wanted, protocol="ours"))
