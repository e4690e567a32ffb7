"""What the ground plan promises: areas import downwards only, modules say what they are, nothing is named after us."""

import ast
import re
from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each may import itself and those before it. Command line and service are callers of the API, `saferthoughts`.
AREAS = ["pipelines", "curation", "cards", "training", "eval", "saferthoughts", "service", "saferthoughts.cli"]
SOURCES = sorted({path for area in AREAS for path in (ROOT / area.replace(".", "/")).rglob("*.py")})


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            modules += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            modules.append(node.module or "")
    return modules


def area_of(module: str) -> int | None:
    """Where a module's area stands in `AREAS`, None for a module of others."""
    module = "saferthoughts.cli" if module == "saferthoughts.__main__" else module
    within = [at for at, area in enumerate(AREAS) if f"{module}.".startswith(f"{area}.")]
    return max(within, key=lambda at: len(AREAS[at]), default=None)


def test_areas_import_downwards_only() -> None:
    found = []
    for path in SOURCES:
        here = area_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        assert here is not None, path
        found += [f"{named(path)} imports {name}" for name in imported(path) if (area_of(name) or 0) > here]
    assert found == []


def edges(path: Path, modules: Mapping[str, Path]) -> set[str]:
    """The modules of ours that one imports: at its top or inside a function, but not for type checkers alone."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(name.name for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                whole = [f"{child.module}.{name.name}" for name in child.names]
                found.update(name if name in modules else child.module or "" for name in whole)
            walk(child)

    walk(tree(path))
    return found & modules.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    graph = {name: edges(path, modules) - {name} for name, path in modules.items()}
    assert len(graph) == len(SOURCES)
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_every_module_says_what_it_is() -> None:
    assert [named(path) for path in SOURCES if not ast.get_docstring(tree(path))] == []


def test_texts_are_printed_without_markup_everywhere() -> None:
    # `pipelines.progress.plain_console` makes every console: another would read brackets of a text as markup.
    odd = re.compile(
        r"(?<![\w.])(rich\.)?Console\(|rich\.markup|from_markup|markup=True|rich import print|rich\.print\("
    )
    found = [
        f"{named(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if odd.search(line) and path.name != "progress.py"
    ]
    assert found == []


def test_no_line_names_a_home_folder_or_leaves_work_behind() -> None:
    # Spelled apart so that this file does not find itself.
    words = re.compile("|".join(["/ho" + "me/", "/wo" + "rk/", "TO" + "DO", "FIX" + "ME"]))
    kinds, skipped = {".py", ".md", ".yaml", ".toml", ".jinja", ".sql"}, {".venv", ".git", "runs"}
    tops = [top for top in ROOT.iterdir() if top.name not in skipped]
    texts = [path for top in tops for path in (top, *top.rglob("*")) if path.suffix in kinds]
    found = [
        f"{named(path)}:{number}"
        for path in texts
        if not skipped & set(path.relative_to(ROOT).parts)
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if words.search(line)
    ]
    assert found == []


def test_no_name_is_told_or_said() -> None:
    words = {"told", "said", "tell", "story"}
    found = []
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(tree(path)):
            name = getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "name", None)
            if isinstance(name, str) and not name.startswith("test_") and words & set(name.lower().split("_")):
                found.append(f"{named(path)}: {name}")
    assert sorted(set(found)) == []
