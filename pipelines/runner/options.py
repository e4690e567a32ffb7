"""How a stage makes its requests: its budget, other runs' answers, where they are made, what may fail."""

from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError, unknown
from pipelines.runner.outcomes import MAX_FAILED

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Caps:
    """What a run may spend in all its calls together: US dollars, and tokens of input and output; None for no cap."""

    max_cost: float | None = None
    max_tokens: int | None = None

    def doubled(self) -> str:
        """Flags with twice as much, to propose where a cap was reached."""
        pairs = (("--max-cost", self.max_cost), ("--max-tokens", self.max_tokens))
        return " ".join(f"{flag} {2 * value:g}" for flag, value in pairs if value is not None)


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class Engine:
    """Where requests are made: by this process, or by workers of a Ray cluster.

    `ray_address` is "host:port" or "auto"; None stands for a cluster of our own, on this machine.

    Raises:
        UserError: no such engine, or an address without Ray.
    """

    name: str = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        if self.ray_address is not None and self.name != "ray":
            raise UserError(f"--ray-address {self.ray_address} goes with --engine ray; the engine is '{self.name}'.")


LOCAL = Engine()


LOCAL = Engine()


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a stage makes its requests; every field has a value that does for most.

    Attributes:
        caps: What the run may spend in all its calls together; at a cap the call ends, and one with a higher cap goes
            on.
        reuse: Ledgers of other runs, whose answers to the same requests are taken over and cost nothing.
        engine: Where requests are made; the rows are the same.
        max_failed: The share of rows that may be refused for good without stopping what follows.
        allow_no_reasoning: Go on with a teacher that shows no reasoning where a variant wants some.
    """

    caps: Caps = NO_CAPS
    reuse: tuple[Path, ...] = ()
    engine: Engine = LOCAL
    max_failed: float = MAX_FAILED
    allow_no_reasoning: bool = False


DEFAULTS = RequestOptions()
