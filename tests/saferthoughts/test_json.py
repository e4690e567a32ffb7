"""What programs read of the command line: `--json`, `status`, `--version`, `--env-file`."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from cards.verify import VerificationResult
from curation.overlap.duplicates import Duplicates
from curation.quality.checks import CheckResult, check
from curation.selection import SelectionResult
from pipelines.doctor import Finding, ListedTeacher
from pipelines.generate.stage import GenerationResult
from pipelines.judges.stage import JudgingResult
from pipelines.repairs.accounting import RepairResult
from pipelines.runs import VERSION, RunFolder
from pipelines.settings.config import load_config
from saferthoughts.ledgers import Spending
from saferthoughts.status import RunStatus, next_step
from tests.commands import command

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
# What each command prints: one object of the class, or a list of them.
OBJECTS: dict[str, type[Any]] = {
    "status": RunStatus,
    "generate mine": GenerationResult,
    "judge mine": JudgingResult,
    "repair mine": RepairResult,
    "duplicates mine": Duplicates,
    "check mine": CheckResult,
    "select mine": SelectionResult,
    "ledger show mine": Spending,
    "release verify mine/release": VerificationResult,
    "teachers list": ListedTeacher,
    "doctor": Finding,
}


def test_json_is_the_api_s_result_field_for_field(released: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(released.path, tmp_path / "mine")
    shown = dict(re.findall(r"^\| `saferthoughts (.+?)` \| (.+?) \|", DOCS.read_text(), re.M))
    for words, kind in OBJECTS.items():
        done = command([*words.split(), "--json"], tmp_path, {**os.environ, "SAFERTHOUGHTS_RUNS": "."})
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        one = found[0] if isinstance(found, list) else found
        assert set(one) == {field.name for field in fields(kind)}, words
        documented = shown[words.replace("mine/release", "RELEASE").replace("mine", "RUN")]
        assert kind.__name__ in documented, words
        assert ("list of" in documented) == isinstance(found, list), words


def test_status_says_what_each_run_waits_for(judged: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(judged.path, tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "torn").mkdir()
    (tmp_path / "runs" / "torn" / "manifest.json").write_text('{"name": "to')
    done = command(["prompts", "new", "--teacher", "rehearsal", "--harmful", "1", "--benign", "1"], tmp_path)
    assert done.returncode == 0, done.stderr
    done = command(["status"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "new waits for responses: saferthoughts run new" in done.stdout
    assert re.search(r"mine waits for .+: saferthoughts run mine", done.stdout)
    assert "torn: its files cannot be read." in done.stdout
    assert "nowhere" in command(["status", "nowhere"], tmp_path).stderr
    assert "saferthoughts demo" in command(["--runs", "empty", "status"], tmp_path).stderr


def test_a_run_of_which_no_row_was_accepted_is_not_sent_to_its_release(judged: RunFolder) -> None:
    check(judged)
    stages, config = judged.manifest()["stages"], load_config(judged)
    stages["judge"]["counts"]["unscored"] = 0
    stages["repair"] = stages["check"]
    assert next_step(judged, config, stages)[1] == f"saferthoughts release build {judged.name}"
    stages["check"]["counts"]["accepted"] = 0
    waits_for, command_for_it = next_step(judged, config, stages)
    assert "there is none" in waits_for
    assert "FROM rejected" in str(command_for_it)


def test_variables_come_from_a_file_that_is_named_and_no_value_is_shown(tmp_path: Path) -> None:
    (tmp_path / "keys.env").write_text('# mine\nexport DEEPSEEK_API_KEY="sk-$ecret"\nOPENAI_API_KEY=sk-other\n')
    environment = {name: value for name, value in os.environ.items() if name != "DEEPSEEK_API_KEY"}
    words = ["--env-file", "keys.env", "teachers", "list", "--json"]
    listed = json.loads(command(words, tmp_path, {**environment, "OPENAI_API_KEY": "set before"}).stdout)
    assert {one["name"] for one in listed if one["key_set"]} >= {"deepseek"}
    (tmp_path / "keys.env").write_text("DEEPSEEK_API_KEY=x\nsk-secret in a line of its own\n")
    done = command(words, tmp_path, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "keys.env, line 2, is not NAME=value" in done.stderr
    assert "sk-secret" not in done.stderr


def test_version_short_help_and_completion(tmp_path: Path) -> None:
    assert command(["--version"], tmp_path).stdout == f"saferthoughts {VERSION}\n"
    assert f'\nversion = "{VERSION}"\n' in (DOCS.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert command(["judge", "-h"], tmp_path).stdout == command(["judge", "--help"], tmp_path).stdout
    asked = {**os.environ, "_SAFERTHOUGHTS_COMPLETE": "complete_bash", "COMP_WORDS": "saferthoughts ge"}
    script = Path(sys.executable).with_name("saferthoughts")
    done = subprocess.run([script], env={**asked, "COMP_CWORD": "1"}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["generate"], done.stderr
