"""Tests of programming problems: decoded as shipped, hostile ones refused, outputs compared as LiveCodeBench does."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.sandbox.code_cases import Case, decoded, same_output, same_value

PUBLIC = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_private_tests_are_decoded_from_every_protocol(protocol: int) -> None:
    cases = [{"input": '[1]\n"ü"', "output": "3", "testtype": "functional"}]
    private = packed(pickle.dumps(json.dumps(cases, ensure_ascii=False), protocol))
    assert decoded(PUBLIC, private) == (Case("stdin", "1\n", "2\n"), Case("functional", '[1]\n"ü"', "3"))


def test_private_tests_may_be_plain_or_absent() -> None:
    assert decoded(PUBLIC, PUBLIC) == decoded(PUBLIC, "") * 2


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_pickled_text_comes_back_as_it_is(text: str, protocol: int) -> None:
    cases = [{"input": text, "output": text, "testtype": "stdin"}]
    assert decoded("[]", packed(pickle.dumps(json.dumps(cases), protocol))) == (Case("stdin", text, text),)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    content = pickle.dumps(Hostile(tmp_path / "run"))
    with pytest.raises(ValueError, match="this pickle has"):
        decoded(PUBLIC, packed(content))
    assert list(tmp_path.iterdir()) == []
    pickle.loads(content)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("private", "message"),
    [
        ("neither", "neither JSON nor compressed"),
        (base64.b64encode(b"raw").decode(), "neither JSON nor compressed"),
        (packed(b""), "pickle exhausted"),
        (packed(pickle.dumps(["[]"])), "this pickle has EMPTY_LIST"),
        (packed(pickle.dumps(7)), "this pickle has BININT1"),
        (packed(b"\x80\x04N."), "this pickle has NONE"),
        (packed(b"\x80\x04."), "this pickle has 0"),
        (packed(pickle.dumps("{}")), "tests are a list, this is dict"),
        (packed(pickle.dumps("[1]")), "a test has input, output and testtype"),
        (packed(pickle.dumps(PUBLIC.replace("stdin", "file"))), "of type stdin or functional, not 'file'"),
        (packed(pickle.dumps(PUBLIC.replace('"1\\n"', "1"))), "are texts"),
        (packed(pickle.dumps("x" * 10_000)), "more than 5000 bytes"),
        (packed(pickle.dumps(PUBLIC))[:40], "cut short"),
    ],
)
def test_private_tests_that_are_something_else_are_refused(private: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoded(PUBLIC, private, limit=5000)


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("3\n", "3", True),
        ("\n 3 \n\n", "3\n", True),
        ("3.0", "3", True),
        ("0.1 2", "0.10  2.0", True),
        ("yes", "Yes", False),
        ("1 2", "1 2 3", False),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("0.30000000000000004", "0.3", False),
        ("nan", "nan ", True),
        ("sNaN", "1", False),
        ("", "", True),
        ("", "0", False),
    ],
)
def test_output_is_compared_by_lines_and_decimals(found: str, expected: str, same: bool) -> None:
    assert same_output(found, expected) is same


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [("[1, 2]", "[1,2]", True), ("2.0", "2", True), ('"a"', '"b"', False), ("", "1", False), ("[" * 9999, "[]", False)],
)
def test_values_are_compared_as_json(found: str, expected: str, same: bool) -> None:
    assert same_value(found, expected) is same
