"""What a release states about itself, by the fields of Croissant's RAI vocabulary: for croissant.json and the card.

Reads a lineage, writes nothing. Every sentence is of something that the lineage records, or says that it is not
recorded. Fields: http://mlcommons.org/croissant/RAI/1.0, and NeurIPS 2026's minimal set, which adds synthetic data,
sources and activities.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from cards.card.imported import how_written, origin
from cards.objectives.schema import OBJECTIVES, holding_rejected

_MOST_NAMED = 20
TURNED_DOWN = (
    "these configurations hold responses that the judges turned down: reasoning that weighs or helps the harm, answers "
    "that comply. They are there to be told apart from good ones, and not to be imitated."
)
_KINDS = {
    "rules": "patterns by rules over the text",
    "local": "patterns by a classifier on a CPU",
    "patterns": "patterns of reasoning",
    "safety": "safety",
}


class Datasheet(NamedTuple):
    """The statements; by the names that mlcroissant has for the fields, except the last two."""

    data_collection: str
    data_collection_type: list[str]
    data_collection_missing_data: str
    data_collection_raw_data: str
    data_preprocessing_protocol: list[str]
    data_annotation_protocol: list[str]
    data_annotation_platform: list[str]
    data_annotation_analysis: list[str]
    annotations_per_item: str
    annotator_demographics: list[str]
    machine_annotation_tools: list[str]
    data_biases: list[str]
    data_use_cases: list[str]
    data_limitations: list[str]
    data_social_impact: str
    personal_sensitive_information: list[str]
    data_release_maintenance_plan: str
    sources: list[str]
    activities: list[str]

    def fields(self) -> dict[str, Any]:
        """The statements that are fields of mlcroissant's Metadata."""
        return {name: value for name, value in self._asdict().items() if name not in ("sources", "activities")}


def datasheet(lineage: dict[str, Any]) -> Datasheet:
    """The statements of a release.

    Args:
        lineage: As in lineage.json, of this version.
    """
    people, judges = lineage["people"], lineage["judging"]["judges"]
    imported = lineage["imported"]
    sources = [f"{item['source']} ({item['license']}, {item['prompts']} prompts)" for item in lineage["sources"]]
    preprocessing = _preprocessing(lineage)
    missing, checked = lineage["counts"]["generate"], lineage["counts"]["check"]
    rejected = checked["rejected"] - checked.get("superseded", 0)
    return Datasheet(
        data_collection=_collection(lineage, sources),
        data_collection_type=["Secondary Data Analysis", *_how_collected(lineage)],
        data_collection_missing_data=f"{'Rows refused' if imported else 'Planned responses that did not come'}: "
        f"{missing['failed']} of {missing['planned']}. Responses that the checks rejected: {rejected}; the card counts "
        "the reasons.",
        data_collection_raw_data=f"{origin(imported)} is not part of the release."
        if imported
        else "The replies as they came are kept with the run and are not part of the release.",
        data_preprocessing_protocol=preprocessing,
        data_annotation_protocol=_annotation(lineage),
        data_annotation_platform=["Argilla"] if people else [],
        data_annotation_analysis=_analysis(lineage),
        annotations_per_item=f"A verdict by each of {', '.join(judges)} on each response that is not a fixed text"
        + (f"; {people['votes']} votes of people on {people['rows']} rows." if people else "; no votes of people."),
        annotator_demographics=[
            f"Annotators: {people['annotators']}; who they are is not recorded." if people else "No human annotators."
        ],
        machine_annotation_tools=[f"{name}: {judge['model'] or 'rules'}" for name, judge in judges.items()],
        data_biases=_biases(lineage),
        data_use_cases=[
            "Supervised fine-tuning of reasoning models towards safe reasoning.",
            *(f"{name}: {OBJECTIVES[name].purpose}" for name in lineage.get("objectives", {})),
            "Studying how the reasoning in safety data matters.",
        ],
        data_limitations=limitations(lineage),
        data_social_impact="Meant to make reasoning models refuse harm without refusing what only looks like it. The "
        "prompts name harms in headline terms and could be misused to probe models, and a model that is trained on "
        "these rows may still comply or refuse too much: measure it before use.",
        personal_sensitive_information=_personal(lineage),
        data_release_maintenance_plan="Versions are MAJOR.MINOR.PATCH, a tag each, and CHANGELOG.md says what differs; "
        "a published version is never changed. Whoever published the release maintains it.",
        sources=[*([origin(imported)] if imported else []), *sources],
        activities=[_collection(lineage, sources), *preprocessing, *_annotation(lineage)],
    )


def limitations(lineage: dict[str, Any]) -> list[str]:
    """What the rows are not fit for, and what was not done."""
    found = ["Not for training a classifier of harm, and not a measure of any model's safety."]
    if lineage["rehearsal"]:
        found.append(
            f"{'Mended' if lineage['imported'] else 'Written'} by the rehearsal teacher, a program that stands in for "
            "a model: for trying the machine out, not for training a model that anybody will use."
        )
    if names := holding_rejected(lineage):
        found.append(f"{', '.join(names)}: {TURNED_DOWN}")
    if not lineage["people"]:
        found.append("The labels are those of the judges; no person has looked at them, and review_votes is empty.")
    if not any(judge["kind"] == "safety" for judge in lineage["judging"]["judges"].values()):
        found.append("No judge of safety was asked: safety_verdict is empty.")
    languages = lineage["language"]
    found.append(
        "English only."
        if languages == ["en"]
        else f"Languages, as the maker of the release names them: {', '.join(languages)}."
    )
    overlap = lineage["overlap"]
    if not overlap:
        found.append("Whether these prompts overlap with those of an evaluation was not looked for.")
    else:
        sets = ", ".join(f"{name} {len(one['overlapping'])} of {one['items']}" for name, one in overlap.items())
        found.append(
            "Overlap with evaluation sets was looked for (prompts exactly, behind their templates and nearly; prompts "
            f"and responses by 13-grams). Evaluate without the items found: {sets}. Their ids are in lineage.json "
            "under overlap."
        )
    return found


