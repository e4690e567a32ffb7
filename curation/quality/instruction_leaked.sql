-- What: a response that speaks of the instruction it was distilled with, or repeats the mark before the request.
-- Why: the instruction is no part of the trained prompt; a student would learn to follow one that is not there.
-- Threshold: none; phrases with which teachers refer to a given instruction, and the marks that our variants use.
--   Of benign prompts only what cannot be about the matter itself: recipes have instructions too.
-- The expression stands twice as a literal: DuckDB compiles a literal once, and what comes from a column for every row.
SELECT response_id, 'instruction leaked' AS reason, regexp_extract(
        text,
        '(?i)\b(according to|as (per|stated in|required by)|following|based on|given|under) (the|my|these|those|your) (system )?(instruction|guideline|prompt)s?\b|\b(the|these|your|my) (system )?(instruction|guideline|system prompt)s? (say|state|tell|ask|require)s?\b|\b(as|i was|i am|i''m) instructed to\b|(?m:^\s*(user request|user query|\[query\]|query):)'
    ) AS value
FROM (
    SELECT response_id, kind, reasoning || chr(10) || answer AS text
    FROM responses
    JOIN prompts USING (prompt_id)
)
WHERE regexp_matches(text, '(?i)instruct|guideline|prompt|request:|query')
    AND regexp_matches(
        text,
        '(?i)\b(according to|as (per|stated in|required by)|following|based on|given|under) (the|my|these|those|your) (system )?(instruction|guideline|prompt)s?\b|\b(the|these|your|my) (system )?(instruction|guideline|system prompt)s? (say|state|tell|ask|require)s?\b|\b(as|i was|i am|i''m) instructed to\b|(?m:^\s*(user request|user query|\[query\]|query):)'
    )
    AND (
        kind = 'harmful'
        OR regexp_matches(text, '(?i)\bsystem prompt|\bi(''m| am| was) instructed to\b|(?m:^\s*(user request|user query|\[query\]):)')
    )
