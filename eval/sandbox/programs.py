"""The program of an answer: its last fenced block that is Python.

Reads a text and writes nothing; `eval/tasks/livecodebench.py` gives it the answer part of a response.

Fences are CommonMark's (three or more backticks or tildes, closed by at least as many, indented or not, any line ends),
with what models write beyond it: text behind a closing fence, and a new opening fence where the old block never closed.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_PYTHON = re.compile(r"(?:c|i|micro)?py(?:thon|py)?[0-9.]*|\S+\.py", re.IGNORECASE)
_OPENING = re.compile(r"([ \t\ufeff\u200b]*)(`{3,}|~{3,})[ \t]*([^`\n]*)")
_LANGUAGE = re.compile(r"[{.\s]*([^\s{}:=,]*)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block that was closed: the first word behind its opening fence ("" for none), and its content."""

    language: str
    content: str

    @property
    def is_python(self) -> bool:
        """Whether it is a program by its label, or has none and is one as Python; a label holds where it is broken."""
        if self.language:
            return bool(_PYTHON.fullmatch(self.language)) and _does_something(self.content, if_broken=True)
        return _does_something(self.content, if_broken=False)


def last_program(answer: str) -> str | None:
    """The content of the last complete fenced block that is Python, None where there is none.

    A block is a program where it is more than values and names for them: the sample output `1` and the sample input
    `n = 3` are none. A block without a language has to compile as well, and to be more than a call of anything but
    print. Where no block is a program, the last one that is called Python or nothing is what the answer offers.
    """
    found = list(blocks(answer))
    programs = [one for one in found if one.is_python]
    offered = programs or [
        one for one in found if one.content.strip() and (not one.language or _PYTHON.fullmatch(one.language))
    ]
    return offered[-1].content if offered else None


def between_last_fences(response: str) -> str | None:
    """What stands between the last two lines with a fence, whatever they open or close; None where there are no two.

    LiveCodeBench's own reading of a response.
    """
    lines = response.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else None


def blocks(text: str) -> Iterator[Block]:
    """Every complete fenced block of a text, in order."""
    fence = indent = language = ""
    lines: list[str] = []
    for line in re.split(r"\r\n|\r|\n", text):
        opening = _OPENING.fullmatch(line)
        if fence and (behind := _behind(line, fence)) is not None:
            yield Block(language, "".join(f"{one}\n" for one in lines))
            # A word glued to the fence is the language of a block that begins.
            if not re.fullmatch(r"[\w+#.-]*\w[\w+#.-]*", behind):
                fence = ""
                continue
        elif fence and line.endswith(fence) and not re.search(r"[`~'\"]", line.removesuffix(fence)):
            # Glued to the last line of code.
            yield Block(language, "".join(f"{one}\n" for one in [*lines, _outdented(line.removesuffix(fence), indent)]))
            fence = ""
            continue
        elif fence:
            lines.append(_outdented(line, indent))
            continue
        if opening:
            indent, fence, language = opening[1], opening[2], _language(opening[3])
            lines = []


def _behind(line: str, fence: str) -> str | None:
    """The text after a fence that closes a block, None where the line closes none."""
    stripped = line.strip()
    rest = stripped.lstrip(fence[0])
    return rest.rstrip() if len(stripped) - len(rest) >= len(fence) else None


def _language(info: str) -> str:
    found = _LANGUAGE.match(info)
    return found[1].lower() if found else ""


def _outdented(line: str, indent: str) -> str:
    """A line without the indentation of its opening fence, as far as it has it."""
    common = 0
    while common < min(len(indent), len(line)) and line[common] in " \t":
        common += 1
    return line[common:]


def _only_call(tree: ast.Module) -> str | None:
    """The name that is called, of a text that is one call and nothing else."""
    match tree.body:
        case [ast.Expr(value=ast.Call(func=ast.Name(id=name)))]:
            return name
    return None


def _does_something(code: str, if_broken: bool) -> bool:
    """Whether a text compiles as Python and has a call in it, or a statement that is no assignment."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that Python does not know is a SyntaxWarning
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return if_broken and bool(code.strip())
    if not if_broken and _only_call(tree) not in (None, "print"):
        return False  # `O(n)`, or `main()` to run what stands above
    idle = ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Pass
    return any(isinstance(node, ast.Call | ast.stmt) and not isinstance(node, idle) for node in ast.walk(tree))
