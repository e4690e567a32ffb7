"""The search engine: what Argilla's pages and client ask of it, against a plain reading of the records."""

from typing import Any

import pytest

from tests.review.conftest import Server

TEXTS = [
    "The quick brown fox jumps",
    "A lazy dog sleeps all day",
    "The fox and the dog are friends",
    'Foxes run; 100% of them -- "quoted" OR not',
    "naïve café 漢字 text",
]


@pytest.fixture(scope="module")
def dataset(server: Server) -> str:
    import argilla as rg

    client = server.client()  # first: settings look for a default client
    settings = rg.Settings(
        fields=[rg.TextField(name="body"), rg.TextField(name="note", required=False)],
        questions=[
            rg.LabelQuestion(name="label", labels=["a", "b"]),
            rg.RatingQuestion(name="stars", values=[1, 2, 3]),
        ],
        metadata=[
            rg.TermsMetadataProperty("colour"),
            rg.IntegerMetadataProperty("size"),
            rg.FloatMetadataProperty("share"),
        ],
        vectors=[rg.VectorField("place", dimensions=2)],
    )
    made = rg.Dataset(name="searched", workspace="saferthoughts", settings=settings, client=client)
    made.create()
    made.records.log(
        [
            rg.Record(
                id=f"r{number}",
                fields={"body": text, "note": "fox" if number == 1 else "none"},
                metadata={"colour": "red" if number % 2 else "blue", "size": number, "share": number / 10},
                suggestions=[rg.Suggestion("label", "a" if number < 2 else "b", score=number / 10, agent="judge")],
                vectors={"place": [1.0, float(number)]},
            )
            for number, text in enumerate(TEXTS)
        ]
    )
    return str(made.id)


def found(server: Server, dataset: str, name: str = "owner", **body: Any) -> list[str]:
    who = "me/" if name != "owner" else ""
    answer = server.ask(f"{who}datasets/{dataset}/records/search?limit=50", name, body, "POST")
    items = [item["record"]["external_id"] for item in answer["items"]]
    assert answer["total"] == len(items)
    return items


def text(query: str, field: str | None = None) -> dict[str, Any]:
    return {"query": {"text": {"q": query, **({"field": field} if field else {})}}}


@pytest.mark.parametrize(
    ("query", "field", "expected"),
    [
        ("fox", None, {"r0", "r1", "r2"}),
        ("fox", "body", {"r0", "r2"}),
        ("fox dog", None, {"r1", "r2"}),
        ("fox*", "body", {"r0", "r2", "r3"}),
        ('"quick brown"', None, {"r0"}),
        ('"brown quick"', None, set()),
        ("fox -dog", None, {"r0"}),
        ("-fox", None, {"r3", "r4"}),
        ("café", None, {"r4"}),
        ('") OR 1=1 --', None, set()),
        ("body:fox AND (", None, {"r0", "r1", "r2"} & set()),
        ("100%", None, {"r3"}),
    ],
)
def test_full_text(server: Server, dataset: str, query: str, field: str | None, expected: set[str]) -> None:
    assert set(found(server, dataset, **text(query, field))) == expected


def terms(scope: dict[str, Any], *values: str) -> dict[str, Any]:
    return {"filters": {"type": "and", "and": [{"type": "terms", "scope": scope, "values": list(values)}]}}


def between(scope: dict[str, Any], low: float | str | None, high: float | None) -> dict[str, Any]:
    bounds = {key: value for key, value in (("ge", low), ("le", high)) if value is not None}
    return {"filters": {"type": "and", "and": [{"type": "range", "scope": scope, **bounds}]}}


METADATA = {"entity": "metadata"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (terms({**METADATA, "metadata_property": "colour"}, "red"), {"r1", "r3"}),
        (between({**METADATA, "metadata_property": "size"}, 2, 3), {"r2", "r3"}),
        (between({**METADATA, "metadata_property": "share"}, 0.25, None), {"r3", "r4"}),
        (terms({"entity": "suggestion", "question": "label", "property": "value"}, "a"), {"r0", "r1"}),
        (between({"entity": "suggestion", "question": "label", "property": "score"}, 0.35, None), {"r4"}),
        (
            terms({"entity": "suggestion", "question": "label", "property": "agent"}, "judge"),
            {f"r{n}" for n in range(5)},
        ),
        (terms({"entity": "record", "property": "status"}, "pending"), {f"r{n}" for n in range(5)}),
        (
            between({"entity": "record", "property": "inserted_at"}, "2020-01-01T00:00:00", None),
            {f"r{n}" for n in range(5)},
        ),
    ],
)
def test_filters(server: Server, dataset: str, body: dict[str, Any], expected: set[str]) -> None:
    assert set(found(server, dataset, **body)) == expected


