"""Near-duplicates among a run's requests and among the responses of each variant, by MinHash.

Reads prompts and responses, and verdicts and repairs where they are; writes duplicates.parquet: every member of a
cluster of two or more, which of them survives, and why. Run it with `saferthoughts duplicates RUN`.

Prompts are compared by their bare requests (item_id is the behaviour's id): behind one jailbreak template all prompts
look alike. Where a dataset does not tell the request from its template, what several prompts begin or end with is left
out. A row joins the survivor that it is most like, so each is as similar to its survivor as asked, and clusters
do not grow by chains. Similarity is the share of common word shingles, as MinHash of 125 permutations estimates it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from curation.overlap.bare_requests import bare_requests
from curation.overlap.cluster import Workers, workers
from curation.overlap.signatures import candidates, keys_of
from curation.sql.views import DUPLICATES, open_views
from pipelines.freshness import made_from, require_fresh
from pipelines.progress import meter
from pipelines.runner.options import LOCAL, Engine
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import load_config

# Texts that are computed at once.
_PIECE = 50_000
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
class Member:
    index: int
    survivor: int
    similarity: float


def find_duplicates(run: RunFolder, engine: Engine = LOCAL) -> list[Duplicates]:
    """Find the clusters and write duplicates.parquet.

    Raises:
        UserError: a table is missing or broken, or the engine's cluster cannot be used.
    """
    threshold = load_config(run).checks.near_duplicate_similarity
    require_fresh(run, "responses")
    rows: list[dict[str, object]] = []
    found = []
    with open_views(run, "prompts", "responses") as db, workers(engine, run.path) as helpers:
        requests = db.sql(
            "SELECT behaviour_id AS id, arg_min(behaviour, prompt_id) AS behaviour, arg_min(text, prompt_id) AS text, "
            "true AS clean FROM prompts GROUP BY behaviour_id ORDER BY id"
        ).to_arrow_table()
        bare = pa.chunked_array([pa.array(bare_requests(requests), pa.string())])
        requests = requests.set_column(requests.column_names.index("text"), "text", bare).combine_chunks()
        variants = [name for (name,) in db.sql("SELECT DISTINCT variant FROM responses ORDER BY variant").fetchall()]
        with meter("duplicates", len(variants) + 1, "sets") as shown:
            found.append(_search("prompt", "prompt", requests.to_batches(), threshold, rows, None))
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
                ).to_arrow_reader(_PIECE)
                found.append(_search("response", variant, responses, threshold, rows, helpers))
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


def _search(
    item: str,
    of: str,
    batches: Iterable[pa.RecordBatch],
    threshold: float,
    rows: list[dict[str, object]],
    helpers: Workers | None,
) -> Duplicates:
    """Add the clusters of one set of texts to `rows`."""
    names: list[str] = []
    clean: list[bool] = []

    def texts() -> Iterator[pa.Array]:
        for batch in batches:
            names.extend(batch["id"].to_pylist())
            clean.extend(batch["clean"].to_pylist())
            yield batch["text"]

    clusters: dict[int, list[Member]] = {}
    for member in near_duplicates(texts(), _SHINGLE[item], threshold, helpers):
        clusters.setdefault(member.survivor, []).append(member)
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
    return Duplicates(of, len(names), len(clusters), sum(len(members) for members in clusters.values()))


def near_duplicates(
    texts: Iterable[pa.Array], shingle: int, threshold: float, workers: Workers | None = None
) -> Iterator[Member]:
    """Every text that is at least `threshold` like an earlier one, with the earlier one that it is most like.

    Args:
        texts: Pieces, in order of preference: of two that are alike the earlier survives. Texts without words are like
            none.
        shingle: Words that are compared as one.
        threshold: Least share of common shingles, 0 to 1.
        workers: Who computes the signatures; this process if not given.
    """
    # Most rows share no band with any other, and none of these is looked at one by one.
    rows, signatures = candidates(texts, shingle) if workers is None else workers.candidates(texts, shingle)
    leaders: dict[tuple[int, int], list[int]] = {}
    for place, keys in enumerate(keys_of(signatures).tolist()):
        own = list(enumerate(keys))
        near = sorted({leader for key in own for leader in leaders.get(key, ())})
        if near:
            shares = (signatures[near] == signatures[place]).mean(axis=1)
            best = int(np.argmax(shares))
            if shares[best] >= threshold:
                yield Member(int(rows[place]), int(rows[near[best]]), float(shares[best]))
                continue
        for key in own:
            leaders.setdefault(key, []).append(place)
