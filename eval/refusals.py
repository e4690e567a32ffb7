"""Does a completion refuse, and is its reasoning well formed? String rules, no model.

Reads one completion and writes nothing; `eval/tasks/refusal.py` scores with it. What counts as a refusal is in
`pipelines/refusals.py`.
"""

from dataclasses import dataclass
from typing import Literal

from pipelines.refusals import is_refusal
from pipelines.thinking import CLOSE, OPEN, split

Stance = Literal["refused", "complied", "unscored"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One completion, read: its parts, its stance, its form.

    `stance` is "unscored" exactly when the answer is empty. `unclosed`: reasoning began and never ended.
    """

    reasoning: str
    answer: str
    stance: Stance
    well_formed: bool
    unclosed: bool


def read(completion: str) -> Reading:
    """Take a raw completion (tags and all) apart and judge it.

    Well formed: it opens with `<think>`, closes it, has words in both parts, and no further tags in the answer.
    """
    thought = split(completion)
    stance: Stance = "unscored"
    if thought.answer.strip():
        stance = "refused" if is_refusal(thought.answer) else "complied"
    well_formed = (
        thought.source == "inline"
        and bool(thought.reasoning.strip())
        and stance != "unscored"
        and OPEN not in thought.answer
        and CLOSE not in thought.answer
    )
    return Reading(thought.reasoning, thought.answer, stance, well_formed, thought.source == "truncated")
