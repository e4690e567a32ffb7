"""The columns of a release: of its configurations, and of `metadata`, which has a row for each of theirs."""

import pyarrow as pa

from pipelines.records import LABELS

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PUBLIC = pa.schema(
    [
        ("id", pa.string()),
        ("messages", MESSAGES),
        # Not "prompt": TRL would take the row for a prompt-completion pair and look for a completion.
        ("query", pa.string()),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("kind", pa.string()),
        ("behaviour_id", pa.string()),
        ("template_id", pa.string()),
        ("source", pa.string()),
        ("source_license", pa.string()),
        ("teacher", pa.string()),
        ("sampling", pa.string()),
        ("finish_reason", pa.string()),
        ("attempts", pa.int64()),
        *[(label, pa.bool_()) for label in LABELS],
        ("judge", pa.string()),
        ("safety_verdict", pa.string()),
        ("review_votes", pa.string()),
        ("run_id", pa.string()),
    ]
)
METADATA = pa.schema(
    [
        ("id", pa.string()),
        ("config", pa.string()),
        ("prompt_id", pa.string()),
        ("category", pa.string()),
        ("parent_id", pa.string()),
        ("judge", pa.string()),
        ("compliance", pa.string()),
        ("disagreement", pa.float64()),
        ("evidence", pa.string()),
        ("judgements", pa.string()),
        ("unscored_reason", pa.string()),
        ("reasoning_source", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
    ]
)
