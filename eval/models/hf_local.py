"""A local checkpoint as an Inspect model on the CPU: `student/<label>`, batched, honest about truncation.

Reads a checkpoint folder (config, weights, tokenizer with a chat template) and writes nothing. One model instance in
bf16 serves every concurrent request: one thread gathers what is waiting and decodes up to 40 rows at once; a row that
ends makes room for the next request (eval/models/batch.py). Each request is decoded greedily or sampled, as it asks.
Used by `eval/models/inspect_models.py`:

    model = get_model("student/after", path="runs/demo/model", memoize=False)

bf16 rounds differently in batches of other shapes, so a greedy answer depends a little on its neighbours. Requests that
arrive together are therefore admitted in an order of their own content: the same set gives the same answers, on one
machine, if `expected` says how many to wait for. A sampled answer repeats itself, given its seed, as far as that goes.
"""

import asyncio
import gc
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from eval.models.responses import is_begun, message_of
from pipelines.errors import UserError
from pipelines.thinking import CLOSE, OPEN, split
from training.students.arithmetic import serving_dtype
from training.students.decoding import ReplyDecoder
from training.students.loading import load_model, load_tokenizer, prompt_of
from training.students.quiet import quiet
from training.students.student import check_checkpoint

if TYPE_CHECKING:
    from eval.models.batch import Padded

# Measured on two cores with SmolLM2-135M: a token costs 5.5, 4.6 and 4.3 ms of CPU in batches of 27, 40 and 80.
BATCH = 40
# More than one batch may wait, so that the next one is full when this one ends.
CONNECTIONS = 4 * BATCH
# This long a silence means that all are here; where more are known to come, a busy machine gets the longer one.
_SILENCE_S = 0.1
_LATE_S = 5.0
# Reading new prompts costs a pass of its own: places are filled when an eighth is free, and at every eighth token.
_REFILL_STEPS = 8

# Settings of Inspect's that change what is drawn and that nothing here does.
_UNKNOWN = ("stop_seqs", "top_k", "frequency_penalty", "presence_penalty", "logit_bias", "response_schema")

