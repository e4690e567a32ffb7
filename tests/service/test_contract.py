"""Schemathesis over the OpenAPI description: whatever it sends, there is no 5xx and no undescribed answer."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.conftest import Service

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_nothing_that_is_sent_breaks_the_service_or_its_description(service: Service, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(service.runs / "small", runs / "small")
    # Runs are made and jobs are queued; none of them is started.
    held = Service(runs, "--jobs", "0", "--rate", "100000")
    config = tmp_path / "schemathesis.toml"
    config.write_text('[parameters]\n"path.name" = "small"\n')
    words = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{held.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {held.secrets['publish']}", "--checks", CHECKS, "--seed", "1"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "3"),
        # Ten seconds for an answer are few on a busy machine.
        *("--request-timeout", "120"),
        # So are the seconds in which hypothesis wants its examples drawn.
        *("--suppress-health-check", "too_slow"),
        # It does not end by itself.
        *("--exclude-path", "/runs/{name}/events"),
        # The other paths need the run.
        *("--exclude-path", "/runs/{name}/rename"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path)
    held.stop()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    tested = re.search(r"(\d+) generated", done.stdout)
    assert tested is not None
    assert int(tested.group(1)) > 300
    assert "Traceback" not in (tmp_path / "service.txt").read_text()
