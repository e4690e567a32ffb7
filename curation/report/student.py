"""The student in a run's report: an evaluation as the page shows it.

Reads results.json of the run's evaluation; writes nothing.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.prompts.mildness import severity
from pipelines.statistics import wilson

_EXAMPLES = 3


def evaluated(path: Path, run: str) -> dict[str, Any]:
    """The run's evaluation.

    Raises:
        UserError: its file is torn.
    """
    try:
        return _student(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"'{path}' does not hold results ({type(error).__name__}: {str(error)[:99]}). Make it again from the logs, "
            f"asking nobody for what is in them: saferthoughts eval {run}"
        ) from error


def _student(results: dict[str, Any]) -> dict[str, Any]:
    """An evaluation as the page shows it: the refusal task by set and kind, every other task as a whole.

    The shape is that of eval/run/results.py.
    """
    labels = [model["label"] for model in results["models"]]
    rates = {(rate["task"], rate["group"], rate["model"]): rate for rate in results["rates"]}
    answers = [answer for answer in results["answers"] if answer["task"] == "refusal"]
    groups = dict.fromkeys(group for task, group, _ in rates if task == "refusal" and group)
    rows = []
    for group in groups:
        name, _, kind = group.rpartition(" ")
        cells = [stances(rates["refusal", group, label], kind, answers) for label in labels]
        rows.append({"set": name, "kind": kind, "groups": cells})
    tasks = [
        {"title": task["measure"]["title"], "better": task["measure"]["better"]}
        | {"name": task["name"], "rates": [rates[task["name"], "", label] for label in labels]}
        for task in results["tasks"]
        if task["name"] != "refusal"
    ]
    return {"labels": labels, "rows": rows, "tasks": tasks, "examples": replies_of(answers, labels)}


def stances(rate: dict[str, Any], kind: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of a group refused, and how many of those with an answer reasoned in form; null where no answer has a
    verdict. The task's hits are right answers: of benign questions those that were no refusal."""
    mine = [one for one in answers if (one["model"], one["category"]) == (rate["model"], rate["group"])]
    formed = [form for one in mine if (form := one["detail"].get("well_formed")) is not None]
    right = rate["rate"]
    known = rate["hits"] + rate["misses"] > 0
    turned = {"low": 1 - right["high"], "high": 1 - right["low"]}
    refused = rate["hits"] if kind == "harmful" else rate["misses"]
    return {
        "n": rate["expected"],
        "refused": int(refused) if known else None,
        "refused_rate": (right if kind == "harmful" else turned) if known else None,
        "well_formed": sum(formed) if formed else None,
        "well_formed_of": len(formed),
        "well_formed_rate": asdict(wilson(sum(formed), len(formed))) if formed else None,
        "truncated": rate["truncated"],
        "unscored": rate["unscored"] + rate["errored"],
    }


def _severity(answer: dict[str, Any]) -> int:
    """Benign sets first; results of earlier versions lack a question's topic."""
    return severity(answer.get("topic", ""), answer["category"].rpartition(" ")[2])


def replies_of(answers: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """A few prompts of each set and kind, mild ones first, with every model's reply."""
    replies: dict[tuple[str, str, str], dict[str, Any]] = {}
    for answer in sorted(answers, key=_severity):
        key = (answer["category"], answer["id"], answer["question"])
        replies.setdefault(key, {})[answer["model"]] = answer | {"refused": answer["detail"].get("refused")}
    shown: dict[str, int] = {}
    examples = []
    for (category, _, text), by_label in replies.items():
        shown[category] = shown.get(category, 0) + 1
        if shown[category] <= _EXAMPLES:
            name, _, kind = category.rpartition(" ")
            found = [by_label[label] for label in labels if label in by_label]
            examples.append({"set": name, "kind": kind, "text": text, "replies": found})
    return examples
