"""What is known of the shipped judges: what each looks for, licence, size, and the figures that its authors publish.

Reads `published.yaml` and `judges.yaml`; writes nothing. `saferthoughts judge list` shows it.
"""

from pathlib import Path

from pipelines.settings.judge import Judge, load_judges
from pipelines.settings.parts import Part, read_yaml, validated

_FILE = Path(__file__).with_name("published.yaml")
_UNKNOWN = "not published here"


class Published(Part):
    """One judge, in words; figures are those of its authors, on sets of their own choice."""

    looks_for: str
    licence: str
    size: str = _UNKNOWN
    figures: str = _UNKNOWN
    source: str = ""


def published() -> dict[str, tuple[Judge, Published]]:
    """Every shipped judge's entry with what is known of it.

    Raises:
        RuntimeError: a judge is in one of the two files only.
    """
    values, judges = read_yaml(_FILE), load_judges()
    if set(values) != set(judges):
        raise RuntimeError(f"{_FILE.name} and judges.yaml differ: {sorted(set(values) ^ set(judges))}")
    return {name: (judge, validated(Published, values[name], f"'{name}' in {_FILE}")) for name, judge in judges.items()}
