"""An Argilla search engine over the server's own SQLite database: no index to keep, none to lose.

Reads the tables that the server's handlers have committed to before they call the engine, so every hook that would
update an index does nothing. Full text is an FTS5 table that triggers in the same transaction keep. Importing this
module registers the engine as "sql". It runs in the environment of argilla-server 2.8 and imports nothing of ours.
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, ResponseStatus, SimilarityOrder, SortOrder
from argilla_server.models import Question, Record, Response, Suggestion, Vector
from argilla_server.search_engine.base import (
    AndFilter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataFilterScope,
    RecordFilterScope,
    ResponseFilterScope,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    SuggestionFilterScope,
    TermsFilter,
    TermsMetrics,
)
from sqlalchemy import Float, String, and_, asc, cast, desc, exists, func, literal, literal_column, or_, select, text

# Text of every record, kept by triggers: whatever commits a record commits its text.
FULL_TEXT = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS record_text USING fts5(body)",
    """
    CREATE TRIGGER IF NOT EXISTS record_text_insert AFTER INSERT ON records BEGIN
        INSERT INTO record_text (rowid, body) SELECT new.rowid, group_concat(atom, char(10))
        FROM json_tree(new.fields) WHERE type = 'text';
    END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS record_text_update AFTER UPDATE OF fields ON records BEGIN
        DELETE FROM record_text WHERE rowid = old.rowid;
        INSERT INTO record_text (rowid, body) SELECT new.rowid, group_concat(atom, char(10))
        FROM json_tree(new.fields) WHERE type = 'text';
    END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS record_text_delete AFTER DELETE ON records BEGIN
        DELETE FROM record_text WHERE rowid = old.rowid;
    END
    """,
    # A database from before the triggers.
    """
    INSERT INTO record_text (rowid, body) SELECT records.rowid, group_concat(atom, char(10))
    FROM records, json_tree(records.fields)
    WHERE type = 'text' AND records.rowid NOT IN (SELECT rowid FROM record_text) GROUP BY records.rowid
    """,
    "CREATE INDEX IF NOT EXISTS responses_by_user ON responses (user_id, record_id, status)",
)
_COLUMNS = {
    "id": Record.id,
    "external_id": Record.external_id,
    "status": Record.status,
    "inserted_at": Record.inserted_at,
    "updated_at": Record.updated_at,
}
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


def _path(*names: str) -> str:
    return "$" + "".join("." + json.dumps(name) for name in names)


def _moment(value: Any) -> datetime:
    """A bound of a date filter as the database has dates: UTC, without a zone."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).replace(tzinfo=None)
    moment = datetime.fromisoformat(str(value))
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _fits(wanted: Any, value: Any) -> Any:
    """A terms or range filter on one scalar."""
    if isinstance(wanted, TermsFilter):
        return cast(value, String).in_([str(item) for item in wanted.values])
    bounds = []
    if wanted.ge is not None:
        bounds.append(cast(value, Float) >= float(wanted.ge))
    if wanted.le is not None:
        bounds.append(cast(value, Float) <= float(wanted.le))
    return and_(True, *bounds)


def _any_fits(wanted: Any, column: Any, path: str) -> Any:
    """The same on any element of a JSON value, which may be a list."""
    each = func.json_each(column, path).table_valued("value", "type")
    return exists(select(literal(1)).select_from(each).where(_fits(wanted, each.c.value)).correlate_except(each))


def _of_record(wanted: Any) -> Any:
    name = str(getattr(wanted.scope.property, "value", wanted.scope.property))
    column = _COLUMNS[name]
    convert: Any = {"id": lambda value: UUID(str(value))}.get(name, _moment if name.endswith("_at") else str)
    if isinstance(wanted, TermsFilter):
        return column.in_([convert(value) for value in wanted.values])
    bounds = []
    if wanted.ge is not None:
        bounds.append(column >= convert(wanted.ge))
    if wanted.le is not None:
        bounds.append(column <= convert(wanted.le))
    return and_(True, *bounds)


def _of_suggestion(wanted: Any, dataset_id: UUID) -> Any:
    name = str(wanted.scope.property or "value")
    own = (
        select(literal(1))
        .select_from(Suggestion)
        .join(Question, Question.id == Suggestion.question_id)
        .where(
            Suggestion.record_id == Record.id,
            Question.name == wanted.scope.question,
            Question.dataset_id == dataset_id,
        )
    )
    column = getattr(Suggestion, name)
    fits = _fits(wanted, column) if name in ("agent", "type") else _any_fits(wanted, column, "$")
    return exists(own.where(fits).correlate(Record))


def _of_response(wanted: Any) -> Any:
    scope = wanted.scope
    own = select(literal(1)).select_from(Response).where(Response.record_id == Record.id)
    if scope.user is not None:
        own = own.where(Response.user_id == scope.user.id)
    if scope.question:
        fits = _any_fits(wanted, Response.values, _path(scope.question, "value"))
        return exists(own.where(fits).correlate(Record))
    wanted_statuses = [str(getattr(value, "value", value)) for value in wanted.values]
    clauses = (
        [exists(own.where(Response.status.in_(known)).correlate(Record))]
        if (known := [ResponseStatus(status) for status in wanted_statuses if status != "pending"])
        else []
    )
    # Pending is what the annotator has not answered in any way.
    if "pending" in wanted_statuses:
        clauses.append(~exists(own.correlate(Record)))
    return or_(False, *clauses)


