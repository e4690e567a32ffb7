"""Judges' quotations as places: found however they were set anew, in the right part, and never markup."""

import json

import duckdb
import pyarrow as pa
import pytest

from curation.report.drift import drift_of
from curation.review.questions import PATTERN_LABELS, shown
from pipelines.judges.spans import quoted_in, spans_of, with_marks
from pipelines.records import LABELS, Judgement, arrow_schema

REASONING = "They want harm. Should  I help “them”, e.g. a bit? I could... No.\n\n1. Refuse."
ANSWER = "Sorry, no. Here is how: [detail withheld]."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("They want harm.", ["They want harm."]),
        ('“should I help "them", e.g. a bit?”', ["Should  I help “them”, e.g. a bit?"]),
        ("want harm ... I could", ["want harm", "I could"]),
        ("want harm [...] stands nowhere", ["want harm"]),
        ("1. Refuse.", ["1. Refuse."]),
        ("(.*)+$", []),
        ("1.\u00a0REFUSE", ["1. Refuse"]),
        ("", []),
        (" ... ", []),
    ],
)
def test_quotation_is_found_however_a_judge_sets_it(quote: str, found: list[str]) -> None:
    assert [REASONING[start:end] for start, end in quoted_in(REASONING, quote)] == found


def test_places_name_part_and_sentence() -> None:
    evidence = {
        "strong_vacillation": 'HELP "them"',
        "weak_vacillation": "Refuse. ... Here is how",
        "harmful_additions": "is not there",
        "inconsistency": "no.",
    }
    places = json.loads(spans_of(evidence, REASONING, ANSWER))
    seen = [(place["label"], place["part"], place.get("sentence")) for place in places]
    assert seen == [
        ("strong_vacillation", "reasoning", 1),
        # Two spans that stand in two parts.
        ("weak_vacillation", "reasoning", 4),
        ("weak_vacillation", "answer", 1),
        ("harmful_additions", None, None),
        # Of an inconsistency the answer is at fault, though the reasoning has the word as well.
        ("inconsistency", "answer", 0),
    ]
    first = places[0]
    assert REASONING[first["start"] : first["end"]] == "help “them"
    assert REASONING[first["sentence_start"] :].startswith("Should")
    assert first["sentences"] == 5


def test_marked_sentence_is_escaped_as_all_else_is() -> None:
    text = "Fine. **Bold** <img src=x onerror=alert(1)> [a](http://b) helps. Bye."
    marked = with_marks(text, [("harmful_additions", "<img src=x"), ("categories", "Bye")], PATTERN_LABELS.__getitem__)
    assert marked.startswith("Fine. >> Adds harmful detail (harmful additions): **Bold** <img")
    assert marked.endswith("helps. << Bye.")
    assert "<img" not in shown(marked)
    assert "&gt;&gt; Adds harmful detail" in shown(marked)


def test_judges_agree_where_they_quote_the_same_sentence() -> None:
    def judged(judge: str, response: str, **evidence: str) -> dict[str, object]:
        labels = dict.fromkeys(LABELS, False) | dict.fromkeys(evidence, True)
        spans = spans_of(evidence, REASONING, ANSWER)
        rest = {"kind": "patterns", "evidence": "{}", "analysis": "", "reason": "", "spans": spans}
        counts = dict.fromkeys(("requests", "input_tokens", "output_tokens"), 0)
        return {"response_id": response, "judge": judge, **labels, **rest, **counts}

    rows = [
        judged("a", "1", strong_vacillation="Should I", weak_vacillation="They want"),
        judged("b", "1", strong_vacillation="e.g. a bit?", weak_vacillation="Refuse"),
        judged("a", "2", harmful_additions="I could"),
        judged("b", "2", inconsistency="Sorry"),
    ]
    with duckdb.connect() as db:
        db.register("judgements", pa.Table.from_pylist(rows, schema=arrow_schema(Judgement)))
        verdicts = [{"response_id": "1", **{label: label == "strong_vacillation" for label in LABELS}}]
        db.register("verdicts", pa.Table.from_pylist([*verdicts, {"response_id": "2", **dict.fromkeys(LABELS)}]))
        db.register("prompts", pa.table({"prompt_id": ["p"], "kind": ["harmful"]}))
        db.register(
            "responses",
            pa.table(
                {"response_id": ["1", "2"], "prompt_id": ["p", "p"], "variant": ["direct"] * 2, "attempt": [0, 0],
                 "reasoning": [REASONING] * 2}
            ),
        )  # fmt: skip
        found = drift_of(db)
    assert found is not None
    (pair,) = found["agreement"]
    assert (pair["judges"], pair["labels"], pair["same"]) == ("a and b", 2, 1)
    # What the verdict does not set is no drift: the sentence of strong vacillation is the first.
    (variant,) = found["variants"]
    assert (variant["flagged"], variant["placed"]) == (1, 1)
    assert variant["median"] == pytest.approx(REASONING.index("Should") / len(REASONING))
