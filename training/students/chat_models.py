"""Who replies in a chat: a local checkpoint, or a model behind an OpenAI-compatible endpoint.

Reads a checkpoint's folder, or asks an endpoint; writes nothing. Used by `saferthoughts chat`.
"""

import os
import threading
from collections.abc import Generator, Iterator
from typing import Any

from pipelines.errors import UserError
from pipelines.settings.teacher import Teacher
from pipelines.teachers.client import api_key
from pipelines.thinking import OPEN
from training.students.arithmetic import cpu_threads, serving_dtype
from training.students.chat import ReplyPart, Splitter, parted
from training.students.decoding import ReplyDecoder
from training.students.loading import load_model, load_tokenizer, prompt_of
from training.students.quiet import quiet
from training.students.student import checkpoint_of


class Checkpoint:
    """A checkpoint on the GPU, or on the CPU where there is none.

    Args:
        model: A folder, or a model on the Hub.
        max_tokens: The most tokens of a reply.
        temperature: 0 takes the likeliest token each time.

    Raises:
        UserError: it cannot be had or loaded, or has no chat template.
    """

    def __init__(self, model: str, max_tokens: int, temperature: float) -> None:
        folder = checkpoint_of(model)
        # Read once, when torch loads: waiting threads then sleep instead of spinning.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        on_gpu = torch.cuda.is_available()
        if not on_gpu:
            torch.set_num_threads(cpu_threads())
        try:
            with quiet():
                self._tokenizer: Any = load_tokenizer(folder)
                loaded: Any = load_model(folder, dtype=serving_dtype())
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"The checkpoint '{folder}' cannot be loaded: {reason}.") from error
        if not self._tokenizer.chat_template:
            raise UserError(
                f"The checkpoint '{folder}' has no chat template: it is a base model. Use an instruct model."
            )
        self._decoder = ReplyDecoder(self._tokenizer)
        self._model = loaded.to("cuda" if on_gpu else "cpu").eval()
        self._sampling = {"do_sample": temperature > 0, **({"temperature": temperature} if temperature else {})}
        self._max_tokens = max_tokens
        self._context = int(getattr(loaded.config, "max_position_embeddings", 0) or 2**31)

    def reply(self, messages: list[dict[str, str]]) -> Generator[ReplyPart, None, None]:
        """Decode in a thread, and give what has come of it."""
        from transformers import StoppingCriteria, TextIteratorStreamer

        ended = threading.Event()

        class Ended(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
                return input_ids.new_full((input_ids.shape[0],), ended.is_set(), dtype=bool)

        prompt: str = prompt_of(self._tokenizer, messages)
        asked: Any = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(self._model.device)
        room = self._context - asked["input_ids"].shape[1]
        if room < 1:
            yield ReplyPart("[the conversation is longer than the model's context: /new begins anew]", "remark")
            return
        limit = min(self._max_tokens, room)
        streamer: Any = TextIteratorStreamer(self._decoder, skip_prompt=True)
        made: list[int] = []
        failed: list[Exception] = []

        def decode() -> None:
            try:
                settings = {**self._sampling, "max_new_tokens": limit, "stopping_criteria": [Ended()]}
                done = self._model.generate(**asked, streamer=streamer, **settings)
                made.append(int(done.shape[1]) - int(asked["input_ids"].shape[1]))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever reads the reply
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=decode, name="decoding", daemon=True)
        with quiet():
            thread.start()
            try:
                yield from parted(_after(OPEN if prompt.rstrip().endswith(OPEN) else "", streamer))
            finally:
                ended.set()
                thread.join()
        if failed:
            raise failed[0]
        if made and made[0] >= limit:
            yield ReplyPart(f"[cut off at {limit} tokens]", "remark")


def _after(prefix: str, chunks: Iterator[str]) -> Iterator[str]:
    """The opener that the prompt ended with, which belongs to the reply, and the reply."""
    yield prefix
    yield from chunks


class Endpoint:
    """A model behind an OpenAI-compatible endpoint; reasoning in a field of its own or inline.

    Raises:
        UserError: the endpoint's key is not in the environment.
    """

    def __init__(self, endpoint: Teacher, max_tokens: int, temperature: float) -> None:
        import openai

        self._client = openai.OpenAI(base_url=endpoint.base_url, api_key=api_key("the endpoint", endpoint))
        self._model = endpoint.model
        self._settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}

    def reply(self, messages: list[dict[str, str]]) -> Generator[ReplyPart, None, None]:
        """Ask, and give what the server sends.

        Raises:
            UserError: it refuses or does not answer.
        """
        import openai

        asked: Any = messages
        try:
            with self._client.chat.completions.create(
                model=self._model, messages=asked, stream=True, **self._settings
            ) as stream:
                splitter = Splitter()
                for event in stream:
                    if not event.choices:
                        continue
                    delta = event.choices[0].delta
                    # vLLM and DeepSeek name the field differently, and the client knows neither.
                    aside = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
                    if aside:
                        yield ReplyPart(aside, "reasoning")
                    yield from splitter.feed(delta.content or "")
                yield from splitter.end()
        except openai.OpenAIError as error:
            delta = " ".join(str(error).split())[:200]
            raise UserError(f"{self._client.base_url} gave no reply for model '{self._model}' ({delta}).") from error