def _collection(lineage: dict[str, Any], sources: list[str]) -> str:
    prompts, imported = lineage["prompts"], lineage["imported"]
    if imported:
        return (
            f"{imported['read']} rows were read from {origin(imported)}, {imported['refused']} of them refused: "
            f"{prompts['harmful']} prompts that ask for harm and {prompts['benign']} benign ones, by their rows from "
            f"{_named(sources)}. Nothing was drawn. Released: {teachers_of(lineage)}."
        )
    return (
        f"{prompts['harmful']} prompts that ask for harm and {prompts['benign']} benign ones, from "
        f"{_named(sources)}. Responses by {teachers_of(lineage)}, in the variants {', '.join(lineage['variants'])}."
    )


def _called(lineage: dict[str, Any]) -> dict[str, str]:
    """What the model of each teacher is called: the rehearsal teacher by that name."""
    return {
        teacher["model"]: f"the rehearsal teacher ({teacher['model']})" if teacher["embedded"] else teacher["model"]
        for teacher in lineage["teachers"].values()
    }


def answers_of(lineage: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Of an import, for each config how many released rows are whose answers."""
    lines = lineage["imported"]["answers"] if lineage["imported"] else []
    return [(line["config"], line["rows"], how_written(line, _called(lineage))) for line in lines]


def teachers_of(lineage: dict[str, Any]) -> str:
    """Who wrote the responses; of an import, whose the released rows are."""
    answers = [f"{rows} rows of {config} {how}" for config, rows, how in answers_of(lineage)]
    return "; ".join(answers) or ", ".join(_called(lineage).values()) or "fixed texts"


def is_synthetic(lineage: dict[str, Any]) -> bool | None:
    """Whether models wrote released responses; None where an imported dataset does not say who did."""
    if imported := lineage["imported"]:
        return any(line["mended"] or line["model"] != "" for line in imported["answers"]) or None
    return bool(lineage["teachers"])


def _how_collected(lineage: dict[str, Any]) -> list[str]:
    kinds = {"Software Collection" if one["embedded"] else "Web API" for one in lineage["teachers"].values()}
    return sorted(kinds)


def _preprocessing(lineage: dict[str, Any]) -> list[str]:
    if imported := lineage["imported"]:
        unread = f"; nothing was made of the columns {_named(imported['unread'])}" if imported["unread"] else ""
        found = [f"Imported rows are split into prompt, reasoning and answer{unread}."]
    else:
        found = ["The reply is split into reasoning and answer, and the instruction to the teacher is left out."]
    if repair := lineage["repair"]:
        found.append(
            f"{repair['flagged']} flagged responses were asked for again (strategy {repair['strategy']}); "
            f"{repair['mended']} were mended."
        )
    found.append(f"Rows passed the checks {', '.join(sorted(lineage['queries']))}.")
    if lineage["selection"]:
        found.append("A selection of the accepted rows, in the proportions of categories and templates.")
    return found


def _annotation(lineage: dict[str, Any]) -> list[str]:
    judging = lineage["judging"]
    found = [
        f"{name} labels {_KINDS[judge['kind']]}" + (f" by {judge['model']}." if judge["model"] else ".")
        for name, judge in judging["judges"].items()
    ]
    if lineage["rehearsal_judges"]:
        found.append(f"{', '.join(lineage['rehearsal_judges'])}: the rehearsal teacher in the role of judge.")
    if people := lineage["people"]:
        found.append(f"People's votes on {people['rows']} rows: their majority overrules the judges.")
    return found


def _analysis(lineage: dict[str, Any]) -> list[str]:
    found = []
    for line in lineage["people"]["agreement"] if lineage["people"] else ():
        if line["rows_with_several"] and line["alpha"]["value"] is not None:
            found.append(f"{line['question']}: Krippendorff's alpha {line['alpha']['value']:.2f} among people.")
    if scores := lineage["judging"]["scores"]:
        against = {"truth": "what the rehearsal teacher knows of its texts", "examples": "hand-written examples"}
        found.append(f"Judges were measured against {against[scores['against']]}, {scores['rows']} responses.")
    return found or ["How good the judges are was not measured for this release."]


def _biases(lineage: dict[str, Any]) -> list[str]:
    variants = {} if lineage["imported"] else lineage["variants"]
    fixed = [name for name, entry in variants.items() if entry["teacher"] is None]
    found = [
        f"The wording of the responses is that of {teachers_of(lineage)}"
        + (f"; of {', '.join(fixed)} it is one fixed text." if fixed else "."),
        "Only responses that pass the checks are kept, and the checks do not reject evenly.",
    ]
    survivorship = lineage["figures"]["survivorship"]
    found += [
        f"In {item['config']} survival depends on the {item['dimension']} of the prompt (p = {item['p']:.2g})."
        for item in survivorship["dependences"]
        if item["p"] is not None and item["p"] < 0.05
    ]
    return found


def _personal(lineage: dict[str, Any]) -> list[str]:
    if "personal_data" not in lineage["queries"]:
        return ["The texts were not searched for personal data."]
    rows = sum(item["rows"] for item in lineage["reasons"] if item["check"] == "personal_data")
    return [
        "The responses were searched for the shapes of personal data (e-mail addresses, phone, card and social "
        f"security numbers, internet addresses): {rows} were rejected. Names of people are not searched for."
    ]


def _named(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more
