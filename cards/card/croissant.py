"""croissant.json: files, hashes, columns and RAI statements of a release in the vocabulary of MLCommons Croissant.

Written by mlcroissant, which also validates it: `mlcroissant validate --jsonld croissant.json`.
"""

import json
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from cards.card.citation import STUDY
from cards.card.dataset_card import tags_of
from cards.card.datasheet import datasheet, is_synthetic, teachers_of
from cards.objectives.schema import all_rows, columns_of, reasoning_key_of
from cards.rows.schema import Column
from cards.rows.shards import shards_of
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

        key = reasoning_key_of(lineage)
        sheet = datasheet(lineage)
        files, record_sets = [], []
        for config in all_rows(lineage):
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
                _record_set(mlc, config if len(names) == 1 else f"{config}-{number}", name, columns_of(config, key))
                for number, name in enumerate(names)
            ]
        metadata = mlc.Metadata(
            name=lineage["title"],
            description=f"Safe reasoning by {teachers_of(lineage)}. README.md says how rows came to be.",
            version=lineage["version"],
            date_published=datetime.fromisoformat(lineage["date"]),
            license=["LICENSE" if lineage["license"] == "other" else lineage["license"]],
            in_language=lineage["language"],
            keywords=tags_of(lineage),
            cite_as=STUDY,
            url="https://arxiv.org/abs/2505.15404",
            conforms_to=["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
            distribution=files,
            record_sets=record_sets,
            **sheet.fields(),
        )
        found = metadata.to_json()
        # What NeurIPS 2026 asks for besides, and mlcroissant 1.1 has no names for.
        found["@context"]["prov"] = "http://www.w3.org/ns/prov#"
        if (synthetic := is_synthetic(lineage)) is not None:
            found["rai:hasSyntheticData"] = synthetic
        found["prov:wasDerivedFrom"] = sheet.sources
        found["prov:wasGeneratedBy"] = [
            {"@type": "prov:Activity", "prov:label": activity} for activity in sheet.activities
        ]
        return json.dumps(found, ensure_ascii=False, indent=2, default=str) + "\n"


def _record_set(mlc: Any, name: str, file: str, columns: tuple[Column, ...]) -> Any:
    return mlc.RecordSet(
        id=name,
        name=name,
        key=[f"{name}/id"],
        fields=[_field(mlc, f"{name}/{column.name}", file, column) for column in columns],
    )


def _field(mlc: Any, name: str, file: str, field: Column) -> Any:
    words = f"{field.meaning} Example: {field.example} Null: {field.null}."
    source = mlc.Source(file_object=file, extract=mlc.Extract(column=field.name))
    inner = field.type.value_type if pa.types.is_list(field.type) else field.type
    if pa.types.is_struct(inner):
        parts = [
            mlc.Field(
                id=f"{name}/{part}",
                name=f"{name}/{part}",
                data_types=[mlc.DataType.TEXT],
                source=mlc.Source(
                    file_object=file, extract=mlc.Extract(column=field.name), transforms=[mlc.Transform(json_path=part)]
                ),
            )
            for part in (one.name for one in inner)
        ]
        return mlc.Field(id=name, name=name, description=words, repeated=True, sub_fields=parts)
    many = {"repeated": True} if inner is not field.type else {}
    return mlc.Field(id=name, name=name, description=words, data_types=[_type(mlc, inner)], source=source, **many)


def _type(mlc: Any, kind: pa.DataType) -> Any:
    if pa.types.is_boolean(kind):
        return mlc.DataType.BOOL
    if pa.types.is_integer(kind):
        return mlc.DataType.INTEGER
    return mlc.DataType.FLOAT if pa.types.is_floating(kind) else mlc.DataType.TEXT
