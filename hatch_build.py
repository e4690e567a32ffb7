"""Build hook: SaferThoughts is worked from a clone; any other build is refused with the line that works."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableOnly(BuildHookInterface[Any]):
    """Stops `pip install .` (version "standard"), lets `pip install -e .` (version "editable") through."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            raise SystemExit(
                "SaferThoughts is worked from a clone and is not built into a wheel. "
                "From the clone's root, run: pip install -c constraints.txt -e '.[demo]'"
            )
