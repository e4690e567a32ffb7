"""Every form of judging safety: how its guard is made from a judge's entry, and how long its reply is.

A form is a class of `safety.py`, `guards.py` or `guard_words.py`, a line here and its name in `pipelines/settings/
judge.py`; a shipped judge of that form is an entry of judges.yaml, published.yaml and teachers.yaml. Runs, evaluations
and estimates look forms up here. Reads and writes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pipelines.judges.guard_words import GraniteGuardian, Nemotron, ShieldGemma
from pipelines.judges.guards import HarmBench, Policy, PolyGuard, Qwen3Guard, WildGuard
from pipelines.judges.safety import Guard, LlamaGuard, ReasoningShield, Template
from pipelines.settings.judge import Judge


@dataclass(frozen=True, slots=True)
class GuardForm:
    """How the guard of a form is made, and the most tokens that its reply needs."""

    make: Callable[[Judge], Guard]
    max_tokens: int

    @property
    def terse(self) -> bool:
        """Whether it replies in a few words."""
        return self.max_tokens <= 128


FORMS: Mapping[str, GuardForm] = {
    "reasoningshield": GuardForm(lambda judge: ReasoningShield(judge.threshold), 2048),
    "llamaguard": GuardForm(lambda judge: LlamaGuard(), 64),
    "qwen3guard": GuardForm(lambda judge: Qwen3Guard(judge.threshold), 128),
    "wildguard": GuardForm(lambda judge: WildGuard(), 64),
    "polyguard": GuardForm(lambda judge: PolyGuard(), 128),
    "shieldgemma": GuardForm(lambda judge: ShieldGemma(), 16),
    "graniteguardian": GuardForm(lambda judge: GraniteGuardian(), 2048),
    "nemotron": GuardForm(lambda judge: Nemotron(), 128),
    "harmbench": GuardForm(lambda judge: HarmBench(), 8),
    "policy": GuardForm(lambda judge: Policy(judge.policy or ""), 8192),
    "template": GuardForm(
        lambda judge: Template(judge.template or "", judge.safe or "", judge.unsafe or ""), 2048
    ),
}  # fmt: skip


@lru_cache(maxsize=16)
def guard_of(judge: Judge) -> Guard:
    """The guard that a judge's entry describes."""
    return FORMS[judge.form or ""].make(judge)
