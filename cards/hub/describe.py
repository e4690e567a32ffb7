"""A release as other trainers describe a dataset: entries for axolotl's and LLaMA-Factory's configuration.

Reads a release's lineage; returns text. Run it with `saferthoughts release describe RELEASE --for axolotl`. Keys are
those that their documentation names: docs.axolotl.ai (dataset loading, conversation format), and data/README.md of
LLaMA-Factory.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from cards.card.dataset_card import default_config
from cards.hub.hub import Address
from cards.release_folder import lineage_now
from cards.rows.shards import shards_of
from pipelines.errors import unknown

TRAINERS = ("axolotl", "llama-factory")
_CAUTION = """\
# A model's own chat template may drop the reasoning from assistant turns (R1-Distill's does). Name one that keeps
# <think>, and look at the labels of a row before the first step.
"""


def describe(folder: Path, trainer: str, configs: Sequence[str] = (), address: Address | None = None) -> str:
    """The entries of some configurations.

    Args:
        trainer: One of TRAINERS.
        configs: Configurations; the default one and `benign` where none is named.
        address: Where the release is on the Hub, for entries that load it from there.

    Raises:
        UserError: the folder is no release, or a name is unknown.
    """
    lineage = lineage_now(folder)
    rows = [name for name, count in lineage["rows"].items() if count]
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    for config in configs:
        if config not in rows:
            raise unknown(f"configuration of {folder}", config, rows)
    chosen = list(configs) or [name for name in rows if name in (default_config(lineage), "benign")]
    # A release of before has a variant under its first name.
    places = [shards_of(folder, name)[0].parent for name in chosen]
    if trainer == "axolotl":
        entries = [_axolotl(folder, place.name, address) for place in places]
        return _CAUTION + yaml.safe_dump({"datasets": entries}, sort_keys=False, allow_unicode=True, width=1_000)
    named = {f"saferthoughts_{place.name}": _llama_factory(place, address) for place in places}
    return json.dumps(named, ensure_ascii=False, indent=2) + "\n"


def _axolotl(folder: Path, config: str, address: Address | None) -> dict[str, object]:
    return {
        "path": address.repo if address else str(folder.resolve()),
        "name": config,
        "split": "train",
        **({"revision": address.revision} if address and address.revision else {}),
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles_to_train": ["assistant"],
    }


def _llama_factory(place: Path, address: Address | None) -> dict[str, object]:
    # A folder is read as a whole; a path that is not absolute counts from that of dataset_info.json.
    return {
        **({"hf_hub_url": address.repo, "subset": place.name} if address else {"file_name": str(place.resolve())}),
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
