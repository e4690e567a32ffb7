"""The messages of the errors that users meet, read from the sources, for docs/errors.md and its test.

A message is what a call of `UserError`, of a class made of it, or of `unknown` is given, with `…` for what is filled
in. Each belongs to the section of docs/errors.md that names its place: a file, a file and function, or a folder; the
nearest wins. As an extension of the site's Markdown it puts a section's messages below it, so that the search finds
each by its words.
"""

import ast
import html
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

ROOT = Path(__file__).absolute().parents[1]
AREAS = ("pipelines", "curation", "cards", "training", "eval", "saferthoughts", "service")
# A section's places, in a comment that no reader sees: `<!-- from: pipelines/runs.py, pipelines/files.py:opened -->`.
PLACES = re.compile(r"<!-- from: (.+?) -->", re.DOTALL)


@dataclass(frozen=True)
class Message:
    """One message: its file, the function that gives it, its line, the class of the error and its words."""

    file: str
    function: str
    line: int
    kind: str
    words: str

    @property
    def places(self) -> tuple[str, ...]:
        """Where a section may name it, the nearest first; `unknown` and `Interrupted` are so wherever they are."""
        folders = [f"{parent.as_posix()}/" for parent in Path(self.file).parents][:-1]
        own = (self.kind,) if self.kind in ("unknown", "Interrupted") else ()
        return (*own, f"{self.file}:{self.function}", self.file, *folders)


@cache
def messages() -> tuple[Message, ...]:
    """Every message of the sources, by file and line."""
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for area in AREAS
        for path in sorted((ROOT / area).rglob("*.py"))
    }
    kinds = {"UserError", "BadParameter"}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while found := {one.name for one in classes if kinds & {_name(base) for base in one.bases}} - kinds:
        kinds |= found
    return tuple(message for file, tree in trees.items() for message in _in_function(tree, file, "", kinds))


def _in_function(node: ast.AST, file: str, function: str, kinds: set[str]) -> list[Message]:
    found = []
    for child in ast.iter_child_nodes(node):
        here = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Call) and child.args:
            kind, words = _name(child.func), _words(child.args[0])
            if kind == "unknown":
                words = f"Unknown {words} '…'. Choose from: …"
            if kind in {"unknown", *kinds}:
                found.append(Message(file, here, child.lineno, kind, words))
        found += _in_function(child, file, here, kinds)
    return found


def _name(node: ast.AST) -> str:
    return ast.unparse(node).rpartition(".")[2]


def _words(node: ast.AST) -> str:
    """A text as it is written, with `…` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(map(_words, node.values)))
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body)} / {_words(node.orelse)}"
    return "…"


def sections(page: str) -> dict[str, tuple[str, ...]]:
    """The places that each section of a page names, by its heading."""
    found: dict[str, tuple[str, ...]] = {}
    for part in re.split(r"^#{2,3} ", page, flags=re.MULTILINE)[1:]:
        if match := PLACES.search(part):
            found[part.partition("\n")[0]] = tuple(re.split(r",\s+", match[1].strip()))
    return found


def belonging(page: str) -> dict[str | None, list[Message]]:
    """The messages of each section of a page; under None those that no section names."""
    section_of = {place: heading for heading, places in sections(page).items() for place in places}
    found: dict[str | None, list[Message]] = defaultdict(list)
    for message in messages():
        place = next((place for place in message.places if place in section_of), None)
        found[place and section_of[place]].append(message)
    return found


class Listed(Preprocessor):
    """Puts a section's messages in the place of its comment."""

    def run(self, lines: list[str]) -> list[str]:
        """The page with them."""
        page = "\n".join(lines)
        if not PLACES.search(page):
            return lines
        shown = {heading: sorted({one.words for one in found}) for heading, found in belonging(page).items()}
        parts = re.split(r"^(?=#{2,3} )", page, flags=re.MULTILINE)
        return "".join(self._with_messages(part, shown) for part in parts).split("\n")

    def _with_messages(self, part: str, shown: dict[str | None, list[str]]) -> str:
        heading = part.partition("\n")[0].lstrip("# ")
        return PLACES.sub(lambda _: _listed(shown.get(heading, [])), part)


def _listed(words: list[str]) -> str:
    lines = "".join(f"<li><code>{html.escape(one)}</code></li>" for one in words)
    return f"<details><summary>Its messages ({len(words)})</summary><ul>{lines}</ul></details>"


class ListedExtension(Extension):
    """Registers it before whatever reads HTML."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Called by Markdown."""
        md.preprocessors.register(Listed(md), "error_messages", 101)


def makeExtension(**_: object) -> ListedExtension:
    """Called by Markdown."""
    return ListedExtension()
