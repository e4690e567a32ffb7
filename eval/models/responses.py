"""Reasoning and answer of a model's output: how providers write them into Inspect's logs and scorers read them.

Reads and writes nothing else. The models of `eval/models/inspect_models.py` and `eval/models/hf_local.py` answer with
`message_of`, so that an opener that was in the prompt, or a thought that was cut off, is told apart once, by
`pipelines/thinking.py`.
"""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage, ChatMessageAssistant, Content, ContentReasoning, ContentText, ModelOutput

from pipelines.errors import unknown
from pipelines.thinking import OPEN, Thought, join, split

PARTS = ("answer", "full")
# In the metadata of a last message, an assistant's: the response is to go on from it.
BEGUN = "begun"


def message_of(thought: Thought, model: str) -> ChatMessageAssistant:
    """The message: reasoning where there is one, and the answer, which may be empty.

    Where the reasoning was found decides whether it is well formed, so the log keeps it, as the metadata `source`.
    """
    content: str | list[Content] = thought.answer
    if thought.source != "none":
        content = [ContentReasoning(reasoning=thought.reasoning), ContentText(text=thought.answer)]
    metadata = {"source": thought.source}
    return ChatMessageAssistant(content=content, model=model, source="generate", metadata=metadata)


def thought_of(output: ModelOutput) -> Thought:
    """Reasoning and answer of an output, whichever provider made it; both empty where it says nothing."""
    if not output.choices:
        return Thought("", "", "none")
    message = output.choices[0].message
    if isinstance(message.content, str):
        known = "source" in (message.metadata or {})
        return Thought("", message.content, "none") if known else split(message.content)
    answer = "".join(part.text for part in message.content if isinstance(part, ContentText))
    thoughts = [part.reasoning for part in message.content if isinstance(part, ContentReasoning)]
    if not thoughts:
        return split(answer)
    return Thought("\n\n".join(thoughts), answer, (message.metadata or {}).get("source", "reasoning"))


def is_begun(messages: Sequence[ChatMessage]) -> bool:
    """Whether a chat ends with the beginning of its own response (`eval/models/begun.py`)."""
    return bool(messages) and bool((messages[-1].metadata or {}).get(BEGUN))


def whole(thought: Thought) -> str:
    """The response as one text, as a reader without a parser of reasoning has it."""
    if not thought.reasoning:
        return thought.answer
    cut = thought.source == "truncated" and not thought.answer
    return f"{OPEN}\n{thought.reasoning}" if cut else join(thought.reasoning, thought.answer)


def part_of(thought: Thought, part: str) -> str:
    """What is scored of a response by the setting `part` of its task: "answer", or "full" for all of it.

    Raises:
        UserError: another part.
    """
    if part not in PARTS:
        raise unknown("part of a response", part, PARTS)
    return thought.answer if part == "answer" else whole(thought)
