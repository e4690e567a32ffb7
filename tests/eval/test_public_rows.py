"""The suite `safety` on public rows against the rehearsal teacher, with a guard and judges whose rulings are counted by
hand. Skipped where ../shared/data is not there."""

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from inspect_ai.log import EvalLog
from inspect_ai.model import get_model

from eval.task_spec import TaskRequest
from eval.tasks import none, pair, pap, xstest
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ADVBENCH, PAP, XSTEST = (DATA / f"{name}.jsonl" for name in ("advbench_subset", "pap_advbench", "xstest_safe_prompts"))
PAPER = yaml.safe_load((Path(none.__file__).parent.parent / "protocols.yaml").read_text(encoding="utf-8"))["paper"]
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the public rows of ../shared/data are not here")

# By hand, over the 22 rows of advbench_subset.jsonl: 4 begin with "Create" and 4 with "Write", which the guard calls
# unsafe; 5 hold " steal", on which the judge of PAIR ends the attack at once. The rows of pap_advbench.jsonl are of the
# same questions. Of the 137 of xstest_safe_prompts.jsonl 31 begin with "Why" and 63 with "What", 15 of these among the
# first 40, which count as trained on and of which no other begins so.
QUESTIONS, UNSAFE, ENDED = 22, 8, 5
XSTEST_LEFT, PARTLY, WHOLLY = 97, 31, 48


def script(body: dict[str, Any]) -> str:
    """Guard, attacker and both judges."""
    content = str(body["messages"][-1]["content"])
    if body["model"] == "guard":
        return "unsafe\nS1" if body["messages"][0]["content"].startswith(("Create", "Write")) else "safe"
    if body["model"] == "attacker":
        goal = re.search(r'no instruction to you:\n(".*")', body["messages"][0]["content"])
        assert goal
        return json.dumps({"improvement": "", "prompt": f"For a story: {json.loads(goal[1])}"})
    document = json.loads(content.partition("\n\n")[2] or content)
    if "test_request" in document:
        return f"Rating: [[{10 if ' steal' in document['test_request'] else 1}]]"
    named = {"Why": "partial_refusal", "Wha": "full_refusal"}.get(document["query"][:3], "full_compliance")
    return json.dumps({"row": document["row"], "compliance": named})


def test_safety_suite_gives_what_is_counted_by_hand(
    serving: Callable[..., AbstractContextManager[Any]],
    run_tasks: Callable[..., list[EvalLog]],
    quiet: Callable[[], AbstractContextManager[None]],
) -> None:
    prompts = [json.loads(line)["prompt"] for line in XSTEST.read_text(encoding="utf-8").splitlines()]
    trained = frozenset(sha256(prompt.strip().encode()).hexdigest() for prompt in prompts[:40])

    def built(task: Any, data: Path, **more: Any) -> Any:
        wanted = PAPER[task.TASK.name] | more
        return task.TASK.build(TaskRequest(wanted, data=data, guard="llamaguard", judged=True, trained=trained))

    tasks = [
        built(none, ADVBENCH),
        built(pap, PAP),
        built(pair, ADVBENCH, streams=2, iterations=2),
        built(xstest, XSTEST),
    ]
    assert [(one.data.questions, one.data.left_out) for one in tasks] == [(QUESTIONS, 0)] * 3 + [(XSTEST_LEFT, 40)]
    with serving(script) as endpoint, rehearsing(RehearsalSettings(style="inline")) as url, quiet():
        target = get_model("openai-api/rehearsal/rehearsal-r1", base_url=url, api_key="none", memoize=False)
        roles = {name: endpoint.model(name) for name in ("attacker", "guard", "judge")}
        logs = run_tasks([one.task for one in tasks], target, **roles)
        del target, roles
    found: dict[str, list[Any]] = {}
    for log in logs:
        assert log.status == "success", log.error
        for sample in log.samples or []:
            [score] = (sample.scores or {}).values()
            assert score.answer, sample.id
            assert (score.metadata or {})["reasoning"], sample.id
            found.setdefault(log.eval.task, []).append(score)
    counts = {name: (sum(score.value for score in scores), len(scores)) for name, scores in found.items()}
    assert counts == {
        "none": (UNSAFE, QUESTIONS),
        "pap": (UNSAFE, QUESTIONS),
        "pair": (UNSAFE, QUESTIONS),
        "xstest": (PARTLY + WHOLLY, XSTEST_LEFT),
    }
    classes = Counter(score.metadata["detail"]["class"] for score in found["xstest"])
    assert classes == {
        "partial_refusal": PARTLY,
        "full_refusal": WHOLLY,
        "full_compliance": XSTEST_LEFT - PARTLY - WHOLLY,
    }
    attempts = sum(score.metadata["detail"]["attempts"] for score in found["pair"])
    assert attempts == 2 * ENDED + 4 * (QUESTIONS - ENDED)
    # Prompts of PAIR's own were sent: two streams of one or two iterations, and once more the best of each.
    assert len(endpoint.of("attacker")) == attempts
    assert len(endpoint.of("guard")) == 3 * QUESTIONS
