"""A local checkpoint as an Inspect model on the CPU: `student/<label>`, batched, honest about truncation.

Reads a checkpoint folder (config, weights, tokenizer with a chat template) and writes nothing. One model instance in
bf16 serves every concurrent request: one thread gathers what is waiting, pads it on the left, decodes it as one batch
and lets a row go the moment it ends. Each request is decoded greedily or sampled, as it asks. Used by
`eval/models/inspect_models.py`:

    model = get_model("student/after", path="runs/demo/model", memoize=False)

bf16 rounds differently in batches of other shapes, so a greedy answer depends a little on its neighbours. Requests that
arrive together are therefore batched in an order of their own content: the same set gives the same answers, on one
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
from pathlib import Path
from typing import Any, Literal

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
from training.arithmetic import serving_dtype
from training.decoding import ReplyDecoder
from training.loading import load_model, load_tokenizer, prompt_of
from training.quiet import quiet
from training.student import check_checkpoint

# Measured on two cores with SmolLM2-135M: a token costs 5.5, 4.6 and 4.3 ms of CPU in batches of 27, 40 and 80.
BATCH = 40
# More than one batch may wait, so that the next one is full when this one ends.
CONNECTIONS = 4 * BATCH
# This long a silence means that all are here; where more are known to come, a busy machine gets the longer one.
_SILENCE_S = 0.1
_LATE_S = 5.0

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
        from training.arithmetic import cpu_threads

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
        """Stop the thread after the batch at work, fail what still waits, and free the model."""
        self._queue.put(None)
        self._thread.join()
        self._model = None
        gc.collect()

    def _serve(self) -> None:
        waiting: list[_Request] = []
        while True:
            silence = _SILENCE_S if len(waiting) >= self.expected else _LATE_S
            try:
                request = self._queue.get(timeout=silence if waiting else None)
            except queue.Empty:
                self.expected = 0
                batch, waiting = _next_batch(waiting, self._batch)
                self._decode_or_fail(batch)
                continue
            if request is None:
                for left in waiting:
                    left.future.cancel()
                return
            waiting.append(request)

    def _decode_or_fail(self, batch: list[_Request]) -> None:
        try:
            self._decode(batch)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits, the thread must live on
            for request in batch:
                if not request.future.done():
                    request.future.set_exception(error)

    def _decode(self, batch: list[_Request]) -> None:
        import torch
        from transformers import DynamicCache

        started = time.monotonic()
        width = max(len(request.tokens) for request in batch)
        pads = [width - len(request.tokens) for request in batch]
        pad = next(iter(self._ends), 0)
        ids = torch.tensor([[pad] * gap + request.tokens for gap, request in zip(pads, batch, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in pads])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        rows = list(batch)
        with torch.inference_mode():
            while rows:
                output = self._model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                chosen = _choose(output.logits[:, -1], rows)
                positions = positions[:, -1:] + 1
                going = []
                for index, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                    row.made.append(token)
                    if not self._finish(row, started):
                        going.append(index)
                if self.watch:
                    self.watch(len(rows), len(rows) - len(going))
                if len(going) < len(rows):
                    # A finished row would cost as much as a live one until the longest of the batch ends.
                    keep = torch.tensor(going, dtype=torch.long)
                    cache.batch_select_indices(keep)
                    rows = [rows[index] for index in going]
                    chosen, mask, positions = chosen[keep], mask[keep], positions[keep]
                ids = chosen[:, None]
                mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)

    def _finish(self, row: _Request, started: float) -> bool:
        """Whether the row has ended; its future then has the completion."""
        if row.future.cancelled():
            return True
        ended = row.made[-1] in self._ends
        if not ended and len(row.made) < row.limit:
            return False
        text = self._decoder.decode(row.made[:-1] if ended else row.made)
        if row.future.set_running_or_notify_cancel():
            stop = "stop" if ended else row.stop_at_limit
            seconds = time.monotonic() - started
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


def _next_batch(waiting: list[_Request], most: int) -> tuple[list[_Request], list[_Request]]:
    """The next batch and what stays: neighbours in length share one, and batches come out about equally full."""
    alive = sorted(
        (one for one in waiting if not one.future.cancelled()), key=lambda one: (len(one.tokens), one.tokens)
    )
    batches = -(-len(alive) // most) or 1
    size = -(-len(alive) // batches)
    return alive[:size], alive[size:]


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
