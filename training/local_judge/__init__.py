"""A local judge distilled from verdicts: its token vectors, its heads, its measures, its folder."""
