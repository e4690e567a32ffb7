"""How likely a student finds a run's accepted responses: its mean negative log-likelihood of each, `student_nll`.

Reads prompts, responses and accepted rows of a run, and a checkpoint; writes student_nll.parquet, a row for each
accepted response: response_id, student_nll (nats a token of reasoning, answer and end-of-turn, as the student would be
served the prompt; null with a `reason`), tokens. Run it with `saferthoughts student nll RUN --student CHECKPOINT`; then
`saferthoughts select RUN --by student_nll` takes first what the student would have written itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.sql.views import STUDENT_NLL
from pipelines.errors import UserError
from pipelines.freshness import made_from, require_fresh
from pipelines.judges.stage import rows_of
from pipelines.progress import meter
from pipelines.runs import RunFolder, file_hash
from pipelines.thinking import OPEN, join
from training.students.loading import load_model, prompt_of
from training.students.quiet import quiet
from training.students.student import checkpoint_of, weights_hash
from training.trainer.building import has_gpu, tokenizer_of
from training.trainer.lengths import positions_of

STAGE = "student nll"
# Tokens of a batch, padding included: what they take at once is their logits.
_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class NllResult:
    """How many responses were measured, how many could not be, and the mean of the others, None of none."""

    measured: int
    unmeasured: int
    mean: float | None
    student: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A response as tokens: those of the prompt as it is served, and those that the student would have written."""

    response_id: str
    prompt: Sequence[int]
    written: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.written)


def measure(run: RunFolder, student: str | None = None) -> NllResult:
    """Measure every accepted response of a run, and write student_nll.parquet.

    Args:
        run: A checked run.
        student: A checkpoint's folder, or ORG/NAME; the one of the last call if not given.

    Raises:
        UserError: no accepted rows yet, no student, or one that cannot be loaded.
    """
    before = run.stage(STAGE)
    wanted = student or (before or {}).get("student")
    if not wanted:
        raise UserError(f"Which student? saferthoughts student nll {run.name} --student CHECKPOINT (or ORG/NAME)")
    run.require("accepted")
    require_fresh(run, "accepted")
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    with quiet():
        checkpoint = checkpoint_of(wanted)
        tokenizer, positions = tokenizer_of(checkpoint), positions_of(checkpoint)
        rows: dict[str, dict[str, Any]] = {}
        asked = []
        for item in _asked(run, accepted, tokenizer):
            rows[item.response_id] = {"response_id": item.response_id, "student_nll": None, "tokens": len(item.written)}
            if positions is not None and len(item) > positions:
                rows[item.response_id]["reason"] = f"{len(item)} tokens, and the student has positions for {positions}"
            else:
                asked.append(item)
        with meter(STAGE, len(asked), "responses") as shown:
            for some, found in _measured(checkpoint, asked):
                for item, value in zip(some, found, strict=True):
                    rows[item.response_id] |= {"student_nll": value, "reason": ""}
                shown.advance(len(some))
    if rows.keys() != accepted:
        raise RuntimeError(f"{len(accepted)} responses are accepted, and {len(rows)} were read")
    run.write("student_nll", pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=STUDENT_NLL))
    values = [row["student_nll"] for row in rows.values() if row["student_nll"] is not None]
    mean = sum(values) / len(values) if values else None
    run.record(
        STAGE,
        inputs=made_from(run, "prompts", "responses", "accepted"),
        outputs={"student_nll.parquet": file_hash(run.table_path("student_nll"))},
        student=str(wanted),
        weights=weights_hash(checkpoint),
        counts={"measured": len(values), "unmeasured": len(rows) - len(values)},
    )
    return NllResult(len(values), len(rows) - len(values), mean, str(wanted))


def _asked(run: RunFolder, accepted: set[str], tokenizer: Any) -> Iterator[_Asked]:
    opener = f"{OPEN}\n"
    for row in rows_of(run):
        if row.response.response_id not in accepted:
            continue
        turns = [{"role": "user", "content": row.query}]
        text = join(row.response.reasoning, row.response.answer)
        if str(prompt_of(tokenizer, turns)).endswith(opener):
            text = text.removeprefix(opener)
        prompt: Any = prompt_of(tokenizer, turns, tokenize=True, return_dict=False)
        written: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
        yield _Asked(row.response.response_id, list(prompt), [*written, int(tokenizer.eos_token_id)])


def _measured(checkpoint: Path, asked: Sequence[_Asked]) -> Iterator[tuple[list[_Asked], list[float]]]:
    """Batches of like length with the mean negative log-likelihood of each, the longest first, so that too little
    memory shows at once."""
    import torch

    on_gpu = has_gpu()
    device = "cuda" if on_gpu else "cpu"
    model: Any = load_model(checkpoint, dtype=torch.bfloat16 if on_gpu else torch.float32).to(device).eval()
    left = sorted(asked, key=len, reverse=True)
    while left:
        count = max(1, _AT_ONCE // len(left[0]))
        some, left = left[:count], left[count:]
        width = len(some[0])
        ids = torch.zeros(len(some), width, dtype=torch.long)
        held = torch.zeros(len(some), width, dtype=torch.long)
        wanted = torch.full((len(some), width), -100, dtype=torch.long)
        for at, item in enumerate(some):
            tokens = torch.tensor([*item.prompt, *item.written])
            ids[at, : len(item)] = tokens
            held[at, : len(item)] = 1
            wanted[at, len(item.prompt) : len(item)] = tokens[len(item.prompt) :]
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=held.to(device)).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), wanted[:, 1:].to(device), reduction="none", ignore_index=-100
            )
        sums = losses.sum(dim=1).double().tolist()
        yield some, [total / len(item.written) for total, item in zip(sums, some, strict=True)]
