"""Figures of the study that estimates and reports go by. Reads and writes nothing."""

# Tokens of a response in the study's Table 4 (R1-Distill-Qwen tokenizer): mean and 90th percentile, of all 4,000 rows
# and of the 1,000 safe ones that it trained on. Benign rows are the same in both.
STUDY_LENGTHS: dict[str, tuple[float, float, float, float]] = {
    # What the study calls its default.
    "direct": (774.1, 1354.0, 565.6, 837.0),
    "realsafe": (421.8, 576.0, 434.8, 600.1),
    "improved": (382.0, 525.0, 397.3, 563.2),
    "short": (149.8, 215.0, 154.8, 211.0),
    "template": (170.2, 253.0, 176.3, 251.0),
    "nocot": (17.0, 17.0, 17.0, 17.0),
    "benign": (1427.5, 1811.1, 1427.5, 1811.1),
}
# The share of rows with a pattern among R1's own: dropping them all left 6.6 %. It tells none for other variants.
FLAGGED_SHARE = {"direct": 0.934}


def mean_length(variant: str, benign: bool) -> float:
    """Mean tokens of a response; one of a variant that the study does not have is as long as R1's own."""
    return STUDY_LENGTHS["benign" if benign else variant if variant in STUDY_LENGTHS else "direct"][0]
