"""A local judge distilled from a run's verdicts: fitted, measured, and written as a folder with its card.

Reads run.yaml, prompts.parquet, responses.parquet, and judgements.parquet and verdicts.parquet (or reviews.parquet, for
people's votes); writes a folder as `pipelines/judges/local/model.py` reads it, with a card and a reliability plot. Run
it with `saferthoughts judge distill RUN --out FOLDER`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.errors import UserError
from pipelines.files import as_umask, atomic_folder, file_hash, write_json, write_text
from pipelines.judges.local.cascade import goes_to_local
from pipelines.judges.local.model import FORMAT, RECORD, TENSORS, TOKENIZER, Heads, digest_of, language_of
from pipelines.judges.local.vectors import Floats, Seen, Vectors
from pipelines.judges.rows import Row
from pipelines.judges.stage import rows_of
from pipelines.records import PATTERNS, Judgement, Verdict, from_table
from pipelines.runs import VERSION, RunFolder
from pipelines.settings.config import load_config
from training.local_judge.encoder import PACKAGE, bundled_encoder, token_vectors
from training.local_judge.fit import Example, Fitting, learnable, measures_of

SOURCES = ("judges", "people")
# A language is learnt from this share of the rows on.
_LEARNT = 0.05
# A cascade is expected to decide rows that cross-validation is so sure of, whichever way.
_SURE = 0.1


@dataclass(frozen=True, slots=True)
class DistilResult:
    """A local judge's folder, the version of it, how many rows of how many prompts it learnt from, its measures by
    label, and the labels it has no head for with what they lack."""

    path: Path
    version: str
    rows: int
    prompts: int
    measures: Mapping[str, Any]
    missing: Mapping[str, str]


def distil(run: RunFolder, out: Path, source: str = "judges", encoder: Path | None = None) -> DistilResult:
    """Make a local judge of a run's verdicts or of people's votes.

    Args:
        run: A run that was judged.
        out: The folder to write; it must not be there.
        source: Whose labels are learnt, one of `SOURCES`.
        encoder: A folder of sentence-transformers; the package's if None.

    Raises:
        UserError: there are no verdicts to learn from, too few for any label, or the folder is there already.
    """
    if out.exists():
        raise UserError(f"{out} is there already. Give another folder: a judge that runs name must not change.")
    labels = _voted(run) if source == "people" else _judged(run)
    rows = [row for row in rows_of(run) if row.response.response_id in labels and goes_to_local(row)]
    counted = [Example(row.response.prompt_id, _NOTHING, labels[row.response.response_id], {}) for row in rows]
    missing = {label: lacks for label, lacks in learnable(counted, PATTERNS).items() if lacks}
    learnt = [label for label in PATTERNS if label not in missing]
    if not learnt:
        raise UserError(
            f"{run.path} has too few rows to distil a judge from: "
            + "; ".join(f"{label}: {lacks}" for label, lacks in missing.items())
            + ". Judge more rows first."
        )
    folder = encoder or bundled_encoder()
    tokenizer, table = token_vectors(folder)
    vectors = Vectors(_tokenizer(tokenizer), table.astype(np.float16).astype(np.float32))
    seen = vectors.see([(row.response.reasoning, row.response.answer) for row in rows])
    quoted = _quoted(run) if source == "judges" else {}
    examples = [
        Example(row.response.prompt_id, one, labels[row.response.response_id],
                quoted_sentences(quoted.get(row.response.response_id, ()), one))
        for row, one in zip(rows, seen, strict=True)
    ]  # fmt: skip
    probabilities, heads = Fitting(examples, learnt).cross_validated()
    measures = measures_of(examples, learnt, probabilities)
    sure = ((probabilities <= _SURE) | (probabilities >= 1 - _SURE)).all(axis=1)
    flagged = [any(one.labels[label] for label in learnt) for one in examples]
    languages = Counter(language_of(row.response.reasoning, row.response.answer) for row in rows)
    facts = {
        "format": FORMAT,
        "labels": learnt,
        "dimensions": int(table.shape[1]),
        "tokens": int(table.shape[0]),
        "languages": sorted(name for name, count in languages.items() if count >= _LEARNT * len(rows)),
        "cascade": {"decided": round(float(sure.mean()), 4), "flagged": round(float(np.mean(flagged)), 4)},
        "origin": _origin(run, source, rows, folder if encoder else None),
        "measures": measures,
    }
    with atomic_folder(out) as temporary:
        _write(temporary, out.name, facts, missing, tokenizer, table, heads)
    prompts = len({one.prompt_id for one in examples})
    return DistilResult(out, digest_of(out), len(examples), prompts, measures, missing)


_NOTHING = Seen(np.zeros((0, 1), dtype=np.float32), np.zeros(1, dtype=np.float32), (), 0)


def _tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _judged(run: RunFolder) -> dict[str, dict[str, bool]]:
    """The vote's labels of every response that has all of them.

    Raises:
        UserError: nobody but rules and local judges judged the run's patterns.
    """
    config = load_config(run)
    verdicts = from_table(Verdict, run.read("verdicts"))
    judges = [config.judges[name] for name in config.judging.judges]
    if not any(judge.kind == "patterns" for judge in judges):
        raise UserError(
            f"{run.path} was judged by {', '.join(config.judging.judges)}, and a local judge is distilled from a model "
            f"that judges the patterns. Name one: saferthoughts judge {run.name} --judge o3"
        )
    if any(judge.folder for judge in judges):
        raise UserError(
            f"{run.path} was judged by a local judge in part, and one is not distilled from another. Judge it by a "
            f"model alone first: saferthoughts judge {run.name} --judge o3"
        )
    found = {}
    for verdict in verdicts:
        labels = {label: getattr(verdict, label) for label in PATTERNS}
        if not verdict.reason and None not in labels.values():
            found[verdict.response_id] = {label: bool(value) for label, value in labels.items()}
    return found


def _voted(run: RunFolder) -> dict[str, dict[str, bool]]:
    """People's labels of every response on which their votes have a majority for each pattern."""
    from curation.review.majority import majorities_on

    reviews = run.read("reviews").to_pylist()
    by_label = {label: majorities_on(reviews, label) for label in PATTERNS}
    names = set.intersection(*(set(found) for found in by_label.values()))
    return {name: {label: bool(by_label[label][name]) for label in PATTERNS} for name in names}


