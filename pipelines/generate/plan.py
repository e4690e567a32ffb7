"""The plan of a run: every response it should have, in a fixed order, derived from its prompts and configuration.

A plan is never stored. It is the same for the same run.yaml and prompts.parquet, so any process can work it out again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.prompts.variant import Message, Variant
from pipelines.records import Prompt, content_id, from_table
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig
from pipelines.settings.old_names import first_name
from pipelines.settings.teacher import Sampling, Teacher
from pipelines.teachers.ledger import request_key

ANYBODY = "*"


@dataclass(frozen=True, slots=True)
class Ask:
    """One planned response. `teacher` and `key` are "" for a variant that asks nobody; `fields` are what `sampling` has
    as JSON."""

    response_id: str
    prompt_id: str
    variant: str
    teacher: str
    model: str
    sampling: str
    sample: int
    key: str
    messages: tuple[Message, ...]
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    benign: bool = False


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all asks of one variant and sample have in common; `teacher` is None where nobody is asked."""

    name: str
    variant: Variant
    sample: int
    teacher: str | None
    model: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    sampling: str = ""

    def of(self, prompt: Prompt) -> Ask:
        """The ask for one prompt."""
        parts = (prompt.prompt_id, first_name(self.name), self.model, self.sampling, self.sample, 0)
        messages = () if self.teacher is None else tuple(self.variant.messages(prompt.text))
        return Ask(
            response_id=content_id(*parts),
            prompt_id=prompt.prompt_id,
            variant=self.name,
            teacher=self.teacher or "",
            model=self.model,
            sampling=self.sampling,
            sample=self.sample,
            key="" if self.teacher is None else request_key(self.model, messages, self.fields, self.sample),
            messages=messages,
            fields=self.fields,
            benign=prompt.kind == "benign",
        )


def plan(config: RunConfig, prompts: Iterable[Prompt], teacher: str | None = ANYBODY) -> Iterator[Ask]:
    """Every response the run should have: harmful prompts in all variants, benign ones in `benign_variant`.

    With `teacher` only what that one answers; None stands for the variants that ask nobody.
    """
    # Not before a prompt of its kind comes: a variant may lack a teacher that nothing needs.
    of_kind: dict[str, list[_Asked]] = {}
    for prompt in prompts:
        if prompt.kind not in of_kind:
            names = config.variants if prompt.kind == "harmful" else (config.benign_variant,)
            asked = [one for name in names for one in _asked(config, name)]
            of_kind[prompt.kind] = [one for one in asked if teacher in (ANYBODY, one.teacher)]
        for one in of_kind[prompt.kind]:
            yield one.of(prompt)


def _asked(config: RunConfig, name: str) -> Iterator[_Asked]:
    """A variant's asks, one for each sample."""
    found = config.variant(name)
    if (teacher_name := config.teacher_of(name)) is None:
        yield _Asked(name, found, 0, None)
        return
    teacher = config.teachers[teacher_name]
    for sample in range(config.samples):
        fields = request_fields(teacher, sample)
        sampling = json.dumps(fields, sort_keys=True)
        yield _Asked(name, found, sample, teacher_name, teacher.model, fields, sampling)
