"""Models for Inspect: an endpoint, a local checkpoint, the judges and attackers of a task.

Reads `teachers.yaml` and `judges.yaml` through `pipelines/settings/`, keys from the environment. A server that
is started for the run writes its log into the folder it is given. `eval/run/stage.py` opens them for as long as it
asks:

    with ExitStack() as stack:
        servers = Servers(folder, stack)
        model = open_target(target, servers, stack)
        judges = open_roles(roles.given(), servers)
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from inspect_ai.model import GenerateConfig, Model, get_model

from eval.models.endpoint import EndpointAPI
from eval.models.hf_local import CONNECTIONS, StudentAPI
from eval.models.llama_cpp import GGUF, PLACES, check_gguf, gguf_server
from pipelines.errors import UserError, unknown
from pipelines.files import file_hash
from pipelines.judges.guard_forms import FORMS
from pipelines.progress import console
from pipelines.settings.judge import Judge, load_judges
from pipelines.settings.teacher import Sampling, Serve, Teacher, load_teachers
from pipelines.teachers.client import api_key
from pipelines.thinking import OPEN, ReasoningStyle
from training.students.decoding import ReplyDecoder
from training.students.loading import load_tokenizer, prompt_of
from training.students.student import check_checkpoint, weights_hash

# Every form of judges.yaml but the user's own template, whose texts an evaluation does not get.
_FORMS = tuple(form for form in FORMS if form != "template")
RULES = "rules"
YES_NO = "yes-no"


@dataclass(frozen=True, slots=True)
class Target:
    """A model to be measured: a checkpoint's folder, a GGUF file, or an endpoint's entry under `teacher`.

    `label` names it in tables and folders. `base` and `variant` name its row in the study's table, "" where none.
    """

    label: str
    path: Path | None = None
    teacher: Teacher | None = None
    name: str = ""
    base: str = ""
    variant: str = ""

    @property
    def kind(self) -> Literal["endpoint", "checkpoint"]:
        """What it is."""
        return "endpoint" if self.path is None else "checkpoint"

    @property
    def gguf(self) -> bool:
        """Whether it is a file for llama.cpp."""
        return self.path is not None and self.path.suffix == GGUF

    @property
    def model(self) -> str:
        """What it is called: the endpoint's model, the folder, or the file."""
        return self.teacher.model if self.teacher else str(self.path)

    @property
    def place(self) -> str:
        """Where it is."""
        return self.teacher.place if self.teacher else str(self.path)

    def check(self) -> None:
        """Refuse it before anything runs.

        Raises:
            UserError: a folder that is no checkpoint, a GGUF file that cannot be served, an endpoint without its key or
                that answers in batches only.
        """
        if self.path is not None:
            (check_gguf if self.gguf else check_checkpoint)(self.path)
        elif self.teacher is not None:
            api_key(self.name or self.label, self.teacher)
            if self.teacher.transport == "batch":
                raise UserError(f"Teacher '{self.name}' answers in batches, and an evaluation cannot wait for them.")

    def weights_sha256(self) -> str | None:
        """The hash of a checkpoint's weights."""
        if self.path is None:
            return None
        return file_hash(self.path) if self.gguf else weights_hash(self.path)


@dataclass(frozen=True, slots=True)
class Role:
    """A model that a task uses besides the measured one; `form` is the guard's prompt format."""

    name: str
    teacher: Teacher
    form: str = ""
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class ModelRoles:
    """Who judges and attacks. Without a guard, or with `rules`, string rules decide. `judges` are those of one task."""

    guard: Role | None = None
    judge: Role | None = None
    attacker: Role | None = None
    judges: Mapping[str, Role] = field(default_factory=dict)

    def of(self, task: str) -> "ModelRoles":
        """Those of one task."""
        return replace(self, judge=self.judges.get(task, self.judge))

    @property
    def form(self) -> str:
        """The guard's form."""
        return self.guard.form if self.guard else RULES

    def given(self) -> dict[str, Role]:
        """Those that are there, by role."""
        found = {"guard": self.guard, "judge": self.judge, "attacker": self.attacker}
        return {name: role for name, role in found.items() if role is not None}

    def names_of(self, needed: Iterable[str], decides: str) -> dict[str, str]:
        """The model of each role that a task needs, as results have it; of a role that decides without one, rules."""
        models = {decides: RULES} if decides else {}
        return models | {name: self.given()[name].teacher.model for name in needed}


def roles(
    guard: str | None,
    judge: str | None,
    attacker: str | None,
    teachers: Path | None = None,
    judges: Mapping[str, str] | None = None,
) -> ModelRoles:
    """The roles by names: a guard is an entry of judges.yaml or teachers.yaml or "rules", the others are of either.

    Args:
        guard: Who tells unsafe responses.
        judge: Who rates attacks and reads refusals.
        attacker: Who writes attacks.
        teachers: A teachers.yaml of the user's own.
        judges: Judges of single tasks, by task.

    Raises:
        UserError: a name that is none of them, a guard of a form that guards have not, a missing key.
    """
    entries, known = load_teachers(teachers), load_judges()
    found = {}
    for what, name in (("guard", guard), ("judge", judge), ("attacker", attacker)):
        if name is not None and not (what == "guard" and name == RULES):
            found[what] = _role(what, name, known, entries)
    own = {task: _role(f"judge of {task}", name, known, entries) for task, name in (judges or {}).items()}
    return ModelRoles(**found, judges=own)


