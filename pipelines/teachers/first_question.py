"""One mild question to a teacher or judge, before anything that is paid for, and what its answer shows.

Asks over the network; writes nothing. `preflight.py` has it asked before a run's first real request, and
`teachers test` shows it. A setting that the server refuses is left out and the question asked again; what is wrong
otherwise becomes one line with the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pipelines.errors import UserError, one_line, unknown
from pipelines.generate.plan import request_fields
from pipelines.prompts.variant import Message
from pipelines.settings.teacher import Teacher
from pipelines.teachers.adapting import LEAST_ANSWER, Adapted, adapted_to, fitted
from pipelines.teachers.client import TeacherClient, TeacherError, api_key
from pipelines.teachers.finish_reasons import cut_short
from pipelines.teachers.model_list import ModelList, list_models
from pipelines.teachers.reply import Reply
from pipelines.teachers.transport import ConnectionFailed
from pipelines.thinking import Thought, split

# Easy, and yet worth a thought.
QUESTION = "A train leaves at 14:50 and arrives at 16:05. How many minutes does it take? Answer in one short sentence."
MESSAGES: tuple[Message, ...] = (Message(role="user", content=QUESTION),)
# Tokens of the question with what a chat template adds.
QUESTION_TOKENS = 200
# A small model may think in circles: where the server lists what it takes, the answer is no longer than this.
_ENOUGH_TOKENS = 2048
# So long is waited for an answer from a server that could not even list its models in time.
_SILENT_S = 60.0
_MOST_CHANGES = 8
_SHOWN = 160
_LISTED = 12
# What no later request would fare better with: a wrong request, key, address or model.
_DECIDED = (400, 401, 402, 403, 404, 405, 407, 410, 421, 422)


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What one server answered. `teacher` is the entry as the server takes it, `changes` what that took, a line each;
    `window` is most tokens of prompt and answer together, None where it is not told."""

    url: str
    teacher: Teacher
    reply: Reply
    thought: Thought
    changes: tuple[str, ...]
    window: int | None

    @property
    def shows_no_reasoning(self) -> bool:
        """Whether a whole answer came and no reasoning with it. One that was cut may have been a thought."""
        whole = not cut_short(self.reply.finish_reason) and bool(self.thought.answer.strip())
        return self.thought.source == "none" and whole


class NoAnswer(UserError):
    """A first question without an answer; `passing` where the same question may be answered a little later, `absent`
    where nothing answers at the address."""

    def __init__(self, message: str, passing: bool, absent: bool = False) -> None:
        super().__init__(message)
        self.passing, self.absent = passing, absent


async def ask_first(name: str, teacher: Teacher, url: str, prompt_tokens: int = QUESTION_TOKENS) -> FirstAnswer:
    """Ask one server of a teacher, without retries.

    Args:
        name: The teacher's name, for messages.
        prompt_tokens: What the longest prompt that will be asked takes.

    Raises:
        NoAnswer: no server, a wrong key, an unknown model, a window that is too small, or any other reason.
    """
    key = api_key(name, teacher)
    try:
        models = await list_models(url, key)
    except ConnectionFailed as error:
        raise _unreachable(name, url, str(error)) from error
    listed = models.find(teacher.model)
    window = min((size for size in (listed and listed.window, teacher.context_length) if size), default=None)
    found = fitted(teacher, window, listed.output if listed else None, prompt_tokens)
    _check_window(name, teacher, url, window)
    changes = [found.word] if found else []
    current = found.teacher if found else teacher
    rounds = 0
    while True:
        rounds += 1
        try:
            reply = await _once(name, current, url, listed is not None and window is not None, models.silent)
        except TeacherError as error:
            adapted = adapted_to(current, str(error), prompt_tokens) if error.status in (400, 422) else None
            if adapted is None or rounds > _MOST_CHANGES:
                raise _refusal(name, current, url, error, models) from error
            current, changes = adapted.teacher, [*_others(changes, adapted), adapted.word]
            continue
        thought = split(reply.content, reply.reasoning_content, reply.reasoning, teacher.reasoning_style)
        return FirstAnswer(url, current, reply, thought, tuple(changes), window)


def _others(changes: Sequence[str], adapted: Adapted) -> list[str]:
    """The lines so far, without one that the next takes the place of."""
    return [line for line in changes if line.split(" in place of")[0].split(" is ")[0] != adapted.word.split(" is ")[0]]


async def _once(name: str, teacher: Teacher, url: str, bounded: bool, silent: bool) -> Reply:
    patience = min(teacher.attempt_timeout_s, _SILENT_S) if silent else teacher.attempt_timeout_s
    once = teacher.model_copy(update={"retries": 0, "attempt_timeout_s": patience})
    fields = request_fields(once, 0)
    if bounded and "max_tokens" in fields:
        fields["max_tokens"] = min(fields["max_tokens"], _ENOUGH_TOKENS)
    async with TeacherClient(name, once, [url]) as client:
        return await client.ask(MESSAGES, fields)


def _check_window(name: str, teacher: Teacher, url: str, window: int | None) -> None:
    if window is not None and window < LEAST_ANSWER * 4 // 3:
        raise NoAnswer(
            f"The window of '{teacher.model}' at {url} is {window} tokens, prompt and answer together, which leaves no "
            f"room for an answer of teacher '{name}'. Start the server with a longer context.",
            passing=False,
        )


def _unreachable(name: str, url: str, words: str) -> NoAnswer:
    return NoAnswer(
        f"No server answers at {url} for teacher '{name}' ({beginning(words)}). Start it, or correct its base_url.",
        passing=False,
        absent=True,
    )


def _refusal(name: str, teacher: Teacher, url: str, error: TeacherError, models: ModelList) -> NoAnswer:
    """Why there is no answer, and what to do about it."""
    words = beginning(str(error))
    if error.unreachable:
        return _unreachable(name, url, str(error))
    if models.silent and error.status is None:
        return NoAnswer(f"The server at {url} takes connections and answers nothing ({words}). Restart it.", False)
    if error.status in (401, 407) or (error.status == 403 and not error.permanent):
        key = f"the key in {teacher.api_key_env}" if teacher.api_key_env else "it without a key; set api_key_env"
        return NoAnswer(f"{url} refuses {key}, HTTP {error.status} ({words}).", False)
    if error.status in (400, 404):
        names = [model.name for model in models.models]
        if names and teacher.model not in names:
            near = get_close_matches(teacher.model, names, n=_LISTED, cutoff=0.0)
            part = "" if len(near) == len(names) else f" (the nearest {len(near)} of {len(names)} are shown)"
            return NoAnswer(str(unknown(f"model at {url}{part}", teacher.model, near)), False)
        if error.status == 404 and not names:
            return NoAnswer(
                f"{url} has neither chat completions nor a list of models ({words}). Most servers want a base_url that "
                "ends in /v1.",
                False,
            )
    redirected = error.status is not None and 300 <= error.status < 400
    decided = error.fatal or redirected or error.status in _DECIDED
    return NoAnswer(f"Teacher '{name}' at {url} does not answer: {words}.", not decided)


def beginning(text: str) -> str:
    """The beginning of a hostile text: one line, and codes in place of what does not print."""
    return one_line(text, _SHOWN)


def reasoning_elsewhere(answer: FirstAnswer) -> str:
    """Where reasoning came that the entry's `reasoning_style` does not look for, "" where none did."""
    if answer.thought.source != "none":
        return ""
    reply = answer.reply
    found = split(reply.content, reply.reasoning_content, reply.reasoning).source
    return "" if found == "none" else found
