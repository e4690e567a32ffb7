"""Results in the form of the Hub's metadata: what the `model-index` of a model's card is made of.

Reads `Results`, writes nothing; `cards.card.model_card` puts it into the card.
"""

from typing import Any

from eval.report.table import REFUSAL
from eval.run.metrics import ALL
from eval.run.results import Rate, Results, TaskRun


def hub_results(results: Results, label: str) -> list[dict[str, Any]]:
    """The rates of one model as arguments of huggingface_hub's `EvalResult`, a share of 1 each.

    A rate with answers that are missing or have no verdict is left out: metadata has no place for an interval.
    """
    tasks = {task.name: task for task in results.tasks}
    return [
        _result(tasks[rate.task], rate)
        for rate in results.rates
        if rate.model == label and (rate.group == ALL) != (rate.task == REFUSAL) and rate.known and rate.complete
    ]


def _result(task: TaskRun, rate: Rate) -> dict[str, Any]:
    settings = {"protocol": task.protocol, "scored": task.score, "answers": rate.n, **task.roles}
    return {
        "task_type": "text-generation",
        "task_name": f"{task.name} {rate.group}".strip(),
        "dataset_type": task.name,
        "dataset_name": task.data.source,
        "dataset_split": rate.group or None,
        "dataset_args": {key: value for key, value in settings.items() if value},
        "metric_type": task.measure.name,
        "metric_name": f"{task.measure.title}, share of {rate.n} answers",
        "metric_value": round(rate.rate.rate, 4),
    }
