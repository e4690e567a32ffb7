"""CITATION.cff of a release (Citation File Format 1.2.0), from its lineage: release, study, prompts' papers."""

from functools import cache
from pathlib import Path
from re import sub
from typing import Any

import yaml

from pipelines.errors import visible

_STUDY = {
    "title": "How Should We Enhance the Safety of Large Reasoning Models: An Empirical Study",
    "authors": "Zhang et al.",
    "year": 2026,
    "arxiv": "2505.15404",
}
STUDY = f"{_STUDY['authors']}, {_STUDY['title']}, ACL {_STUDY['year']} (arXiv {_STUDY['arxiv']})"
# The Hub's names of licences that the format knows, by its own names (SPDX).
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc0-1.0": "CC0-1.0", "odc-by": "ODC-By-1.0"}


def citation(lineage: dict[str, Any]) -> str:
    """The file's text. Who made a release is not recorded but by the owner of its repository."""
    title, license_id = visible(" ".join(lineage["title"].split())), lineage["license"]
    spdx = _SPDX.get(license_id) or (license_id.upper() if license_id.startswith("cc-by") else None)
    owner = lineage["repo"].partition("/")[0] if lineage["repo"] else f"The makers of {title}"
    found = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, cite it, and the study whose method it follows.",
        "type": "dataset",
        "title": title,
        "authors": [{"name": owner}],
        "version": lineage["version"],
        "date-released": lineage["date"],
        **({"license": spdx} if spdx else {}),
        **({"repository": f"https://huggingface.co/datasets/{lineage['repo']}"} if lineage["repo"] else {}),
        "references": [
            {
                "type": "article",
                "title": paper["title"],
                "authors": [{"name": paper["authors"]}],
                "year": paper["year"],
                "url": f"https://arxiv.org/abs/{paper['arxiv']}",
            }
            for paper in (_STUDY, *cited(lineage["sources"]))
        ],
    }
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1_000)


@cache
def _known_sources() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8")))


def cited(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The papers behind the sources, each once."""
    names = [sub(r"[^a-z0-9]", "", source["source"].lower()) for source in sources]
    return [known for known in _known_sources() if any(known["match"] in one for one in names)]
