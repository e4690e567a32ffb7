"""What README.md and docs/ hold besides words: commands, files to write, Python, each with its page and line.

A fence `sh` is commands alone; in `console`, `$ ` begins a command and what follows is its output. In a fence without a
language a line is a command if it begins with `$ ` or with a program that is used anywhere. A fence with
`title="NAME"` is a file. `<!-- not run: REASON -->` before a fence says that it cannot be run here, and
`<!-- goes on from: PAGE -->` that the reader has followed another page first.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
# Pages whose commands are read and not run: they name servers, keys and runs of the reader's. What of it can be run
# here is run by the guides. Every other page, a new one too, is run from its first command to its last.
REFERENCE = {
    "docs/api.md": "paid APIs; tests/saferthoughts/test_api.py runs the examples of the docstrings",
    "docs/batch.md": "a paid API; tests/pipelines/test_batch.py runs it against the rehearsal teacher",
    "docs/benchmarks.md": "minutes each",
    "docs/cluster.md": "several machines; tests/pipelines/test_ray.py has a cluster of two nodes",
    "docs/curation.md": "docs/guides/curate.md runs the same on a small run",
    "docs/evaluation.md": "endpoints and guards; docs/guides/evaluate.md runs what needs none",
    "docs/judging.md": "paid judges and GPU servers",
    "docs/prompts.md": "files that others publish; tests/pipelines/test_published.py runs the same on small ones",
    "docs/proof.md": "tokenizers of the Hub; tests/training/test_proof.py runs the same on small ones",
    "docs/protocols.md": "guards and judges; tests/eval/test_presets.py runs every preset against stand-ins",
    "docs/recipes.md": "teachers and students of the reader's; tests/docs/test_recipes.py makes its figures",
    "docs/releases.md": "docs/guides/use-a-release.md runs the same",
    "docs/review.md": "docs/guides/curate.md runs the same",
    "docs/safety-tasks.md": "guards on GPU servers; tests/eval has stand-ins for them",
    "docs/service.md": "a server, certificates, a proxy; tests/service has them",
    "docs/study.md": "GPUs and paid APIs; tests/training/test_study.py runs a small study",
    "docs/teachers.md": "GPUs and paid APIs",
    "docs/training.md": "GPUs; docs/guides/fine-tune.md runs a small one",
}
PROGRAMS = (
    *("saferthoughts", "make", "python", "pip", "git", "source", "export", "curl", "echo", "cat"),
    *("vllm", "ray", "accelerate", "hf", "inspect"),
)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
_GOES_ON = re.compile(r"<!-- goes on from: (\S+) -->")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Command:
    """One command line. `output` is what the page shows of it, None if nothing; `not_run` why it is only read."""

    page: str
    line: int
    text: str
    output: str | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class File:
    """A file that the page has its reader write."""

    page: str
    line: int
    name: str
    text: str


@dataclass(frozen=True)
class Snippet:
    """Python: a fence `python`, or `pycon` with what it prints."""

    page: str
    line: int
    text: str
    with_output: bool
    not_run: str | None = None


Part = Command | File | Snippet


def with_sources(folder: Path) -> Path:
    """A folder in which the site can be built: docs/ and mkdocs.yml are copies, all else that pages name is linked."""
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for entry in ROOT.iterdir():
        if entry.name[0] != "." and entry.name != "site" and not (folder / entry.name).exists():
            (folder / entry.name).symlink_to(entry)
    return folder


def names() -> list[str]:
    """Every page, by its path below the project's folder."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def tokens(page: str) -> list[Token]:
    """The page as markdown-it reads it."""
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))


@cache
def parts(page: str) -> tuple[Part, ...]:
    """What the page has its reader do, in order. Fences `pycon` are one session, which stands where the first does."""
    reason = REFERENCE.get(page)
    found: list[Part] = []
    marked = None
    for token in tokens(page):
        if token.type == "html_block" and (match := _NOT_RUN.search(token.content)):
            marked = " ".join(match.group(1).split())
        elif token.type == "fence":
            found += _of_fence(page, token, marked or reason)
            marked = None
    session = [part for part in found if isinstance(part, Snippet) and part.with_output]
    if session:
        whole = replace(session[0], text="\n".join(part.text for part in session))
        found = [whole if part is session[0] else part for part in found if part not in session[1:]]
    return tuple(found)


def goes_on_from(page: str) -> str | None:
    """The page that its reader has followed before this one."""
    match = _GOES_ON.search((ROOT / page).read_text(encoding="utf-8"))
    return match.group(1) if match else None


def commands(page: str) -> list[Command]:
    """The page's command lines."""
    return [part for part in parts(page) if isinstance(part, Command)]


def mentions(page: str) -> list[Command]:
    """Commands of ours that stand within a sentence, in backticks; they may leave out what the sentence says."""
    return [
        Command(page, (token.map or [0])[0] + 1, child.content)
        for token in tokens(page)
        for child in token.children or ()
        if child.type == "code_inline" and re.match(r"(saferthoughts|python -m benchmarks\.)", child.content)
    ]


def _of_fence(page: str, token: Token, not_run: str | None) -> Iterator[Part]:
    assert token.map is not None
    first = token.map[0] + 2
    language, _, more = token.info.strip().partition(" ")
    if title := _TITLE.search(more):
        yield File(page, first, title.group(1), token.content)
    elif language in ("python", "pycon"):
        yield Snippet(page, first, token.content, language == "pycon", not_run)
    elif language in ("", "sh", "console"):
        yield from _of_lines(page, token.content, first, language, not_run)


def _of_lines(page: str, content: str, first: int, language: str, not_run: str | None) -> Iterator[Command]:
    lines = list(enumerate(content.splitlines(), first))
    while lines:
        number, text = lines.pop(0)
        if not _is_command(text, language):
            continue
        while text.endswith("\\"):
            text = text[:-1] + lines.pop(0)[1].strip()
        shown: list[str] = []
        while language == "console" and lines and not lines[0][1].startswith("$ "):
            shown.append(lines.pop(0)[1])
        yield Command(page, number, text.removeprefix("$ "), "\n".join(shown) + "\n" if shown else None, not_run)


def _is_command(text: str, language: str) -> bool:
    if language == "sh":
        return bool(text.strip()) and not text.startswith("#")
    return text.startswith("$ ") or (language == "" and text.split(" ")[0] in PROGRAMS)
