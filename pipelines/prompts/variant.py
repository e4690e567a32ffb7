"""Variants: how a prompt is put to a teacher, and the shape that the response must have.

Reads `pipelines/prompts/variants/NAME/variant.yaml` and `instruction.md.jinja`; adding a folder adds a variant. The
instruction is for the teacher's eyes only: what is trained on is the bare prompt.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypedDict

from pydantic import Field, StrictBool, ValidationError

from pipelines.documents import yaml_of
from pipelines.errors import UserError, unknown
from pipelines.settings.old_names import OLD_NAMES
from pipelines.settings.parts import Part
from pipelines.templates import Template, template_of

FOLDER = Path(__file__).parent / "variants"
# The order of the study's table; folders beyond these follow in alphabetical order.
_ORDER = ("direct", "realsafe", "improved", "short", "template", "nocot")


class Message(TypedDict):
    """One chat message as the OpenAI protocol has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Shape(Part):
    """What a response must look like; the quality checks read it."""

    reasoning_words: tuple[int, int] = Field(description="fewest and most words of reasoning")
    refusal_begins: str | None = Field(default=None, description="the word a refusal begins with")
    lines: tuple[str, ...] = Field(default=(), description="what each line of the reasoning opens with, in order")


class Variant(Part):
    """One folder under `pipelines/prompts/variants`."""

    name: str
    description: str
    teacher: Literal["reasoning", "general", "none"]
    placement: Literal["user", "system", "none"]
    shape: Shape
    repaired: StrictBool = Field(
        default=True, description="whether a flagged answer to a harmful prompt is asked again"
    )
    pattern_checked: StrictBool = Field(default=True, description="whether such an answer is rejected for a pattern")
    fixed_answer: str | None = None
    instruction: str = ""

    def messages(self, query: str) -> list[Message]:
        """What is sent to the teacher for one prompt. The query is data to the template, never template text."""
        if self.placement == "system":
            system = self._template().render(lines=self.shape.lines)
            return [Message(role="system", content=system), Message(role="user", content=query)]
        return [Message(role="user", content=self._template().render(query=query, lines=self.shape.lines))]

    def _template(self, file: str = "") -> Template:
        what = file or f"The instruction for '{self.name}'"
        if self.placement == "system":
            return template_of(
                self.instruction, ("lines",), f"{what}, a system message that the query follows by itself"
            )
        return template_of(self.instruction, ("query", "lines"), what)

    def instruction_hash(self) -> str:
        """sha256 of the instruction's template text, for the lineage."""
        return sha256(self.instruction.encode()).hexdigest()


@cache
def load_variants(folder: Path = FOLDER) -> dict[str, Variant]:
    """Every variant under `folder`, by name.

    Raises:
        UserError: a `variant.yaml` that does not fit, or an instruction that is missing or broken.
    """
    found: dict[str, Variant] = {}
    for path in folder.glob("*/variant.yaml"):
        name = path.parent.name
        if name in OLD_NAMES:
            raise UserError(f"{path.parent}: '{name}' is what '{OLD_NAMES[name]}' was called. Give it another name.")
        instruction = path.with_name("instruction.md.jinja")
        try:
            fields = yaml_of(path.read_text(encoding="utf-8"), str(path))
            text = instruction.read_text(encoding="utf-8") if fields["teacher"] != "none" else ""
            found[name] = Variant(name=name, instruction=text, **fields)
            found[name]._template(str(instruction))
        except (TypeError, KeyError, ValidationError) as error:
            raise UserError(f"{path} does not describe a variant: {' '.join(str(error).split())}") from error
        except FileNotFoundError as error:
            raise UserError(f"Variant '{name}' has no {instruction.name}; write it beside {path}.") from error
    ordered = [name for name in _ORDER if name in found] + sorted(set(found) - set(_ORDER))
    return {name: found[name] for name in ordered}


def variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        UserError: there is none; the choices are listed.
    """
    variants = load_variants()
    if name not in variants:
        raise unknown("variant", name, variants)
    return variants[name]


def reworded(entry: Variant, instruction: str | None) -> Variant:
    """The same variant with another instruction, as it is where that is None.

    Raises:
        UserError: the variant asks nobody, the text is no template, or it leaves the query out.
    """
    if instruction is None:
        return entry
    if entry.teacher == "none":
        raise UserError(f"Variant '{entry.name}' asks nobody, so it has no instruction to replace.")
    changed = entry.model_copy(update={"instruction": instruction})
    probe = "a query that no instruction contains"
    if probe not in "".join(message["content"] for message in changed.messages(probe)):
        raise UserError(f"The instruction for '{entry.name}' never shows the query: put {{{{ query }}}} into it.")
    return changed
