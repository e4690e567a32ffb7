"""croissant.json: files, hashes and columns of a release in the vocabulary of MLCommons Croissant.

Written by mlcroissant, which also validates it: `mlcroissant validate --jsonld croissant.json`.
"""

import json
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.schema import METADATA, PUBLIC
from cards.shards import shards_of
from pipelines.runs import file_hash

_PARQUET = "application/x-parquet"


def croissant_json(lineage: dict[str, Any], folder: Path) -> str:
    """The description of a release that is being built: every parquet file with its hash, every column.

    Args:
        lineage: As in lineage.json.
        folder: The release, its parquet files written.
    """
    with warnings.catch_warnings():
        # rdflib, below mlcroissant, uses what it deprecated itself.
        warnings.simplefilter("ignore")
        import mlcroissant as mlc

        configs = [*(name for name, count in lineage["rows"].items() if count), "metadata"]
        files, record_sets = [], []
        for config in configs:
            shards = shards_of(folder, config)
            names = [path.relative_to(folder).as_posix() for path in shards]
            files += [
                mlc.FileObject(
                    id=name,
                    name=name,
                    content_url=name,
                    content_size=f"{path.stat().st_size} B",
                    encoding_formats=[_PARQUET],
                    sha256=file_hash(path),
                )
                for name, path in zip(names, shards, strict=True)
            ]
            record_sets += [
                _record_set(mlc, config if len(names) == 1 else f"{config}-{number}", name, config)
                for number, name in enumerate(names)
            ]
        metadata = mlc.Metadata(
            name=lineage["title"],
            description=f"Safe reasoning distilled from {_teachers(lineage)}. README.md says how rows came to be.",
            version=lineage["version"],
            date_published=datetime.fromisoformat(lineage["date"]),
            license=["LICENSE" if lineage["license"] == "other" else lineage["license"]],
            in_language=lineage["language"],
            keywords=["safety", "reasoning", "distillation", *(["rehearsal"] if lineage["rehearsal"] else [])],
            cite_as="Zhang et al., How Should We Enhance the Safety of Large Reasoning Models: An Empirical Study, "
            "ACL 2026 (arXiv 2505.15404)",
            url="https://arxiv.org/abs/2505.15404",
            distribution=files,
            record_sets=record_sets,
        )
        return json.dumps(metadata.to_json(), ensure_ascii=False, indent=2, default=str) + "\n"


def _teachers(lineage: dict[str, Any]) -> str:
    return ", ".join(teacher["model"] for teacher in lineage["teachers"].values()) or "fixed texts"


def _record_set(mlc: Any, name: str, file: str, config: str) -> Any:
    schema = METADATA if config == "metadata" else PUBLIC
    return mlc.RecordSet(
        id=name,
        name=name,
        key=[f"{name}/id"],
        fields=[_field(mlc, f"{name}/{field.name}", file, field) for field in schema],
    )


def _field(mlc: Any, name: str, file: str, field: pa.Field) -> Any:
    source = mlc.Source(file_object=file, extract=mlc.Extract(column=field.name))
    if pa.types.is_list(field.type):
        parts = [
            mlc.Field(
                id=f"{name}/{part}",
                name=f"{name}/{part}",
                data_types=[mlc.DataType.TEXT],
                source=mlc.Source(
                    file_object=file, extract=mlc.Extract(column=field.name), transforms=[mlc.Transform(json_path=part)]
                ),
            )
            for part in ("role", "content")
        ]
        return mlc.Field(id=name, name=name, repeated=True, sub_fields=parts)
    return mlc.Field(id=name, name=name, data_types=[_type(mlc, field.type)], source=source)


def _type(mlc: Any, kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return mlc.DataType.BOOL
    if pa.types.is_integer(kind):
        return mlc.DataType.INTEGER
    return mlc.DataType.FLOAT if pa.types.is_floating(kind) else mlc.DataType.TEXT
