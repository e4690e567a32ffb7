"""The dataset card: `dataset_card.md.jinja` filled from a lineage and nothing else."""

import hashlib
import json
import re
from typing import Any

import pyarrow as pa
import yaml

from cards.card.citation import cited
from cards.card.datasheet import TURNED_DOWN, answers_of, datasheet, is_synthetic
from cards.card.imported import origin
from cards.card.markdown import TEMPLATES, template
from cards.objectives.schema import OBJECTIVES, all_rows, columns_of, holding_rejected, reasoning_key_of
from cards.rows.schema import schema_of, type_name
from cards.rows.shards import OBJECTIVES as OBJECTIVES_FOLDER
from pipelines.errors import visible
from pipelines.judges.alone import RULES_ALONE
from pipelines.records import PATTERNS

# Upper bounds of the Hub's size categories.
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")),
)


def template_hash() -> str:
    """sha256 of all that words a card: one that another version worded is not a wrong one."""
    sources = (
        *("card/dataset_card.md.jinja", "objectives/card.md.jinja", "card/dataset_card.py", "card/markdown.py"),
        *("card/citation.py", "card/datasheet.py", "card/imported.py", "rows/schema.py", "objectives/schema.py"),
    )
    return hashlib.sha256(b"".join((TEMPLATES / name).read_bytes() for name in sources)).hexdigest()


def size_category(rows: int) -> str:
    """The Hub's name for a dataset of that many rows."""
    return next((name for bound, name in _SIZES if rows < bound), "100M<n<1B")


def dataset_card(lineage: dict[str, Any]) -> str:
    """README.md of a release. A value that the lineage lacks is an error, never a gap."""
    rows = {name: count for name, count in lineage["rows"].items() if count}
    repair, key = lineage["repair"], reasoning_key_of(lineage)
    # Lists and mappings of single values in one line each: every configuration names all of its columns.
    front = yaml.safe_dump(
        front_matter(lineage), sort_keys=False, allow_unicode=True, width=1_000, default_flow_style=None
    )
    body = template("card/dataset_card.md.jinja").render(
        **lineage,
        total=sum(rows.values()),
        first=default_config(lineage) or next(iter(rows)),
        default_config=default_config(lineage),
        baselines={
            name: entry
            for name, entry in lineage["variants"].items()
            if rows.get(name) and entry["teacher"] and not entry.get("pattern_checked", True)
        },
        place=f"{lineage['repo']}@v{lineage['version']}" if lineage["repo"] else "FOLDER",
        labels=list(PATTERNS),
        most=range(max((len(fault["mended"]) for fault in repair["by_pattern"]), default=0) if repair else 0),
        rules_alone=RULES_ALONE
        if not lineage["rehearsal"] and all(j["kind"] == "rules" for j in lineage["judging"]["judges"].values())
        else "",
        columns=columns_of("improved", key),
        reasoning_key=key,
        others={
            name: {**one, "about": OBJECTIVES[name], "columns": columns_of(name, key)}
            for name, one in lineage.get("objectives", {}).items()
        },
        holding_rejected=holding_rejected(lineage),
        sheet=datasheet(lineage),
        answers=answers_of(lineage),
        origin=lineage["imported"] and origin(lineage["imported"]),
        example=_example(lineage["sample"]),
        survival=_survival(lineage["figures"]["survivorship"]),
        citations=cited(lineage["sources"]),
        plots=_plots(lineage["figures"]),
    )
    return f"---\n{front}---\n{body}"


def default_config(lineage: dict[str, Any]) -> str | None:
    """The configuration that `load_dataset` gives where none is named: `improved`, else the first one that a teacher
    wrote and that is free of patterns; None where there is none."""
    sound = [
        name
        for name, entry in lineage["variants"].items()
        if lineage["rows"].get(name) and entry["teacher"] and entry.get("pattern_checked", True)
    ]
    return "improved" if "improved" in sound else next(iter(sound), None)


