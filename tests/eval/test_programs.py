"""The program of an answer: which fenced block it is, however the model fences and whatever stands around it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.sandbox.programs import blocks, last_program

CASES = Path(__file__).parents[3] / "shared" / "cases" / "18-last-block" / "answers.jsonl"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```python\na\n```\nno:\n```python\nb\nc\n```\ndone", "b\nc\n"),
        ("```\na\n```", "a\n"),
        ("  ```py\na\n  ```", "a\n"),
        ("```python\na\n```\n```python\ncut off", "a\n"),
        ("```python\nprint('```')\n```", "print('```')\n"),
        ("```python\n\n```", None),
        ("print(1)", None),
        ("", None),
        # Sample output and shell lines behind the program, labelled or not.
        ("```python\nprint(1)\n```\nOutput:\n```\n1\n```", "print(1)\n"),
        ("```\nprint(1)\n```\nOutput:\n```\nYES\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\n```text\n1\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\nComplexity:\n```\nO(n)\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\nShorter:\n```\nprint(2)\n```", "print(2)\n"),
        ("```python\nprint(1)\n```\n```bash\npython solution.py\n```", "print(1)\n"),
        ("```python\nprint(1)\n```\n```\n$ python solution.py < in.txt\n```", "print(1)\n"),
        # A draft that is labelled and a final program that is not.
        ("```python\nprint(1)\n```\nFinally:\n```\nn = int(input())\nprint(n)\n```", "n = int(input())\nprint(n)\n"),
        # Sample input in Python's words, and a sample output that is called Python.
        ("```python\nprint(1)\n```\nInput:\n```\nn = 3\n```\n```python\n# 1\n```", "print(1)\n"),
        ("\ufeff```solution.py\nprint(1)```", "print(1)\n"),
        # Nothing is Python: what the answer offers is tested, and fails.
        ("```\nfor i in\n```", "for i in\n"),
        ("```cpp\nint main() {}\n```", None),
        # Labels.
        ("```Python3\nprint(1)\n```\n```\n1\n```", "print(1)\n"),
        ("```{.python}\nprint(1)\n```", "print(1)\n"),
        ("```python title=a.py\nprint(1)\n```", "print(1)\n"),
        ("```pypy3\nprint(1)\n```", "print(1)\n"),
        ("``` python\nprint(1)\n```", "print(1)\n"),
        # Fences.
        ("```python\r\nif 1:\r\n    print(1)\r\n```\r\n", "if 1:\n    print(1)\n"),
        ("~~~python\nprint('```')\n~~~", "print('```')\n"),
        ("````python\nprint(1)\n```\nprint(2)\n````", "print(1)\n```\nprint(2)\n"),
        ("```python\nprint(1)\n````", "print(1)\n"),
        ("```python\nprint(1)\n``` That is it.", "print(1)\n"),
        ("```python\nprint(1)\n```.", "print(1)\n"),
        ("```python\nprint(1)\n```python\nprint(2)\n```", "print(2)\n"),
        ("1. So:\n   ```python\n   if 1:\n       print(1)\n   ```", "if 1:\n    print(1)\n"),
    ],
)
def test_program_is_the_last_complete_block_of_python(answer: str, program: str | None) -> None:
    assert last_program(answer) == program


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_shared_cases_are_read() -> None:
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    assert [(one["name"], (last_program(one["text"]) or "").strip()) for one in cases] == [
        (one["name"], one["program"]) for one in cases
    ]


@pytest.mark.parametrize("hostile", ["(" * 100_000, "-" * 100_000 + "1", "x\0y", "[" * 300, '"""' * 999, "\\d" * 9])
def test_hostile_block_is_no_program_and_no_crash(hostile: str) -> None:
    assert last_program(f"```python\nprint(1)\n```\n```\n{hostile}\n```") == "print(1)\n"


@given(st.lists(st.sampled_from(["```", "```python", "~~~", "````", "print(1)", "1", "", "  ", "``` x"]), max_size=12))
def test_blocks_are_made_of_the_texts_own_lines(lines: list[str]) -> None:
    found = list(blocks("\n".join(lines)))
    assert all(line.strip() in {one.strip() for one in lines} for one in found for line in one.content.splitlines())
