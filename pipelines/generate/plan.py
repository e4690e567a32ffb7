"""The plan of a run: every response it should have, in a fixed order, derived from its prompts and configuration.

A plan is never stored. It is the same for the same run.yaml and prompts.parquet, so any process can work it out again.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.prompts.variant import Message
from pipelines.records import Prompt, content_id, from_table
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.settings.old_names import first_name
from pipelines.settings.teacher import Sampling, Teacher
from pipelines.teachers.ledger import request_key

ANYBODY = "*"


@dataclass(frozen=True, slots=True)
class Ask:
    """One planned response. `teacher` and `key` are "" for a variant that asks nobody."""

    response_id: str
    prompt_id: str
    variant: str
    teacher: str
    model: str
    sampling: str
    sample: int
    key: str
    messages: tuple[Message, ...]


def request_fields(teacher: Teacher, sample: int) -> dict[str, Any]:
    """The fields of a request beside model and messages, as they are sent; a seed moves on with the sample."""
    sampling: Sampling = teacher.sampling
    fields = sampling.model_dump(exclude_none=True)
    if sampling.seed is not None:
        fields["seed"] = sampling.seed + sample
    if teacher.extra_body:
        fields["extra_body"] = teacher.extra_body
    return fields


def prompts_of(run: RunFolder) -> Iterator[Prompt]:
    """The run's prompts, a batch at a time, so that memory does not grow with their number.

    Raises:
        UserError: they are missing or not readable.
    """
    with run.opened("prompts") as file:
        for batch in file.iter_batches(1000):
            yield from from_table(Prompt, pa.Table.from_batches([batch]))


def plan(config: RunConfig, prompts: Iterable[Prompt], teacher: str | None = ANYBODY) -> Iterator[Ask]:
    """Every response the run should have: harmful prompts in all variants, benign ones in `benign_variant`.

    With `teacher` only what that one answers; None stands for the variants that ask nobody.
    """
    for prompt in prompts:
        names = config.variants if prompt.kind == "harmful" else (config.benign_variant,)
        for name in names:
            if teacher not in (ANYBODY, config.teacher_of(name)):
                continue
            for sample in range(config.samples if config.teacher_of(name) is not None else 1):
                yield _ask(config, prompt, name, sample)


def _ask(config: RunConfig, prompt: Prompt, name: str, sample: int) -> Ask:
    teacher_name = config.teacher_of(name)
    if teacher_name is None:
        response_id = content_id(prompt.prompt_id, first_name(name), "", "", sample, 0)
        return Ask(response_id, prompt.prompt_id, name, "", "", "", sample, "", ())
    teacher = config.teachers[teacher_name]
    fields = request_fields(teacher, sample)
    sampling = json.dumps(fields, sort_keys=True)
    messages = tuple(config.variant(name).messages(prompt.text))
    return Ask(
        response_id=content_id(prompt.prompt_id, first_name(name), teacher.model, sampling, sample, 0),
        prompt_id=prompt.prompt_id,
        variant=name,
        teacher=teacher_name,
        model=teacher.model,
        sampling=sampling,
        sample=sample,
        key=request_key(teacher.model, messages, fields, sample),
        messages=messages,
    )
