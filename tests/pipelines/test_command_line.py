"""The command that is named to go on with: what was typed, fit to paste, without secrets."""

import shlex
import sys

import pytest

from pipelines.command_line import typed_command


@pytest.mark.parametrize("script", ["/opt/env/bin/saferthoughts", "/clone/saferthoughts/__main__.py", "saferthoughts"])
def test_command_is_what_was_typed(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    arguments = ["--runs", "my runs", "prompts", "mine", "--set", "release.title=It's  mine"]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    assert shlex.split(typed_command()) == ["saferthoughts", *arguments]


def test_command_has_no_secret_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdefgh-12345")
    keys = ["abcdefgh-12345", "sk-proj-0123456789abcdef", "hf_0123456789abcdefgh", "http://me:word@127.0.0.1:9/v1"]
    monkeypatch.setattr(sys, "argv", ["saferthoughts", "run", "mine", "--set", "a=b\nc\x1b[31m", *keys])
    typed = typed_command()
    assert typed.isprintable()
    for secret in ("abcdefgh", "sk-proj", "hf_0", "me:word"):
        assert secret not in typed
    assert "(MY_API_KEY)" in typed


def test_command_of_a_script_names_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/generation.py", "--quick"])
    assert typed_command() == "python benchmarks/generation.py --quick"
