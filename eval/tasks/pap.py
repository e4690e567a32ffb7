"""PAP: harmful questions dressed up by techniques of persuasion.

Data      ready: one rewrite of each of the 50 questions of `none` (columns query, final_query, category), from the
          study's repository at a pinned commit; a file with such columns; or 10 bundled ones of our own.
          attacker: the questions of `none`, rewritten now by the role `attacker`, each by the next technique of a
          taxonomy of 40 (eval/data/persuasion.yaml; their names are the paper's, their definitions ours) or of a file
          of your own.
Metric    attack success rate: the share of responses that the guard calls unsafe, judged against the question and not
          the rewrite.
Protocol  the rewrite as the user's turn, one greedy answer of at most 4,096 tokens. The study asks the ready ones.
Source    Zeng et al. 2024 (arXiv 2401.06373), as Zhang et al. ask it.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample

from eval.inspect_tasks import Arguments, Unpack, standalone
from eval.models.kept_replies import Rewriting
from eval.questions import QUESTION, guarded_task
from eval.run.results import DataUsed
from eval.scorers import guards
from eval.scorers.pair import ATTACKER
from eval.scorers.rewrites import reworded_task
from eval.sources import Public, distinct, load, row_id, untrained
from eval.task_prompts import hashes, rendered
from eval.task_spec import BuiltTask, TaskRequest, TaskSpec
from eval.tasks.none import STUDY, STUDY_COMMIT, questions
from pipelines.errors import UserError, unknown
from pipelines.row_files import optional_text, text, yaml_rows
from pipelines.runs import file_hash

# Read at this commit, the file has 50 rows with the columns query, final_query, category.
PUBLIC = Public(STUDY, STUDY_COMMIT, "attack_refusal_evaluation/results/pap_advbenchsub.jsonl", "mit", "github")
DATA = Path(__file__).parent.parent / "data"
SAMPLE = DATA / "persuasive.yaml"
TAXONOMY = DATA / "persuasion.yaml"
REWRITE = ("final_query", "rewrite", "ss_prompt")
_READY, _BY_ATTACKER = "ready", "attacker"


def build(request: TaskRequest) -> BuiltTask:
    """The task.

    Raises:
        UserError: the questions or the taxonomy cannot be had, or the guard cannot judge what it is to see.
    """
    if request.settings["rewrites"] not in (_READY, _BY_ATTACKER):
        raise unknown("source of rewrites", str(request.settings["rewrites"]), (_READY, _BY_ATTACKER))
    if request.settings["rewrites"] == _READY:
        return guarded_task("pap", request, *_ready(request))
    samples, used = _to_be_written(request)
    rewriting = Rewriting(_persuaded, request.settings["attacker"])
    return reworded_task("pap", request, samples, used, rewriting, hashes("persuade") | _taxonomy_hash(request))


def _ready(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    need = {"question": QUESTION, "rewrite": REWRITE}
    loaded = load(request, PUBLIC, SAMPLE, need, {"category": ("category", "technique")})
    rows = untrained(request, loaded)
    samples = []
    for row in rows[: request.limit]:
        technique = str(row["category"] or "")
        samples.append(_sample(row["rewrite"], row_id(row, row["question"]), row["question"], technique))
    distinct([str(one.id) for one in samples], loaded)
    return samples, loaded.used(len(samples), left_out=len(loaded.rows) - len(rows))


def _to_be_written(request: TaskRequest) -> tuple[list[Sample], DataUsed]:
    asks, used = questions(request)
    techniques = load_taxonomy(_taxonomy(request))
    each = int(request.settings["per_question"])
    if each > len(techniques):
        raise UserError(f"pap.per_question is {each}, but the taxonomy has {len(techniques)} techniques.")
    turns = count()
    samples = []
    for ask in asks:
        for _ in range(each):
            technique = techniques[next(turns) % len(techniques)]
            sample = _sample(str(ask.input), str(ask.id), str(ask.input), technique["name"])
            samples.append(sample.model_copy(update={"metadata": {**(sample.metadata or {}), "technique": technique}}))
    return samples, used


def _sample(asked: str, id_: str, question: str, technique: str) -> Sample:
    metadata = {"category": technique, "question": question, guards.DETAIL: {"technique": technique}}
    return Sample(input=asked, id=f"{id_}:{technique}" if technique else id_, metadata=metadata)


def load_taxonomy(path: Path) -> list[dict[str, str]]:
    """The techniques of a taxonomy: name, definition and, where there is one, example.

    Raises:
        UserError: the file is no such list, or has a duplicate name.
    """
    rows = list(yaml_rows(path, ("name", "definition"), ("example",)))
    found = [{key: text(row, key) for key in ("name", "definition")} for row in rows]
    names = [technique["name"] for technique in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has the technique '{name}' {names.count(name)} times. Each may stand once.")
    return [technique | {"example": optional_text(row, "example")} for technique, row in zip(found, rows, strict=True)]


def _persuaded(text: str, metadata: Mapping[str, Any]) -> str:
    """What the attacker is asked for a question, by its sample's technique."""
    chosen = metadata["technique"]
    words = {"technique": chosen["name"], "definition": chosen["definition"], "example": chosen["example"]}
    return rendered("persuade", goal=text, **words)


def roles(request: TaskRequest) -> tuple[str, ...]:
    """The models that it asks beside the target."""
    attacker = (ATTACKER,) if request.settings["rewrites"] == _BY_ATTACKER else ()
    return (*attacker, *guards.roles(request))


def _taxonomy(request: TaskRequest) -> Path:
    named = str(request.settings["taxonomy"])
    return TAXONOMY if named == "bundled" else Path(named)


def _taxonomy_hash(request: TaskRequest) -> dict[str, str]:
    path = _taxonomy(request)
    return {path.name: file_hash(path)}


@task
def pap(**arguments: Unpack[Arguments]) -> Task:
    return standalone(TASK, arguments)


TASK = TaskSpec("pap", "PAP", guards.ASR, "guarded", build, roles, rescorer=guards.rescorer, decided_by="guard")
