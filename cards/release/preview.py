"""The plan of a regeneration as the text that the user agrees to: who is asked for what. Reads and writes nothing."""

from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

from pipelines.errors import visible
from pipelines.prompts.variant import load_variants
from pipelines.settings.config import RunConfig
from pipelines.settings.judge import load_judges
from pipelines.settings.teacher import Teacher


def preview(folder: Path, lineage: dict[str, Any], config: RunConfig, harmful: int, benign: int) -> str:
    """Every endpoint that will be asked, and every text that is sent and is not ours."""
    lines = [
        f"From {folder}: {lineage['title']}, version {lineage['version']}",
        f"prompts: {harmful} harmful, {benign} benign, each {config.samples} times in {', '.join(config.variants)}",
        *(f"teacher {name}: {_where(teacher)}" for name, teacher in config.teachers.items()),
        *_judges(config),
        *_instructions(config),
    ]
    return "\n".join(map(visible, lines))


def _where(teacher: Teacher) -> str:
    key = f", key from {teacher.api_key_env}" if teacher.api_key_env else ""
    started = f", starts vllm serve {teacher.serve.model} {' '.join(teacher.serve.args)}" if teacher.serve else ""
    return f"{teacher.model}, {teacher.place}{key}{started}"


def _judges(config: RunConfig) -> Iterator[str]:
    shipped = load_judges()
    for name in config.judging.judges:
        judge = config.judges[name]
        asked = "rules, asks nobody" if judge.teacher is None else f"{judge.teacher}: "
        yield f"judge {name}: {asked}{_where(config.judge_teachers[judge.teacher]) if judge.teacher else ''}"
        own = shipped[name].template if name in shipped else None
        if judge.template != own:
            yield f"judge {name} asks in the release's words, and takes {judge.safe!r} for safe, {judge.unsafe!r} not:"
            yield from _diff(own or "", judge.template or "")


def _instructions(config: RunConfig) -> Iterator[str]:
    shipped = load_variants()
    for name, text in config.instructions.items():
        yield f"The instruction of {name} is the release's, and not the shipped one:"
        yield from _diff(shipped[name].instruction, text)


def _diff(ours: str, theirs: str) -> Iterator[str]:
    # Not splitlines: it would end a line where a terminal does not.
    found = unified_diff(ours.split("\n"), theirs.split("\n"), "shipped", "release", lineterm="")
    yield from (f"  {line}" for line in found)