def _clause(wanted: Any, dataset: Any) -> Any:
    if isinstance(wanted, AndFilter):
        return and_(True, *(_clause(part, dataset) for part in wanted.filters))
    if isinstance(wanted.scope, RecordFilterScope):
        return _of_record(wanted)
    if isinstance(wanted.scope, MetadataFilterScope):
        return _any_fits(wanted, Record.metadata_, _path(wanted.scope.metadata_property))
    if isinstance(wanted.scope, SuggestionFilterScope):
        return _of_suggestion(wanted, dataset.id)
    if isinstance(wanted.scope, ResponseFilterScope):
        return _of_response(wanted)
    raise ValueError(f"unsupported filter {wanted}")


def parsed(query: str) -> tuple[list[str], list[str]]:
    """A query as FTS5 terms that must be there, and terms that must not: words, "phrases", prefix*, -negation.

    Every term is quoted, so nothing in a query is FTS5's own syntax.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    for minus, phrase, word in _TERM.findall(query):
        prefix = word.endswith("*")
        body = phrase or word.rstrip("*")
        if body in ("AND", "OR") and word:
            continue
        if re.search(r"\w", body):
            term = '"' + body.replace('"', '""') + '"' + ("*" if prefix else "")
            (unwanted if minus else wanted).append(term)
    return wanted, unwanted


def _of_text(query: Any) -> Any:
    words, field = (query, None) if isinstance(query, str) else (query.q, query.field)
    wanted, unwanted = parsed(words)
    clauses = [_matches(" AND ".join(wanted), 0)] if wanted else []
    clauses += [~_matches(term, number) for number, term in enumerate(unwanted, 1)]
    if field:
        # The table has a record's text as one; where a field is named, its own text has to hold the words too.
        column = func.lower(func.json_extract(Record.fields, _path(field)))
        plain = [term.strip('"*').lower() for term in wanted]
        clauses += [column.contains(term, autoescape=True) for term in plain]
    return and_(True, *clauses)


def _matches(terms: str, number: int) -> Any:
    name = f"terms_{number}"
    found = text(f"SELECT rowid FROM record_text WHERE record_text MATCH :{name}").bindparams(**{name: terms})  # noqa: S608
    return literal_column("records.rowid").in_(found.columns(literal_column("rowid")).scalar_subquery())


def _order(wanted: Any, dataset: Any) -> Any:
    scope = wanted.scope
    if isinstance(scope, RecordFilterScope):
        value = _COLUMNS[str(getattr(scope.property, "value", scope.property))]
    elif isinstance(scope, MetadataFilterScope):
        value = func.json_extract(Record.metadata_, _path(scope.metadata_property))
    elif isinstance(scope, SuggestionFilterScope):
        name = str(scope.property or "value")
        column = getattr(Suggestion, name)
        one = func.json_extract(column, "$") if name in ("value", "score") else column
        value = (
            select(func.min(one))
            .join(Question, Question.id == Suggestion.question_id)
            .where(
                Suggestion.record_id == Record.id,
                Question.name == scope.question,
                Question.dataset_id == dataset.id,
            )
            .correlate(Record)
            .scalar_subquery()
        )
    else:
        answer = (
            func.json_extract(Response.values, _path(scope.question, "value")) if scope.question else Response.status
        )
        found = select(func.avg(answer) if scope.question else func.min(answer)).where(Response.record_id == Record.id)
        if scope.user is not None:
            found = found.where(Response.user_id == scope.user.id)
        value = found.correlate(Record).scalar_subquery()
    return (desc(value) if wanted.order == SortOrder.desc else asc(value)).nulls_last()


@SearchEngine.register("sql")  # type: ignore[untyped-decorator, unused-ignore]
class SqlSearchEngine(SearchEngine):  # type: ignore[misc, unused-ignore]
    """The engine. What each method returns is argilla-server's own contract (search_engine/base.py)."""

    @classmethod
    async def new_instance(cls) -> "SqlSearchEngine":
        """An engine; it holds nothing."""
        return cls()

    async def close(self) -> None:
        """Nothing to close."""

    async def ping(self) -> bool:
        """Whether the database answers."""
        async with AsyncSessionLocal() as db:
            await db.execute(select(literal(1)))
        return True

    async def info(self) -> dict[str, Any]:
        """The engine's description for the server's status page."""
        return {"name": "sql", "version": {"number": "1", "distribution": "sqlite"}}

    async def _nothing(self, *_: Any, **__: Any) -> None:
        """There is no index to keep."""

    create_index = delete_index = configure_metadata_property = configure_index_vectors = _nothing
    index_records = partial_record_update = delete_records = _nothing
    update_record_response = delete_record_response = _nothing
    update_record_suggestion = delete_record_suggestion = _nothing

    async def get_dataset_progress(self, dataset: Any) -> dict[str, int]:
        """Records by status."""
        own = Record.dataset_id == dataset.id
        return await self._counts(
            dataset, select(Record.status, func.count(Record.id)).where(own).group_by(Record.status)
        )

    async def get_dataset_user_progress(self, dataset: Any, user: Any) -> dict[str, int]:
        """One annotator's responses by status."""
        statement = (
            select(Response.status, func.count(Response.id))
            .join(Record, Record.id == Response.record_id)
            .where(Record.dataset_id == dataset.id, Response.user_id == user.id)
            .group_by(Response.status)
        )
        return await self._counts(dataset, statement)

    async def _counts(self, dataset: Any, statement: Any) -> dict[str, int]:
        if dataset.is_draft:
            return {}
        async with AsyncSessionLocal() as db:
            counts = {str(status.value): count for status, count in (await db.execute(statement)).all()}
        return {"total": sum(counts.values()), **counts}

    async def search(
        self,
        dataset: Any,
        query: Any = None,
        filter: Any = None,
        sort: Any = None,
        offset: int = 0,
        limit: int = 100,
        user_id: str | None = None,
    ) -> SearchResponses:
        """A page of records; for an annotator without a sort, in an order of their own that no page changes."""
        where = _where(dataset, query, filter)
        async with AsyncSessionLocal() as db:
            if user_id is not None and not sort:
                key = UUID(str(user_id)).bytes
                ids = list((await db.scalars(select(Record.id).where(where))).all())
                ids.sort(key=lambda one: blake2b(one.bytes, key=key, digest_size=8).digest())
                total, ids = len(ids), ids[offset : offset + limit]
            else:
                order = [*(_order(one, dataset) for one in sort or []), Record.inserted_at.asc(), Record.id.asc()]
                total = await db.scalar(select(func.count(Record.id)).where(where)) or 0
                page = select(Record.id).where(where).order_by(*order).offset(offset).limit(limit)
                ids = list((await db.scalars(page)).all())
        return _found([(one, 1.0) for one in ids], total)

    async def compute_metrics_for(self, metadata_property: Any) -> Any:
        """The values of a metadata property, counted, or its smallest and largest."""
        each = func.json_each(Record.metadata_, _path(metadata_property.name)).table_valued("value", "type")
        rows = (
            select(each.c.value)
            .select_from(Record)
            .join(each, literal(True))
            .where(Record.dataset_id == metadata_property.dataset_id, each.c.type != "null")
            .subquery()
        )
        async with AsyncSessionLocal() as db:
            if metadata_property.type == MetadataPropertyType.terms:
                counted = select(rows.c.value, func.count()).group_by(rows.c.value).order_by(func.count().desc())
                terms = [
                    TermsMetrics.TermCount(term=str(term), count=n) for term, n in (await db.execute(counted)).all()
                ]
                return TermsMetrics(total=sum(term.count for term in terms), values=terms)
            low, high = (await db.execute(select(func.min(rows.c.value), func.max(rows.c.value)))).one()
        kind = (
            IntegerMetadataMetrics if metadata_property.type == MetadataPropertyType.integer else FloatMetadataMetrics
        )
        return kind(min=low, max=high)

    async def similarity_search(
        self,
        dataset: Any,
        vector_settings: Any,
        value: list[float] | None = None,
        record: Any = None,
        query: Any = None,
        filter: Any = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """The records whose vectors are nearest by cosine; every vector is looked at."""
        if (value is None) == (record is None):
            raise ValueError("a similarity search takes a vector or a record")
        target = value if value is not None else record.vector_value_by_vector_settings(vector_settings)
        sign = -1.0 if order == SimilarityOrder.least_similar else 1.0
        statement = (
            select(Record.id, Vector.value)
            .join(Vector, Vector.record_id == Record.id)
            .where(Vector.vector_settings_id == vector_settings.id, _where(dataset, query, filter))
        )
        async with AsyncSessionLocal() as db:
            rows = (await db.execute(statement)).all()
        scored = [
            (one, (1 + sign * _cosine(vector, target)) / 2)
            for one, vector in rows
            if record is None or one != record.id
        ]
        near = sorted((item for item in scored if threshold is None or item[1] >= threshold), key=lambda item: -item[1])
        return _found(near[:max_results], min(len(near), max_results))


def _where(dataset: Any, query: Any, wanted: Any) -> Any:
    clauses = [Record.dataset_id == dataset.id]
    if query is not None:
        clauses.append(_of_text(query))
    if wanted is not None:
        clauses.append(_clause(wanted, dataset))
    return and_(*clauses)


def _cosine(one: Iterable[float], other: Iterable[float]) -> float:
    one, other = list(one), list(other)
    length = math.hypot(*one) * math.hypot(*other)
    return (
        math.sumprod(one, other) / length
        if length and hasattr(math, "sumprod")
        else (sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0)
    )


def _found(items: Iterable[tuple[UUID, float]], total: int) -> SearchResponses:
    return SearchResponses(items=[SearchResponseItem(record_id=one, score=score) for one, score in items], total=total)
