"""Mild rows first: the one order in which a few rows of many are picked for people to see.

Used wherever rows are printed as examples (the report, the proof before training, the page's rows, the evaluation's
report). It changes what is shown first, never which rows a table or a release has. Reads and writes nothing.
"""

# Categories of the bundled prompts that harm nobody's body and insult nobody, and the kinds of look-alikes.
MILD = ("misinformation", "privacy/sensitive")
BENIGN = (
    *("definitions", "fiction", "figurative language", "history", "homonyms", "protection"),
    *("safe contexts", "safe targets", "public information", "nonsense discrimination"),
)
# What categories of violence, hatred or sex begin with, here and in other people's sets.
DRASTIC = ("harass", "hate", "illicit", "self-harm", "sex", "violence", "violent")


def severity(category: str, kind: str = "") -> int:
    """The place of a row among those shown: 0 benign, 1 of a mild category, 2 of one not known here, 3 drastic."""
    name = category.lower()
    if kind == "benign" or name in BENIGN:
        return 0
    if name in MILD:
        return 1
    return 3 if name.startswith(DRASTIC) else 2


def severity_sql(category: str, kind: str) -> str:
    """`severity` as a DuckDB expression over two columns."""
    name = f"lower({category})"
    drastic = " OR ".join(f"starts_with({name}, '{begins}')" for begins in DRASTIC)
    return (
        f"CASE WHEN {kind} = 'benign' OR {name} IN {BENIGN!r} THEN 0 WHEN {name} IN {MILD!r} THEN 1 "
        f"WHEN {drastic} THEN 3 ELSE 2 END"
    )