def _role(what: str, name: str, judges: Mapping[str, Judge], teachers: Mapping[str, Teacher]) -> Role:
    known = {key: judge for key, judge in judges.items() if judge.teacher}
    if name in known:
        judge = known[name]
        assert judge.teacher is not None
        form = YES_NO if judge.form is None else judge.form if judge.form in _FORMS else ""
        if what == "guard" and not form:
            raise UserError(f"Judge '{name}' has the form {judge.form}. A guard is one of {', '.join(_FORMS)}.")
        role = Role(name, teachers[judge.teacher], form, judge.sampling if judge.form else None)
    elif name in teachers:
        role = Role(name, teachers[name], YES_NO)
    else:
        choices = [RULES] if what == "guard" else []
        raise unknown(what, name, dict.fromkeys([*choices, *known, *teachers]))
    Target(what, teacher=role.teacher, name=name).check()
    return role


class Servers:
    """What has to be started for the entries that are asked, each once, for as long as `stack` is open."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self._urls: dict[str, str] = {}

    def url(self, name: str, teacher: Teacher) -> str:
        """Where an entry answers."""
        if name not in self._urls:
            self._urls[name] = self._start(name, teacher)
        return self._urls[name]

    def _start(self, name: str, teacher: Teacher) -> str:
        if teacher.embedded:
            from pipelines.rehearsal.faults import RehearsalSettings
            from pipelines.rehearsal.server import rehearsing

            return self._stack.enter_context(rehearsing(RehearsalSettings(seed=teacher.sampling.seed or 0)))
        if teacher.serve is not None:
            from pipelines.teachers.vllm_server import served

            return self._stack.enter_context(served(name, teacher, self.folder))
        if len(teacher.urls) > 1:
            message = f"{name}: of its {len(teacher.urls)} servers an evaluation asks the first, {teacher.urls[0]}"
            console.print(message, markup=False, highlight=False, soft_wrap=True)
        return teacher.urls[0]


def open_target(target: Target, servers: Servers, stack: ExitStack) -> Model:
    """The model to measure, for as long as `stack` is open.

    A GGUF file is served by llama.cpp. A checkpoint is served by vLLM where it and a GPU are there, and decoded on the
    CPU otherwise.
    """
    if target.teacher is not None:
        return _endpoint(target.name or target.label, target.teacher, servers.url)
    assert target.path is not None
    if target.gguf:
        url, key = stack.enter_context(gguf_server(target.path, servers.folder))
        return _endpoint(target.label, Teacher(model=target.path.stem, base_url=url, in_flight=PLACES), key=key)
    if has_gpu():
        served = _served(target.label, target.path)
        # Its server ends with it: the next checkpoint needs the GPU.
        return _endpoint(target.label, served, Servers(servers.folder, stack).url)
    model = get_model(
        f"student/{target.label}",
        path=str(target.path),
        memoize=False,
        config=GenerateConfig(max_connections=CONNECTIONS),
    )
    assert isinstance(model.api, StudentAPI)
    stack.callback(model.api.close)
    return model


def open_roles(asked: Mapping[str, Role], servers: Servers) -> dict[str, Model]:
    """The models of the roles. Inspect counts requests by key and model, so that one entry's limit holds over roles."""
    models = {}
    for name, role in asked.items():
        sampling = role.sampling.model_dump(exclude_none=True) if role.sampling else {}
        models[name] = _endpoint(role.name, role.teacher, servers.url, GenerateConfig(**sampling))
    return models


def _endpoint(
    name: str,
    teacher: Teacher,
    url: Callable[[str, Teacher], str] = lambda _, teacher: teacher.urls[0],
    config: GenerateConfig | None = None,
    key: str | None = None,
) -> Model:
    ours = GenerateConfig(
        max_connections=teacher.in_flight,
        max_retries=teacher.retries,
        extra_body=teacher.extra_body or None,
    )
    # Given only where an entry has them: arguments are part of a log's identity. Inspect's own time-out of an attempt
    # would end a stream that is well under way.
    given = teacher.model_fields_set & {"attempt_timeout_s", "stream", "idle_timeout_s"}
    patience = {name: getattr(teacher, name) for name in sorted(given)}
    model = get_model(
        f"endpoint/{teacher.model}",
        base_url=url(name, teacher),
        api_key=key or api_key(name, teacher),
        style=teacher.reasoning_style,
        entry=name,
        requests_per_minute=teacher.requests_per_minute,
        tokens_per_minute=teacher.tokens_per_minute,
        memoize=False,
        config=(config or GenerateConfig()).merge(ours),
        **patience,
    )
    assert isinstance(model.api, EndpointAPI)
    return model


def has_gpu() -> bool:
    """Whether a checkpoint can be served by vLLM here: it is on the PATH or installed, and a GPU is seen."""
    if shutil.which("vllm") is None and importlib.util.find_spec("vllm") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def _served(label: str, path: Path) -> Teacher:
    """A checkpoint as vLLM serves it: as its chat template and its tokenizer have reasoning."""
    tokenizer = load_tokenizer(path)
    prompt = str(prompt_of(tokenizer, [{"role": "user", "content": "Hello."}]))
    # Where the prompt opens the thought, completions begin inside it.
    style: ReasoningStyle = "missing_opener" if prompt.rstrip().endswith(OPEN) else "auto"
    # vLLM drops special tokens, tags of reasoning among them, unless it is told not to.
    extra = {"skip_special_tokens": False} if ReplyDecoder(tokenizer).marks else {}
    return Teacher(model=label, serve=Serve(model=str(path)), reasoning_style=style, in_flight=128, extra_body=extra)