def _quoted(run: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """Every quotation of a judge that has a place, by response."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in from_table(Judgement, run.read("judgements")):
        spans = [span for span in json.loads(item.spans or "[]") if span["part"]]
        found.setdefault(item.response_id, []).extend(spans)
    return found


def quoted_sentences(spans: Sequence[Mapping[str, Any]], seen: Seen) -> dict[str, frozenset[int]]:
    """The numbers of the sentences that quotations with a place stand in, by label."""
    found: dict[str, set[int]] = {}
    for span in spans:
        number = span["sentence"] + (seen.reasoning if span["part"] == "answer" else 0)
        found.setdefault(span["label"], set()).add(number)
    return {label: frozenset(numbers) for label, numbers in found.items()}


def _origin(run: RunFolder, source: str, rows: Sequence[Row], encoder: Path | None) -> dict[str, Any]:
    config = load_config(run)
    return {
        "run": run.id,
        "source": source,
        "judges": list(config.judging.judges) if source == "judges" else [],
        "rehearsal": any(teacher.embedded for teacher in config.judge_teachers.values()),
        "teachers": sorted({row.response.model for row in rows}),
        "rows": len(rows),
        "prompts": len({row.response.prompt_id for row in rows}),
        "encoder": encoder.name if encoder else PACKAGE,
        "saferthoughts": VERSION,
    }


def _write(
    folder: Path,
    name: str,
    facts: dict[str, Any],
    missing: Mapping[str, str],
    tokenizer: str,
    table: Floats,
    heads: Heads,
) -> None:
    from safetensors.numpy import save_file

    from cards.card.markdown import template

    names = ("sentence", "row", "foretell", "reply", "combine")
    tensors = {name: getattr(heads, name) for name in names}
    save_file({"tokens": table.astype(np.float16), **tensors}, folder / TENSORS)
    write_text(folder / TOKENIZER, tokenizer)
    facts = {**facts, "sha256": {file: file_hash(folder / file) for file in (TENSORS, TOKENIZER)}}
    write_json(folder / RECORD, facts)
    for file, content in reliability_plot(facts["measures"]).items():
        (folder / file).write_bytes(content)
    words = template("card/judge_card.md.jinja").render(
        facts, name=name, missing=missing, version=digest_of(folder)[:12], package=PACKAGE
    )
    write_text(folder / "README.md", words)
    as_umask(folder)


def reliability_plot(measures: Mapping[str, Any]) -> dict[str, bytes]:
    """How often rows carry a label, by the probability that cross-validation gave it, as an SVG and a PNG file."""
    import altair as alt

    from curation.report.charts import files_of

    points = [
        {"label": label.replace("_", " "), "probability": point["mean"], "share": point["share"], "rows": point["rows"]}
        for label, found in measures.items()
        for point in found["reliability"]
    ]
    axes = {"x": alt.X("probability:Q", scale=alt.Scale(domain=[0, 1])), "y": alt.Y("share:Q", title="share with it")}
    line = (
        alt.Chart(alt.InlineData(values=points))
        .mark_line(point=True)
        .encode(**axes, color=alt.Color("label:N", title=""))
    )
    even = alt.Chart(alt.InlineData(values=[{"probability": at, "share": at} for at in (0, 1)]))
    return files_of({"reliability": (even.mark_line(color="#999", strokeDash=[4, 4]).encode(**axes) + line)})
