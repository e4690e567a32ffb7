"""Where a run's prompts and responses overlap with evaluation sets.

Reads prompts and responses, and evaluation sets: the named ones of `eval_sets.yaml`, files, datasets on the Hub. Writes
contamination.parquet: which prompt (and response, where the overlap is in what was answered) overlaps with which item,
by which method, in which span, how much. Run it with `saferthoughts contamination RUN --against NAME`.

exact      the prompt, or its bare request, is the item, letter case and punctuation aside
embedded   the whole item stands in the prompt, word for word, whatever is around it
aligned    the bare request without its jailbreak template is nearly the item
ngram      a stretch of `NGRAM` words of the item stands in the prompt or in the response

Most evaluation questions are shorter than 13 words, so n-grams alone miss them. The template around a request is taken
off exactly where the run knows it, and otherwise where several prompts begin or end with the same words.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import cycle, starmap
from pathlib import Path

import numpy as np
import pyarrow as pa
from rapidfuzz import fuzz
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from curation.overlap.bare_requests import bare_requests
from curation.overlap.cluster import Workers, workers
from curation.overlap.windows import span_of, windows, words_of
from curation.sql.views import CONTAMINATION, open_views
from pipelines.errors import UserError
from pipelines.freshness import made_from
from pipelines.progress import meter
from pipelines.records import content_id
from pipelines.runner.options import LOCAL, Engine
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.parts import read_yaml
from pipelines.sources import Source, column_of, read_source, text_of

SETS = Path(__file__).with_name("eval_sets.yaml")
NGRAM = 13
# Fewer words are found in too many texts that have nothing to do with the item.
_LEAST_WORDS = 4
_ANCHOR = 6
_COVERAGE, _ALIGNMENT = 0.75, 85.0
_COLUMNS = ("prompt", "question", "query", "problem", "goal", "behavior", "behaviour", "question_content", "text")
_BATCH = 1000
# Responses that are searched at once.
_PIECE = 50_000


@dataclass(frozen=True, slots=True)
class EvalSet:
    """The items of one set: ids and texts of the same length."""

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """One overlap. `row` counts the texts that were searched; `span` is the piece of the text; `score` 0 to 1."""

    row: int
    item: int
    method: str
    span: str
    score: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many items a set has, and how many of them, and of the run's prompts and responses, are in a hit."""

    set_name: str
    items: int
    items_hit: int
    prompts_hit: int
    responses_hit: int
    by_method: dict[str, int]


def load_set(wanted: str) -> EvalSet:
    """An evaluation set: NAME, NAME=FILE_OR_REPOSITORY, a file, or a repository on the Hub.

    Raises:
        UserError: it is not there, cannot be read, or has no column of questions.
    """
    known = read_yaml(SETS)
    name, equals, where = wanted.partition("=")
    entry = dict(known.get(name, {}))
    if not equals and not entry and "/" not in name and not Path(name).exists():
        choices = ", ".join(known)
        raise UserError(f"Unknown evaluation set '{name}'. Choose from: {choices}; or give a file, or NAME=FILE.")
    column, item_id = entry.pop("column", None), entry.pop("id", None)
    if equals or not entry:
        entry = {"hub": where or name}
        name = name if equals else Path(name).stem
    rows = read_source(Source(**entry))
    # A copy of a known set may name its columns in another way.
    column = column_of(rows, column if column in rows[0] else None, _COLUMNS, entry["hub"])
    texts = tuple(text_of(row, column, f"{entry['hub']}, row {number}") for number, row in enumerate(rows, 1))
    ids = tuple(str(row[item_id]) if item_id in row else item_hash(text) for row, text in zip(rows, texts, strict=True))
    return EvalSet(name, ids, texts)


def item_hash(text: str) -> str:
    """The name of an item that has none: a hash of its words, the same whatever its case and punctuation."""
    return content_id([word for word, _, _ in words_of(text)])


def find_contamination(run: RunFolder, against: Sequence[str], engine: Engine = LOCAL) -> list[Overlap]:
    """Compare a run with evaluation sets and write contamination.parquet.

    Raises:
        UserError: a table or a set is missing or cannot be read.
    """
    sets = [load_set(wanted) for wanted in against]
    rows: list[dict[str, object]] = []
    found = []
    with (
        open_views(run, "prompts", "responses") as db,
        workers(engine, run.path) as helpers,
        meter("contamination", len(sets), "sets") as shown,
    ):
        prompts = db.sql("SELECT * FROM prompts ORDER BY prompt_id").to_arrow_table()
        ids, requests = prompts["prompt_id"].to_pylist(), bare_requests(prompts)
        responses = db.sql(
            "SELECT response_id, prompt_id, reasoning || chr(10) || answer AS text FROM responses ORDER BY response_id"
        ).to_arrow_reader(_PIECE)
        answered = _in_responses(sets, responses, helpers)
        for one, own in zip(sets, answered, strict=True):
            own += [_row(one, hit, ids[hit.row], "") for hit in search_prompts(one, prompts["text"], requests)]
            found.append(_overlap(one, own))
            rows += own
            shown.advance()
    rows.sort(key=lambda row: tuple(str(row[name]) for name in CONTAMINATION.names))
    run.write("contamination", pa.Table.from_pylist(rows, schema=CONTAMINATION))
    run.record(
        "contamination",
        inputs=made_from(run, "prompts", "responses"),
        outputs={"contamination.parquet": file_hash(run.table_path("contamination"))},
        sets={one.name: content_id(one.ids, one.texts) for one in sets},
        counts=[asdict(item) for item in found],
    )
    return found


