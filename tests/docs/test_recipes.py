"""docs/recipes.md names every recipe and teacher, with what `study plan` says that each takes."""

import json
import os
import re
from pathlib import Path

from pipelines.settings.judge import load_judges
from pipelines.settings.teacher import load_teachers
from tests.commands import command
from tests.docs.pages import ROOT
from training.recipes.recipe import load_recipe, recipe_names

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
# What the plan reckons for all: a method's rows, on the questions of a small suite.
_STUDY = {
    "title": "What each recipe takes",
    "methods": {},
    "evaluations": {"quick": {"suite": "quick", "guard": "rules", "limit": 8}},
}


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of a section's table by the name in its first column."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for name, *cells in lines}


def plan(folder: Path, **parts: object) -> str:
    (folder / "all.yaml").write_text(json.dumps(_STUDY | parts), encoding="utf-8")
    done = command(["study", "plan", "all.yaml"], folder, {**os.environ, "SAFERTHOUGHTS_RUNS": "runs"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_recipe_is_there_with_what_its_training_takes(tmp_path: Path) -> None:
    shown, recipes = rows("Students"), {name: load_recipe(name) for name in recipe_names()}
    assert set(shown) == set(recipes)
    reckoned = [name for name, one in recipes.items() if one.objective == "sft" and isinstance(one.mixture, str)]
    found = ""
    for mixture in {str(recipes[name].mixture) for name in reckoned}:
        names = [name for name in reckoned if recipes[name].mixture == mixture]
        found += plan(
            tmp_path,
            runs={"r1": {"teacher": "deepseek", "harmful": 100, "benign": 40}},
            methods={"improved": {"run": "r1", "mixture": mixture}},
            students={name: {"recipe": name} for name in names},
        )
    hours = dict(re.findall(r"train (\S+) improved 42: (.+) GPU-hours", found))
    assert {name: cells[0] for name, cells in shown.items() if name in reckoned} == hours
    assert {cells[0] for name, cells in shown.items() if name not in reckoned} == {"not reckoned"}


def test_every_teacher_is_there_with_what_a_run_takes(tmp_path: Path) -> None:
    shown = rows("Teachers")
    judges = {judge.teacher for judge in load_judges().values()}
    assert set(load_teachers()) - judges <= set(shown) <= set(load_teachers())
    asked = ("rehearsal", "deepseek", "vllm")
    found = plan(
        tmp_path,
        runs={name: {"teacher": name, "harmful": 100, "benign": 40} for name in asked},
        methods={name: {"run": name, "mixture": {"improved": 10}} for name in asked},
        students={"smollm2-135m": {"recipe": "smollm2-135m-cpu"}},
    )
    taken = dict(re.findall(r"data (\S+): ([\d,]+ requests, about [\d,]+ tokens)", found))
    assert set(taken) == set(asked)
    assert {words.replace(", about", " and about") for words in taken.values()} == set(
        re.findall(r"[\d,]+ requests and about [\d,]+ tokens", PAGE)
    )
