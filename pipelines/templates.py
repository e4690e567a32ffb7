"""Templates: the one place where a text with `{{ names }}` in it is filled in.

A template may come from anybody: a release's instruction, a judge of form `template`, a user's --instruction file. It
is data until it has been read here. Its syntax tree may hold text, listed names, `if`, `for` over a listed name,
comparisons and a few filters, and nothing else: no attribute, call, item, arithmetic, assignment, macro or include.
What is left is rendered in jinja2's immutable sandbox, without globals, up to a bounded length. Our own prompts are
rendered by the same rules. Reads and writes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipelines.errors import UserError

MOST_CHARS = 200_000
_MOST_NODES = 5_000
_DEEPEST = 12
_MOST_LOOPS = 2
# A template may show each of its values a few times; what writes more is a bomb.
_SPARE_CHARS = 1_000_000
_TIMES = 8
_LARGEST_NUMBER = 10**9
_LONGEST_SEPARATOR = 20
_NAMING = ("attr", "name")
_LENGTHENING = ("join", "quoted")
_EXPRESSIONS = (nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not)
_STRUCTURE = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If)
_TESTS = ("defined", "none")
_WORDS = {
    nodes.Getattr: "an attribute",
    nodes.Getitem: "an item",
    nodes.Call: "a call",
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.Concat: "~",
    nodes.Block: "block",
    nodes.With: "with",
}


def _environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=False, lstrip_blocks=False
    )
    made.globals.clear()
    kept = ("capitalize", "length", "lower", "title", "trim", "upper", "join")
    made.filters = {name: made.filters[name] for name in kept}
    # Not jinja's own `tojson`, which escapes for HTML: a teacher would read \u0027 for an apostrophe.
    made.filters["quoted"] = lambda value: json.dumps(value, ensure_ascii=False)
    made.tests = {name: made.tests[name] for name in _TESTS} | {"undefined": made.tests["undefined"]}
    return made


_PLAIN = _environment()
# Blocks that stand alone on a line leave no line behind, as our own longer prompts want it.
_TRIMMED = _environment().overlay(trim_blocks=True, lstrip_blocks=True)


class Template:
    """A template that was read and found to ask for nothing but its names; see `template_of`."""

    def __init__(self, compiled: jinja2.Template, looped: frozenset[str], what: str) -> None:
        self._compiled = compiled
        self._looped = looped
        self._what = what

    def render(self, **values: Any) -> str:
        """The text with its values in place.

        Raises:
            UserError: it grows beyond all bounds, or names a value that is not there.
        """
        # Character by character, two loops over a long answer would never end.
        if self._looped and (texts := sorted(name for name in self._looped if isinstance(values.get(name), str))):
            raise UserError(f"{self._what}: '{texts[0]}' is one text, and no list to loop over.")
        most = _SPARE_CHARS + _TIMES * _size(values)
        written: list[str] = []
        length = 0
        try:
            for piece in self._compiled.generate(**values):
                length += len(piece)
                if length > most:
                    raise UserError(f"{self._what} writes more than {most:,} characters, and was stopped.")
                written.append(piece)
        except (jinja2.TemplateError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{self._what} is not a template that can be filled in: {_line(error)}") from error
        return "".join(written)


@lru_cache(maxsize=128)
def template_of(text: str, names: tuple[str, ...], what: str, trimmed: bool = False) -> Template:
    """Read a template.

    Args:
        names: The values it may name; those that are lists may be looped over.
        what: The template's name at the beginning of an error: "The instruction for 'short'".
        trimmed: Whether a block that stands alone on a line leaves no empty line.

    Raises:
        UserError: it is no template, or wants more than the names; with the line and the word.
    """
    if len(text) > MOST_CHARS:
        raise UserError(f"{what} has {len(text):,} characters; a template has at most {MOST_CHARS:,}.")
    environment = _TRIMMED if trimmed else _PLAIN
    try:
        tree = environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{what}, line {error.lineno}, is not a template: {error.message}") from error
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{what} is not a template: {_line(error)}") from error
    reader = _Reader(names, what)
    reader.read(tree)
    return Template(environment.from_string(text), frozenset(reader.looped), what)


class _Reader:
    """Walks a syntax tree and refuses the first thing that a template has no use for."""

    def __init__(self, names: tuple[str, ...], what: str) -> None:
        self._names = names
        self._what = what
        self._left = _MOST_NODES
        self.looped: set[str] = set()

    def read(self, tree: nodes.Node) -> None:
        self._visit(tree, frozenset(self._names), 0, 0)

    def _refuse(self, node: nodes.Node, why: str) -> UserError:
        known = ", ".join(self._names) or "no names"
        return UserError(
            f"{self._what}, line {node.lineno}: {why}. A template holds text, these names: {known}; if and for over "
            f"them, and the filters {', '.join(sorted(_PLAIN.filters))}."
        )

    def _visit(self, node: nodes.Node, known: frozenset[str], depth: int, loops: int) -> None:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise self._refuse(node, "it is too large or too deeply nested")
        if isinstance(node, nodes.For):
            self._loop(node, known, depth, loops)
            return
        if isinstance(node, nodes.Name):
            if node.ctx != "load" or node.name not in known:
                raise self._refuse(node, f"there is no '{node.name}' here")
        elif isinstance(node, nodes.Const):
            self._constant(node)
        elif isinstance(node, nodes.Filter):
            self._filter(node)
        elif isinstance(node, nodes.Test):
            if node.name not in _PLAIN.tests or node.args or node.kwargs:
                raise self._refuse(node, f"the test '{node.name}' is not allowed")
        elif not isinstance(node, (*_STRUCTURE, *_EXPRESSIONS)):
            word = _WORDS.get(type(node), type(node).__name__.lower())
            detail = next(
                (
                    str(getattr(item, key))
                    for item in (node, *node.iter_child_nodes())
                    for key in _NAMING
                    if isinstance(getattr(item, key, None), str)
                ),
                "",
            )
            raise self._refuse(node, f"{word}{f' ({detail[:60]})' if detail else ''} is not allowed")
        for child in node.iter_child_nodes():
            self._visit(child, known, depth + 1, loops)

    def _constant(self, node: nodes.Const) -> None:
        value = node.value
        large = isinstance(value, int | float) and not -_LARGEST_NUMBER < value < _LARGEST_NUMBER
        if large or not isinstance(value, str | int | float | bool | None):
            raise self._refuse(node, "a number of this size is not allowed")

    def _filter(self, node: nodes.Filter) -> None:
        if node.name not in _PLAIN.filters:
            raise self._refuse(node, f"the filter '{node.name}' is not allowed")
        separator = node.args[0] if node.name == "join" and len(node.args) == 1 else None
        short = isinstance(separator, nodes.Const) and len(str(separator.value)) <= _LONGEST_SEPARATOR
        if node.kwargs or node.dyn_args or node.dyn_kwargs or (node.args and not short):
            raise self._refuse(node, f"the filter '{node.name}' takes nothing here but join a short text")
        # One filter that lengthens a text, on top of another, would double it with each.
        if node.node is None or (node.name in _LENGTHENING and not isinstance(node.node, nodes.Name)):
            raise self._refuse(node, f"the filter '{node.name}' stands right behind a name")

    def _loop(self, node: nodes.For, known: frozenset[str], depth: int, loops: int) -> None:
        if loops >= _MOST_LOOPS:
            raise self._refuse(node, f"more than {_MOST_LOOPS} loops inside each other are not allowed")
        if node.recursive:
            raise self._refuse(node, "a recursive loop is not allowed")
        if not isinstance(node.iter, nodes.Name) or node.iter.name not in self._names:
            raise self._refuse(node, "a loop goes over one of the names alone")
        self.looped.add(node.iter.name)
        targets = node.target.items if isinstance(node.target, nodes.Tuple) else [node.target]
        inner = set(known)
        for target in targets:
            if not isinstance(target, nodes.Name) or target.name in self._names:
                raise self._refuse(node, "a loop's variable is a new name")
            inner.add(target.name)
        if node.test is not None:
            self._visit(node.test, frozenset(inner), depth + 1, loops + 1)
        for child in node.body:
            self._visit(child, frozenset(inner), depth + 1, loops + 1)
        for child in node.else_:
            self._visit(child, known, depth + 1, loops)


def _size(value: Any) -> int:
    """Characters in a value, whatever it is made of."""
    if isinstance(value, str):
        return len(value)
    # What most values are, before the slower look at what they might be.
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, Sequence):
        return sum(map(_size, value))
    return 20


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