def test_sort(server: Server, dataset: str) -> None:
    for order, expected in (("asc", ["r0", "r1", "r2", "r3", "r4"]), ("desc", ["r4", "r3", "r2", "r1", "r0"])):
        for scope in (
            {**METADATA, "metadata_property": "size"},
            {"entity": "suggestion", "question": "label", "property": "score"},
        ):
            assert found(server, dataset, sort=[{"scope": scope, "order": order}]) == expected


def test_responses_of_one_annotator_and_their_progress(server: Server, dataset: str) -> None:
    records = {item["external_id"]: item["id"] for item in server.ask(f"datasets/{dataset}/records?limit=50")["items"]}
    values = {"label": {"value": "b"}, "stars": {"value": 3}}
    server.ask(f"records/{records['r2']}/responses", "annotator-1", {"values": values, "status": "submitted"}, "POST")
    server.ask(f"records/{records['r3']}/responses", "annotator-1", {"values": values, "status": "discarded"}, "POST")
    status = {"entity": "response", "property": "status"}
    assert found(server, dataset, "annotator-1", **terms(status, "submitted")) == ["r2"]
    assert set(found(server, dataset, "annotator-1", **terms(status, "pending"))) == {"r0", "r1", "r4"}
    assert set(found(server, dataset, "annotator-2", **terms(status, "pending"))) == {f"r{n}" for n in range(5)}
    assert found(server, dataset, "annotator-1", **between({"entity": "response", "question": "stars"}, 3, 3)) != []
    progress = server.ask(f"me/datasets/{dataset}/metrics", "annotator-1")["responses"]
    assert (progress["submitted"], progress["discarded"], progress["pending"]) == (1, 1, 3)


def test_an_annotators_order_is_their_own_and_stays(server: Server, dataset: str) -> None:
    orders = {name: found(server, dataset, name) for name in ("annotator-1", "annotator-2")}
    assert orders["annotator-1"] == found(server, dataset, "annotator-1")
    assert sorted(orders["annotator-1"]) == sorted(orders["annotator-2"])


def test_similar_records_by_vector(server: Server, dataset: str) -> None:
    body = {"query": {"vector": {"name": "place", "value": [1.0, 4.0], "order": "most_similar"}}}
    assert found(server, dataset, **body)[:2] == ["r4", "r3"]
    body["query"]["vector"]["order"] = "least_similar"
    assert found(server, dataset, **body)[0] == "r0"


def test_metrics_of_metadata(server: Server, dataset: str) -> None:
    properties = {p["name"]: p["id"] for p in server.ask(f"me/datasets/{dataset}/metadata-properties")["items"]}
    counted = server.ask(f"metadata-properties/{properties['colour']}/metrics")
    assert {item["term"]: item["count"] for item in counted["values"]} == {"blue": 3, "red": 2}
    assert (server.ask(f"metadata-properties/{properties['size']}/metrics")["min"]) == 0
    assert (server.ask(f"metadata-properties/{properties['share']}/metrics")["max"]) == 0.4


def test_changed_and_deleted_records_change_what_is_found(server: Server, dataset: str) -> None:
    import argilla as rg

    client = server.client()
    data = client.datasets("searched", workspace="saferthoughts")
    data.records.log([rg.Record(id="late", fields={"body": "a walrus", "note": ""}, metadata={"colour": "red"})])
    assert found(server, dataset, **text("walrus")) == ["late"]
    data.records.log([rg.Record(id="late", fields={"body": "a narwhal", "note": ""}, metadata={"colour": "red"})])
    assert found(server, dataset, **text("walrus")) == []
    (record,) = [
        item for item in server.ask(f"datasets/{dataset}/records?limit=50")["items"] if item["external_id"] == "late"
    ]
    server.ask(f"records/{record['id']}", method="DELETE")
    assert found(server, dataset, **text("narwhal")) == []
