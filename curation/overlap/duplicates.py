"""Near-duplicates among a run's requests and among the responses of each variant, by MinHash.

Reads prompts and responses, and verdicts and repairs where they are; writes duplicates.parquet: every member of a
cluster of two or more, which of them survives, and why. Run it with `saferthoughts duplicates RUN`.

Prompts are compared by their bare requests (item_id is the behaviour's id): behind one jailbreak template all prompts
look alike. A row joins the survivor that it is most like, so each is as similar to its survivor as asked, and clusters
do not grow by chains. Similarity is the share of common word shingles, as MinHash of 125 permutations estimates it.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rensa import RMinHash

from curation.overlap.windows import windows
from curation.sql.views import DUPLICATES, open_views
from pipelines.freshness import made_from, require_fresh
from pipelines.progress import meter
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config

_BANDS, _ROWS = 25, 5
_SEED = 42
# Words a shingle: requests are short, so two of their words say much.
_SHINGLE = {"prompt": 2, "response": 5}


@dataclass(frozen=True, slots=True)
class Duplicates:
    """For requests ("prompt") or a variant's responses: how many there are, clusters of two or more, and how many rows
    would go if only survivors stayed."""

    of: str
    items: int
    clusters: int
    redundant: int


@dataclass(frozen=True, slots=True)
class _Member:
    index: int
    survivor: int
    similarity: float


def find_duplicates(run: RunFolder) -> list[Duplicates]:
    """Find the clusters and write duplicates.parquet.

    Raises:
        UserError: a table is missing or broken.
    """
    threshold = load_config(run).checks.near_duplicate_similarity
    require_fresh(run, "responses")
    rows: list[dict[str, object]] = []
    found = []
    with open_views(run, "prompts", "responses") as db:
        requests = db.sql(
            "SELECT behaviour_id AS id, first(behaviour ORDER BY prompt_id) AS text, true AS clean "
            "FROM prompts GROUP BY behaviour_id ORDER BY id"
        ).to_arrow_table()
        variants = [name for (name,) in db.sql("SELECT DISTINCT variant FROM responses ORDER BY variant").fetchall()]
        with meter("duplicates", len(variants) + 1, "sets") as shown:
            found.append(_search("prompt", "prompt", requests, threshold, rows))
            shown.advance()
            for variant in variants:
                # A row that a check would throw out anyway should not be what another one is measured by.
                responses = db.sql(
                    """
                    SELECT responses.response_id AS id, reasoning || chr(10) || answer AS text,
                        coalesce(
                            NOT (
                                lack_of_safety_awareness OR overthinking OR inconsistency
                                OR coalesce(safety, '') = 'unsafe' OR (prompts.kind = 'harmful') <> refused
                            ),
                            lack_of_safety_awareness IS NULL
                        ) AS clean
                    FROM responses
                    JOIN prompts USING (prompt_id)
                    JOIN variants USING (variant)
                    LEFT JOIN verdicts USING (response_id)
                    WHERE responses.variant = $variant AND reasoning_source <> 'fixed' AND variants.most_words > 0
                        AND responses.response_id NOT IN (SELECT response_id FROM repairs WHERE NOT chosen)
                    ORDER BY clean DESC, id
                    """,
                    params={"variant": variant},
                ).to_arrow_table()
                found.append(_search("response", variant, responses, threshold, rows))
                shown.advance()
    rows.sort(key=lambda row: (str(row["item"]), str(row["cluster"]), not row["survivor"], str(row["item_id"])))
    run.write("duplicates", pa.Table.from_pylist(rows, schema=DUPLICATES))
    run.record(
        "duplicates",
        inputs=made_from(run, "prompts", "responses"),
        outputs={"duplicates.parquet": file_hash(run.table_path("duplicates"))},
        similarity=threshold,
        counts=[asdict(item) for item in found],
    )
    return found


def _search(item: str, of: str, table: pa.Table, threshold: float, rows: list[dict[str, object]]) -> Duplicates:
    """Add the clusters of one set of texts to `rows`."""
    clusters: dict[int, list[_Member]] = {}
    for member in near_duplicates(table["text"], _SHINGLE[item], threshold):
        clusters.setdefault(member.survivor, []).append(member)
    names = table["id"].to_pylist()
    clean = table["clean"].to_pylist()
    for survivor, members in clusters.items():
        name = names[survivor]
        common = {"item": item, "cluster": name}
        why = "the first of its cluster" if item == "prompt" else "without a fault, and the lowest id of its cluster"
        if not clean[survivor]:
            why = "the lowest id of its cluster; no member is without a fault"
        rows.append({**common, "item_id": name, "survivor": True, "similarity": 1.0, "why": why})
        for member in members:
            reason = f"{member.similarity:.2f} like {name}"
            row = {"item_id": names[member.index], "survivor": False, "similarity": member.similarity, "why": reason}
            rows.append({**common, **row})
    return Duplicates(of, table.num_rows, len(clusters), sum(len(members) for members in clusters.values()))


def near_duplicates(texts: pa.ChunkedArray, shingle: int, threshold: float) -> Iterable[_Member]:
    """Every text that is at least `threshold` like an earlier one, with the earlier one that it is most like.

    Args:
        texts: In order of preference: of two that are alike the earlier survives. Texts without words are like none.
        shingle: Words that are compared as one.
        threshold: Least share of common shingles, 0 to 1.
    """
    rows, signatures = _signatures(texts, shingle)
    leaders: dict[tuple[int, int], list[int]] = {}
    keys = _band_keys(signatures)
    shared = np.stack([_shared(keys[:, band]) for band in range(_BANDS)], axis=1)
    # Most rows share no band with any other, and none of these is looked at one by one.
    for place in np.flatnonzero(shared.any(axis=1)).tolist():
        own = [(band, int(keys[place, band])) for band in np.flatnonzero(shared[place]).tolist()]
        near = sorted({leader for key in own for leader in leaders.get(key, ())})
        if near:
            shares = (signatures[near] == signatures[place]).mean(axis=1)
            best = int(np.argmax(shares))
            if shares[best] >= threshold:
                yield _Member(int(rows[place]), int(rows[near[best]]), float(shares[best]))
                continue
        for key in own:
            leaders.setdefault(key, []).append(place)


def _signatures(texts: pa.ChunkedArray, shingle: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """The rows that have words, and their MinHash signatures, (rows, permutations)."""
    rows = [np.zeros(0, np.int64)]
    signatures = [np.zeros((0, _BANDS * _ROWS), np.uint32)]
    for piece in windows(texts, shingle):
        present, starts = np.unique(piece.rows, return_index=True)
        if len(present):
            offsets = np.append(starts, len(piece.rows)).astype(np.uint64)
            digests = RMinHash.digest_matrix_from_flat_token_hashes(piece.hashes, offsets, _BANDS * _ROWS, _SEED)
            rows.append(present)
            signatures.append(np.array(digests.to_rows(), np.uint32))
    return np.concatenate(rows), np.concatenate(signatures)


def _band_keys(signatures: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """One number for each band of each signature, (rows, bands); equal bands have equal numbers."""
    bands = signatures.reshape(len(signatures), _BANDS, _ROWS).astype(np.uint64)
    keys = bands[:, :, 0]
    for column in range(1, _ROWS):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + bands[:, :, column]
    return keys


def _shared(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of the numbers occur more than once."""
    _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[places] > 1)