StopReason = Literal["stop", "max_tokens", "model_length"]
# Called after every decoding step with the tokens made and the requests finished by it.
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the next token is chosen: the likeliest at temperature 0, else drawn from the likeliest `top_p` of all.

    Without a seed every request draws its own way.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished request. Tokens are the tokenizer's, the end-of-turn token included; `seconds` from start of batch.

    `stop_reason`: "stop" at an end-of-turn token, "max_tokens" at the request's limit, "model_length" at the model's.
    """

    text: str
    input_tokens: int
    output_tokens: int
    stop_reason: StopReason
    seconds: float


@dataclass(eq=False)
class _Request:
    tokens: list[int]
    limit: int
    stop_at_limit: StopReason
    # What the chat template already said for the student: it belongs to the completion.
    prefix: str
    decoding: Decoding
    # torch's random numbers of this request alone; None where none are drawn.
    random: Any
    future: "Future[Completion]" = field(default_factory=Future)
    made: list[int] = field(default_factory=list)
    started: float = 0.0


class Student:
    """The checkpoint and its decoding thread; `submit` from any thread, `close` when done.

    Raises:
        UserError: the folder is not a checkpoint, cannot be loaded, or has no chat template.
    """

    def __init__(self, path: Path, batch: int = BATCH) -> None:
        check_checkpoint(path)
        # Waiting OpenMP threads sleep instead of spinning; it is read once, when torch loads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        # It takes seconds to import, which whoever asks an endpoint need not wait for.
        from training.students.arithmetic import cpu_threads

        torch.set_num_threads(cpu_threads())
        try:
            with quiet():
                self._tokenizer: Any = load_tokenizer(path)
                model: Any = load_model(path, dtype=serving_dtype())
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"The checkpoint '{path}' cannot be loaded: {reason}. Train or fetch it again.") from error
        if not self._tokenizer.chat_template:
            raise UserError(f"The checkpoint '{path}' has no chat template: it is a base model. Use an instruct model.")
        self._decoder = ReplyDecoder(self._tokenizer)
        self._model: Any = model.eval()
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._context = int(getattr(self._model.config, "max_position_embeddings", 0) or 2**31)
        self._batch = batch
        self._closing = False
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="student", daemon=True)
        self.watch: Watch | None = None
        # Until so many requests have come, a gap between two is not taken for the end.
        self.expected = 0
        self._thread.start()

    def submit(
        self,
        messages: list[dict[str, str]],
        max_tokens: int,
        decoding: Decoding = Decoding(),
        begun: str = "",
    ) -> "Future[Completion]":
        """Queue one chat (`role`, `content`) for at most `max_tokens` new tokens; cancel the future to drop it.

        The completion goes on from `begun`, which is not in it.

        Raises:
            ValueError: the prompt leaves no room in the model's context.
        """
        prompt = prompt_of(self._tokenizer, messages)
        opened = prompt.rstrip().endswith(OPEN)
        if begun:
            # A thought that the chat template opens is begun there; an answer ends it first.
            closed = f"\n{CLOSE}\n\n" if opened and not begun.startswith(OPEN) else ""
            prompt = f"{prompt.rstrip() if opened else prompt}{closed}{begun.removeprefix(OPEN) if opened else begun}"
        tokens = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        room = self._context - len(tokens)
        if room < 1:
            raise ValueError(f"The prompt has {len(tokens)} tokens, the model's context {self._context}.")
        prefix = f"{OPEN}\n" if opened and not begun else ""
        limited: StopReason = "max_tokens" if max_tokens <= room else "model_length"
        request = _Request(tokens, min(max_tokens, room), limited, prefix, decoding, _random(decoding))
        self._queue.put(request)
        return request.future

    def close(self) -> None:
        """Stop the thread after the rows at work, fail what still waits, and free the model."""
        self._queue.put(None)
        self._thread.join()
        self._model = None
        gc.collect()

    def _serve(self) -> None:
        from eval.models.batch import batch_of

        waiting: list[_Request] = []
        while not self._closing:
            waiting = waiting or self._gathered()
            rows: list[_Request] = []
            try:
                self._decode(batch_of(self._model, next(iter(self._ends), 0)), rows, waiting)
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits, the thread must live on
                # With nothing under way it would happen again, for ever.
                failed = rows or waiting
                waiting = waiting if rows else []
                for request in failed:
                    if not request.future.done():
                        request.future.set_exception(error)
        for left in waiting:
            left.future.cancel()

    def _gathered(self) -> list[_Request]:
        """What is asked until a silence, waiting for the first; neighbours in length are neighbours here."""
        found: list[_Request] = []
        while not self._closing:
            silence = _SILENCE_S if len(found) >= self.expected else _LATE_S
            try:
                request = self._queue.get(timeout=silence if found else None)
            except queue.Empty:
                break
            self._closing = request is None
            found += [request] if request is not None else []
        self.expected = 0
        return sorted(found, key=lambda one: (len(one.tokens), one.tokens))

    def _decode(self, batch: "Padded", rows: list[_Request], waiting: list[_Request]) -> None:
        """Answer what waits. `rows` and `waiting` hold what is under way and what is not, also after an error."""
        import torch

        with torch.inference_mode():
            for step in count():
                free, on_time = self._batch - len(rows), step % _REFILL_STEPS == 0
                if not rows or (batch.refills and free):
                    if not waiting and on_time and not self._queue.empty():
                        waiting += self._gathered()
                    if on_time or free >= self._batch / _REFILL_STEPS:
                        self._admit(batch, rows, waiting)
                if not rows:
                    if not waiting or self._closing:
                        return
                    continue
                self._advance(batch, rows, 0, batch.step([row.made[-1] for row in rows]))

    def _admit(self, batch: "Padded", rows: list[_Request], waiting: list[_Request]) -> None:
        """Fill the free places."""
        if self._closing:
            return
        waiting[:] = [one for one in waiting if not one.future.cancelled()]
        first, free = len(rows), self._batch - len(rows)
        if new := waiting[:free]:
            del waiting[:free]
            started = time.monotonic()
            for request in new:
                request.started = started
            rows += new
            self._advance(batch, rows, first, batch.admit([request.tokens for request in new]))

    def _advance(self, batch: "Padded", rows: list[_Request], first: int, logits: Any) -> None:
        """Give every row from `first` on its next token, and let go of those that end with it."""
        chosen = _choose(logits, rows[first:]).tolist()
        ended = set()
        for index, token in enumerate(chosen, first):
            rows[index].made.append(token)
            if self._finish(rows[index]):
                ended.add(index)
        if self.watch:
            self.watch(len(chosen), len(ended))
        if ended:
            # A finished row would cost as much as a live one.
            order = batch.keep([index for index in range(len(rows)) if index not in ended])
            rows[:] = [rows[index] for index in order]

    def _finish(self, row: _Request) -> bool:
        """Whether the row has ended; its future then has the completion."""
        if row.future.cancelled():
            return True
        ended = row.made[-1] in self._ends
        if not ended and len(row.made) < row.limit:
            return False
        text = self._decoder.decode(row.made[:-1] if ended else row.made)
        if row.future.set_running_or_notify_cancel():
            stop = "stop" if ended else row.stop_at_limit
            seconds = time.monotonic() - row.started
            row.future.set_result(Completion(row.prefix + text, len(row.tokens), len(row.made), stop, seconds))
        return True


def _random(decoding: Decoding) -> Any:
    if not decoding.temperature:
        return None
    import torch

    random = torch.Generator()
    if decoding.seed is None:
        random.seed()
    else:
        random.manual_seed(decoding.seed)
    return random


def _choose(logits: Any, rows: list[_Request]) -> Any:
    """The next token of each row, as its request decodes; `logits` is rows x vocabulary."""
    chosen = logits.argmax(-1)
    for index, row in enumerate(rows):
        if row.random is not None:
            likely, order = (logits[index].float() / row.decoding.temperature).softmax(-1).sort(descending=True)
            # The token that crosses `top_p` is in, so that there always is one.
            likely[likely.cumsum(-1) - likely >= row.decoding.top_p] = 0
            chosen[index] = order[likely.multinomial(1, generator=row.random)]
    return chosen


class StudentAPI(ModelAPI):
    """Inspect's face of `Student`. The model's name is a label, `path` the checkpoint's folder."""

    # A response that is begun for it is gone on with (eval/models/begun.py).
    continues = True

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - the signature Inspect calls
        *,
        path: str,
        batch: int = BATCH,
    ) -> None:
        super().__init__(model_name, base_url, api_key, config=config)
        self.student = Student(Path(path), batch)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer one chat.

        Raises:
            ValueError: a setting that this decoding cannot honour; ignoring it would falsify the log.
        """
        asked: dict[str, Any] = {name: getattr(config, name) for name in _UNKNOWN}
        asked["tools"] = tools
        asked["num_choices"] = None if config.num_choices == 1 else config.num_choices
        if refused := [name for name, value in asked.items() if value]:
            raise ValueError(f"The student answers in text, once: it cannot honour {', '.join(refused)}.")
        if config.max_tokens is None:
            raise ValueError("The student needs max_tokens.")
        begun = input[-1].text if is_begun(input) else ""
        chat = [{"role": message.role, "content": message.text} for message in (input[:-1] if begun else input)]
        top_p = 1.0 if config.top_p is None else config.top_p
        decoding = Decoding(config.temperature or 0.0, top_p, config.seed)
        done = await asyncio.wrap_future(self.student.submit(chat, config.max_tokens, decoding, begun))
        message = message_of(split(done.text), self.model_name)
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=done.stop_reason)],
            usage=ModelUsage(
                input_tokens=done.input_tokens,
                output_tokens=done.output_tokens,
                total_tokens=done.input_tokens + done.output_tokens,
            ),
            time=done.seconds,
        )

    def close(self) -> None:
        """Free the model."""
        self.student.close()

    def max_connections(self) -> int:
        """How many requests may wait at once."""
        return CONNECTIONS


@modelapi(name="student")
def student() -> type[ModelAPI]:
    """Makes `student/<label>` a model name. The class stays a class: the decorator would turn it into a function."""
    return StudentAPI