def front_matter(lineage: dict[str, Any]) -> dict[str, Any]:
    """What the Hub reads of the card."""
    rows, sizes = all_rows(lineage), {**lineage["sizes"], **lineage.get("objectives", {})}
    content = {**lineage["content"], **{name: one["content"] for name, one in lineage.get("objectives", {}).items()}}
    gating = lineage["gating"]
    front: dict[str, Any] = {"pretty_name": visible(" ".join(lineage["title"].split())), "license": lineage["license"]}
    if lineage["license"] == "other":
        front |= {"license_name": "see-license-file", "license_link": "LICENSE"}
    front |= {
        "language": lineage["language"],
        "task_categories": ["text-generation"],
        "size_categories": [size_category(sum(lineage["rows"].values()))],
        "tags": tags_of(lineage),
    }
    if gating:
        warning = [f"{', '.join(names)}: {TURNED_DOWN}"] if (names := holding_rejected(lineage)) else []
        front["extra_gated_prompt"] = visible("\n\n".join([_lines(gating["text"]), *warning]))
        front["extra_gated_fields"] = {
            visible(" ".join(label.split())): kind for label, kind in gating["fields"].items()
        }
    front["configs"] = [
        {
            "config_name": config,
            **({"default": True} if config == default_config(lineage) else {}),
            # `datasets` takes two local folders of one name for the same dataset, unless this differs.
            "description": f"content {content[config][:16]}",
            "data_files": [{"split": "train", "path": f"{_place(config)}/train-*.parquet"}],
        }
        for config in rows
    ]
    key = reasoning_key_of(lineage)
    front["dataset_info"] = [_info(config, count, sizes[config], key) for config, count in rows.items()]
    return front


def _place(config: str) -> str:
    return f"{OBJECTIVES_FOLDER if config in OBJECTIVES else 'data'}/{config}"


def tags_of(lineage: dict[str, Any]) -> list[str]:
    """What people filter datasets by, as far as it is in the release."""
    rows, prompts = lineage["rows"], lineage["prompts"]
    holds = {
        "safety": True,
        "reasoning": default_config(lineage) is not None or bool(rows.get("benign")),
        "distillation": bool(is_synthetic(lineage)),
        "synthetic": bool(is_synthetic(lineage)),
        "red-teaming": bool(prompts["templates"]) and any(rows.get(name) for name in lineage["variants"]),
        "over-refusal": bool(rows.get("benign")),
        "human-feedback": bool(lineage["people"]),
        "preference": "preference" in all_rows(lineage),
        "rehearsal": lineage["rehearsal"],
    }
    return ["saferthoughts", *(tag for tag, held in holds.items() if held)]


def _info(config: str, count: int, sizes: dict[str, int], key: str) -> dict[str, Any]:
    """`dataset_info` of a configuration, as `datasets` writes it itself."""
    return {
        "config_name": config,
        "features": [_feature(field) for field in schema_of(columns_of(config, key))],
        "splits": [{"name": "train", "num_bytes": sizes["num_bytes"], "num_examples": count}],
        "download_size": sizes["download_size"],
        "dataset_size": sizes["num_bytes"],
    }


def _feature(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        inner = field.type.value_type
        parts = [_feature(part) for part in inner] if pa.types.is_struct(inner) else type_name(inner)
        return {"name": field.name, "list": parts}
    return {"name": field.name, "dtype": type_name(field.type)}


def _example(row: dict[str, Any] | None) -> str:
    """A row as JSON for a block of code: no text in it begins a line, or looks like a template."""
    text = json.dumps(row, ensure_ascii=False, indent=2)
    return re.sub(r"\{\{|\}\}|\{%|%\}", lambda found: "".join(f"\\u{ord(sign):04x}" for sign in found[0]), text)


def _lines(text: str) -> str:
    """The text with ordinary line ends: what else Unicode has of them, YAML readers take one way or the other."""
    return "\n".join(text.splitlines())


def _survival(found: dict[str, Any]) -> list[dict[str, Any]]:
    """For each configuration: prompts, survivors, and what survives least and most where survival depends on it."""
    lines = []
    for config in dict.fromkeys(item["config"] for item in found["biases"]):
        own = [item for item in found["biases"] if item["config"] == config]
        categories = [item for item in own if item["dimension"] == "category"]
        line = {key: sum(item[key] for item in categories) for key in ("prompts", "survivors")}
        shifts = []
        for dependence in found["dependences"]:
            if dependence["config"] == config and dependence["p"] is not None and dependence["p"] < 0.05:
                parts = sorted(
                    (item for item in own if item["dimension"] == dependence["dimension"]),
                    key=lambda item: (item["survival"], item["value"]),
                )
                shifts.append({**dependence, "least": parts[0], "most": parts[-1]})
        lines.append({"config": config, **line, "shifts": shifts})
    return lines


def _plots(figures: dict[str, Any]) -> list[str]:
    """Which plots the release has, as `curation.report.charts.plot_files` draws them."""
    there = {
        "patterns": any(item[key] and item[key]["rate"] is not None for item in figures["patterns"] for key in _WHEN),
        "lengths": bool(figures["lengths"]),
        "survival": bool(figures["survivorship"]["biases"]),
    }
    return [name for name, known in there.items() if known]


_WHEN = ("before", "after")
