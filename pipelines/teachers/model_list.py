"""What a server's list of models tells: which there are, and how many tokens each takes.

Reads `GET /models`; writes nothing. Servers agree on the names only: what else they tell of a model has a name of its
own with each, and all of those are looked for.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import one_line
from pipelines.teachers.transport import ConnectionFailed, Transport

LIST_TIMEOUT_S = 10.0
_LONGEST_NAME = 160
# vLLM and SGLang; LM Studio; OpenRouter and Together; Groq; Mistral; LiteLLM; llama.cpp in `meta` (what it was started
# with before what the model could take); OpenRouter's provider.
_WINDOW = (
    ("max_model_len",), ("loaded_context_length",), ("context_length",), ("context_window",), ("max_context_length",),
    ("max_input_tokens",), ("meta", "n_ctx"), ("meta", "n_ctx_train"), ("top_provider", "context_length"),
)  # fmt: skip
_OUTPUT = (("max_completion_tokens",), ("max_output_tokens",), ("top_provider", "max_completion_tokens"))


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of a list: most tokens of prompt and answer together, and of an answer; None where it is not told."""

    name: str
    window: int | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True)
class ModelList:
    """A server's models; none where it lists none. `silent`: it took the connection and answered nothing in time."""

    models: tuple[ListedModel, ...] = ()
    silent: bool = False

    def find(self, name: str) -> ListedModel | None:
        """The entry of a model. A list of one is of that one, whatever it is called (llama.cpp)."""
        if len(self.models) == 1:
            return self.models[0]
        return next((model for model in self.models if model.name == name), None)


async def list_models(url: str, key: str) -> ModelList:
    """What a server lists; empty where it answers anything else.

    Raises:
        ConnectionFailed: there is no connection to it.
    """
    transport = Transport(url, key, 1)
    try:
        async with asyncio.timeout(LIST_TIMEOUT_S), transport.get("models") as incoming:
            body = b"".join([piece async for piece in incoming.pieces])
            if not 200 <= incoming.status < 300:
                return ModelList()
        return ModelList(tuple(_models(json.loads(body))))
    except TimeoutError:
        return ModelList(silent=True)
    except ConnectionFailed as error:
        if error.unreachable or error.kind == "fatal":
            raise
        return ModelList()
    except (ValueError, RecursionError):
        return ModelList()
    finally:
        await transport.close()


def _models(document: object) -> Iterator[ListedModel]:
    if isinstance(document, Mapping):
        document = document.get("data") or document.get("models")
    for entry in document if isinstance(document, list) else ():
        if isinstance(entry, Mapping) and isinstance(name := entry.get("id") or entry.get("name"), str):
            yield ListedModel(one_line(name, _LONGEST_NAME), _number(entry, _WINDOW), _number(entry, _OUTPUT))


def _number(entry: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    for path in paths:
        value: object = entry
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
