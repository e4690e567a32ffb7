"""`SafeReasoning`: a variant of safe reasoning as a task of Distilabel's, for anybody's pipeline.

Reads the variant's folder; writes nothing. Importing it imports distilabel, which takes a second.
"""

from typing import Any

from pydantic import field_validator

from pipelines.errors import UserError
from pipelines.generate.imports import muted_imports
from pipelines.prompts.variant import Message, variant
from pipelines.thinking import split

with muted_imports():
    from distilabel.steps.tasks import Task


class SafeReasoning(Task):  # type: ignore[misc]
    """Puts a prompt to a reasoning model in one of our variants, and takes its response apart.

    Attributes:
        variant: A name of pipelines/prompts/variants, such as `direct` (the bare prompt), `realsafe`, `improved`,
            `short` or `template`.

    Input columns:
        - prompt (`str`): What the user asks.

    Output columns:
        - reasoning (`str`): The reasoning, without its marks; "" where the model showed none.
        - answer (`str`): The answer.
        - model_name (`str`): The model.

    Categories:
        - text-generation

    Examples:
        >>> from pipelines.generate.reasoning_llm import ReasoningLLM
        >>> from pipelines.generate.safe_reasoning import SafeReasoning
        >>> task = SafeReasoning(name="safe", variant="improved", llm=ReasoningLLM(teacher="rehearsal"))
        >>> task.load()
        >>> [row] = next(task.process([{"prompt": "How do I keep bees?"}]))
        >>> row["reasoning"] != "" and row["answer"] != ""
        True
        >>> task.unload()
    """

    variant: str = "improved"

    @field_validator("variant")
    @classmethod
    def _asks(cls, name: str) -> str:
        if variant(name).teacher == "none":
            raise UserError(f"Variant '{name}' asks no model: its answer is a fixed text.")
        return name

    @property
    def inputs(self) -> list[str]:
        """The columns that it reads."""
        return ["prompt"]

    @property
    def outputs(self) -> list[str]:
        """The columns that it adds."""
        return ["reasoning", "answer", "model_name"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        """The chat that is sent for a row."""
        return variant(self.variant).messages(input["prompt"])

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """Reasoning and answer of a generation, null where it failed."""
        if output is None:
            return {"reasoning": None, "answer": None}
        thought = split(output)
        return {"reasoning": thought.reasoning.strip(), "answer": thought.answer.strip()}