def _in_responses(
    sets: Sequence[EvalSet], batches: Iterable[pa.RecordBatch], helpers: Workers | None
) -> list[list[dict[str, object]]]:
    """The overlaps of responses with each set; the batches pass once."""
    waiting: deque[tuple[pa.Array, pa.Array]] = deque()

    def items() -> Iterator[tuple[EvalSet, pa.Array]]:
        for batch in batches:
            for one in sets:
                waiting.append((batch["prompt_id"], batch["response_id"]))
                yield one, batch["text"]

    rows: list[list[dict[str, object]]] = [[] for _ in sets]
    found = starmap(search_texts, items()) if helpers is None else helpers.map(search_texts, items())
    for (one, own), hits in zip(cycle(zip(sets, rows, strict=True)), found, strict=False):
        prompts, responses = waiting.popleft()
        own += [_row(one, hit, prompts[hit.row].as_py(), responses[hit.row].as_py()) for hit in hits]
    return rows


def _row(one: EvalSet, hit: Hit, prompt_id: str, response_id: str) -> dict[str, object]:
    return {
        "prompt_id": prompt_id,
        "response_id": response_id,
        "set_name": one.name,
        "item_id": one.ids[hit.item],
        "method": hit.method,
        "span": hit.span,
        "score": hit.score,
    }


def _overlap(one: EvalSet, rows: list[dict[str, object]]) -> Overlap:
    return Overlap(
        set_name=one.name,
        items=len(one.ids),
        items_hit=len({row["item_id"] for row in rows}),
        prompts_hit=len({row["prompt_id"] for row in rows if not row["response_id"]}),
        responses_hit=len({row["response_id"] for row in rows if row["response_id"]}),
        by_method=dict(sorted(Counter(str(row["method"]) for row in rows).items())),
    )


def search_prompts(one: EvalSet, texts: pa.ChunkedArray, requests: Sequence[str]) -> list[Hit]:
    """Every overlap of prompts with items, one for each pair, by the first method that finds it."""
    best: dict[tuple[int, int], Hit] = {}
    spoken = texts.to_pylist()
    for hit in [*_exact(one, spoken, requests), *_embedded(one, texts, spoken), *_aligned(one, requests)]:
        best.setdefault((hit.row, hit.item), hit)
    for hit in search_texts(one, texts):
        best.setdefault((hit.row, hit.item), hit)
    return list(best.values())


def _exact(one: EvalSet, texts: Sequence[str], requests: Sequence[str]) -> Iterator[Hit]:
    items: dict[str, list[int]] = {}
    for number, text in enumerate(one.texts):
        if words_of(text):
            items.setdefault(item_hash(text), []).append(number)
    for row, both in enumerate(zip(texts, requests, strict=True)):
        for text in dict.fromkeys(both):
            for item in items.get(item_hash(text), ()):
                yield Hit(row, item, "exact", text, 1.0)


def _embedded(one: EvalSet, texts: pa.ChunkedArray, spoken: Sequence[str]) -> Iterator[Hit]:
    """Items that a text contains whole: their first words are looked up, and what follows is compared."""
    items = [[word for word, _, _ in words_of(text)] for text in one.texts]
    sizes = {min(len(words), _ANCHOR) for words in items if len(words) >= _LEAST_WORDS}
    for size in sorted(sizes):
        own = {number: words for number, words in enumerate(items) if min(len(words), _ANCHOR) == size}
        anchors = _anchors({number: " ".join(words[:size]) for number, words in own.items()}, size)
        for row, position, numbers in _found(texts, size, anchors):
            words = [word for word, _, _ in words_of(spoken[row])]
            for item in numbers:
                if words[position : position + len(own[item])] == own[item]:
                    yield Hit(row, item, "embedded", span_of(spoken[row], position, len(own[item])), 1.0)


