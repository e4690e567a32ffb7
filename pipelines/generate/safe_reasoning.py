"""`SafeReasoning`: a variant of safe reasoning as a task of Distilabel's, for anybody's pipeline.

Reads the variant's folder; writes nothing. Importing it imports distilabel, which takes a second.
"""

from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from pipelines.errors import UserError
from pipelines.generate.imports import muted_imports
from pipelines.prompts.variant import Message, variant
from pipelines.thinking import split

with muted_imports():
    from distilabel.steps import StepInput
    from distilabel.steps.tasks import Task

if TYPE_CHECKING:
    from distilabel.typing import StepOutput

# What `ReasoningLLM` says beside a generation.
_OF_LLM = ("finish_reason", "error")


class SafeReasoning(Task):  # type: ignore[misc]
    """Puts a prompt to a reasoning model in one of our variants, and takes its response apart.

    Attributes:
        variant: A name of pipelines/prompts/variants, such as `direct` (the bare prompt), `realsafe`, `improved`,
            `short` or `template`.

    Input columns:
        - prompt (`str`): What the user asks.

    Output columns:
        - reasoning (`str`): The reasoning, without its marks; "" where the model showed none, null where it failed.
        - answer (`str`): The answer, null where it failed.
        - finish_reason (`str`): Why the model stopped; null from an LLM that does not say.
        - error (`str`): "", or what went wrong.
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
        return ["reasoning", "answer", *_OF_LLM, "model_name"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        """The chat that is sent for a row."""
        return variant(self.variant).messages(input["prompt"])

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """Reasoning and answer of a generation, null where it failed."""
        if output is None:
            return {"reasoning": None, "answer": None, "finish_reason": None, "error": "the LLM gave no generation"}
        thought = split(output)
        answer = {"reasoning": thought.reasoning.strip(), "answer": thought.answer.strip()}
        return {**answer, "finish_reason": None, "error": ""}

    def process(self, inputs: StepInput) -> "StepOutput":
        """The rows with our columns; what `ReasoningLLM` says beside a generation takes the place of what is known
        without it."""
        for rows in super().process(inputs):
            for row in rows:
                row.update((name, row.pop(f"llm_{self.name}_{name}", row[name])) for name in _OF_LLM)
            yield rows
