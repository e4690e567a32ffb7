"""The bundled examples: responses that people labelled by hand, to measure a judge by. Reads `examples.yaml` and
`examples_more.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from pipelines.judges.patterns import breach
from pipelines.records import LABELS, OVERTHINKING_SUBTYPES, Compliance, Kind
from pipelines.settings.parts import Part, read_yaml, validated

_FILES = tuple(Path(__file__).with_name(name) for name in ("examples.yaml", "examples_more.yaml"))


class Example(Part):
    """One response with its labels. `labels` names those that are set, `overthinking` added where a subtype is;
    `compliance` is given for benign prompts alone. `note` says what the example is there for."""

    id: str
    query: str
    reasoning: str
    answer: str
    labels: tuple[str, ...] = ()
    compliance: Compliance | None = None
    note: str = ""

    @property
    def kind(self) -> Kind:
        """Benign examples are those with a class of compliance."""
        return "harmful" if self.compliance is None else "benign"

    @model_validator(mode="before")
    @classmethod
    def _with_parent(cls, values: Mapping[str, object]) -> dict[str, object]:
        labels = [str(label) for label in values.get("labels") or ()]  # type: ignore[attr-defined]
        if set(labels) & set(OVERTHINKING_SUBTYPES):
            labels.append("overthinking")
        return {**values, "labels": tuple(labels)}

    @model_validator(mode="after")
    def _holds(self) -> "Example":
        if odd := set(self.labels) - set(LABELS):
            raise ValueError(f"unknown label {sorted(odd)[0]}")
        if fault := breach({label: label in self.labels for label in LABELS}):
            raise ValueError(fault)
        if self.compliance is not None and self.labels:
            raise ValueError("the patterns are defined for harmful prompts")
        return self


class _Examples(Part):
    examples: tuple[Example, ...] = Field(min_length=60)

    @model_validator(mode="after")
    def _distinct(self) -> "_Examples":
        names = [item.id for item in self.examples]
        if len(set(names)) != len(names):
            raise ValueError("two examples have one id")
        return self


@cache
def load_examples() -> tuple[Example, ...]:
    """Every bundled example.

    Raises:
        UserError: a file was edited into something that does not hold.
    """
    found = [example for file in _FILES for example in read_yaml(file)]
    return validated(_Examples, {"examples": found}, " and ".join(map(str, _FILES))).examples