def search_texts(one: EvalSet, texts: pa.ChunkedArray | pa.Array) -> list[Hit]:
    """The first stretch of `NGRAM` words that each text shares with each item."""
    long, anchors = _stretches(one)
    hits: dict[tuple[int, int], Hit] = {}
    for row, position, numbers in _found(texts, NGRAM, anchors):
        for item in numbers:
            if (row, item) not in hits:
                span = span_of(texts[row].as_py(), position, NGRAM)
                shared = [word for word, _, _ in words_of(span)]
                # Hashes can meet by chance; words cannot.
                if " ".join(shared) in " ".join(word for word, _, _ in words_of(long[item])):
                    hits[row, item] = Hit(row, item, "ngram", span, 1.0)
    return list(hits.values())


@lru_cache(maxsize=16)
def _stretches(one: EvalSet) -> tuple[dict[int, str], dict[int, list[int]]]:
    """The items with a stretch of `NGRAM` words, and which of them have each, by its hash."""
    long = {number: text for number, text in enumerate(one.texts) if len(words_of(text)) >= NGRAM}
    return long, _anchors(long, NGRAM)


def _anchors(texts: Mapping[int, str], size: int) -> dict[int, list[int]]:
    """The items that have each window, by its hash."""
    numbers = list(texts)
    anchors: dict[int, list[int]] = {}
    for piece in windows(pa.array(list(texts.values()), pa.string()), size):
        for value, row in zip(piece.hashes.tolist(), piece.rows.tolist(), strict=True):
            owners = anchors.setdefault(value, [])
            if numbers[row] not in owners:
                owners.append(numbers[row])
    return anchors


def _found(
    texts: pa.ChunkedArray | pa.Array, size: int, anchors: Mapping[int, list[int]]
) -> Iterator[tuple[int, int, list[int]]]:
    """Every window of the texts that some item has: row, word position, items."""
    if not anchors:
        return
    known = np.sort(np.fromiter(anchors, np.uint64, len(anchors)))
    # One look into a small table turns nearly all windows away.
    table = np.zeros(1 << 22, bool)
    table[(known >> np.uint64(42)).astype(np.int64)] = True
    for piece in windows(texts, size):
        likely = np.flatnonzero(table[(piece.hashes >> np.uint64(42)).astype(np.int64)])
        for place in likely[np.isin(piece.hashes[likely], known)].tolist():
            yield int(piece.rows[place]), int(piece.positions[place]), anchors[int(piece.hashes[place])]


def _aligned(one: EvalSet, requests: Sequence[str]) -> Iterator[Hit]:
    """Near matches of an item: requests with most of its informative words, in nearly its order."""
    items = [" ".join(word for word, _, _ in words_of(text)) for text in one.texts]
    distinct = {text: number for number, text in enumerate(dict.fromkeys(requests))}
    spoken = [" ".join(word for word, _, _ in words_of(text)) for text in distinct]
    weights = _weights([*items, *spoken])
    wanted = _matrix(items, weights, weigh=True)
    totals = np.asarray(wanted.sum(axis=1)).ravel()
    by_request: dict[int, list[tuple[int, str, float]]] = {}
    for begin in range(0, len(spoken), _BATCH):
        shares = (_matrix(spoken[begin : begin + _BATCH], weights, weigh=False) @ wanted.T).tocoo()
        for row, item, covered in zip(shares.row.tolist(), shares.col.tolist(), shares.data.tolist(), strict=True):
            if covered < _COVERAGE * totals[item] or len(items[item].split()) < _LEAST_WORDS:
                continue
            text = spoken[begin + row]
            match = fuzz.partial_ratio_alignment(items[item], text, score_cutoff=_ALIGNMENT)
            if match is None:
                continue
            span = text[match.dest_start : match.dest_end]
            # A request shorter than the item is aligned within it; both have to be about the same.
            if fuzz.ratio(items[item], span) >= _ALIGNMENT:
                by_request.setdefault(begin + row, []).append((item, span, match.score / 100))
    for row, text in enumerate(requests):
        for item, span, score in by_request.get(distinct[text], ()):
            yield Hit(row, item, "aligned", span, score)


def _weights(texts: Iterable[str]) -> dict[str, tuple[int, float]]:
    """For each word its column, and how telling it is: the rarer the more."""
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        counts.update(set(text.split()))
        total += 1
    return {word: (column, float(np.log((1 + total) / count))) for column, (word, count) in enumerate(counts.items())}


def _matrix(texts: Sequence[str], weights: Mapping[str, tuple[int, float]], weigh: bool) -> csr_matrix:
    """A matrix of texts by words; `weigh` weights words by how informative they are, otherwise each counts 1."""
    rows = [(row, *weights[word]) for row, text in enumerate(texts) for word in set(text.split())]
    values = [weight if weigh else 1.0 for _, _, weight in rows]
    places = ([row for row, _, _ in rows], [column for _, column, _ in rows])
    return csr_matrix((values, places), shape=(len(texts), len(weights)))
