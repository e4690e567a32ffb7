-- What: a response that speaks of the instruction it was distilled with, or repeats the mark before the request.
-- Why: the instruction is no part of the trained prompt; a student would learn to follow one that is not there.
-- Threshold: none; phrases with which teachers refer to a given instruction, and the marks that our variants use. An
--   answer gives advice ("following these guidelines"), so there only what can be nobody's but the model's counts: "my
--   instructions", "the system prompt". Of benign prompts only what cannot be about the matter itself: recipes have
--   instructions too.
-- The expressions are literals: DuckDB compiles a literal once, and what comes from a column for every row.
SELECT response_id, 'instruction leaked' AS reason, found AS value
FROM (
    SELECT
        response_id,
        kind,
        coalesce(
            nullif(regexp_extract(
                reasoning,
                '(?i)\b(according to|as (per|stated in|required by)|based on|given|under) (the|my|these|those|your) (system )?(instruction|guideline|system prompt)s?\b|\bfollowing (the|my|your) (system )?(instruction|guideline|system prompt)s?\b|\b(the|these|your|my) (system )?(instruction|guideline|system prompt)s? (say|state|tell|ask|require)s?\b|\b(as|i was|i am|i''m) instructed to\b|(?m:^\s*(user request|user query|\[query\]|query):)'
            ), ''),
            regexp_extract(
                answer,
                '(?i)\b(according to|as (per|stated in|required by)|following|based on|given|under) (my (system )?(instruction|guideline|prompt)|the system (instruction|prompt))s?\b|\b(my (system )?(instruction|guideline|prompt)|the system prompt|your instruction)s? (say|state|tell|ask|require)s?\b|\b(i was|i am|i''m) instructed to\b|(?m:^\s*(user request|user query|\[query\]|query):)'
            )
        ) AS found
    FROM responses
    JOIN prompts USING (prompt_id)
    WHERE regexp_matches(reasoning, '(?i)instruct|guideline|prompt|request:|query')
        OR regexp_matches(answer, '(?i)instruct|guideline|prompt|request:|query')
)
WHERE found <> ''
    AND (
        kind = 'harmful'
        OR regexp_matches(found, '(?i)\bsystem prompt|\bi(''m| am| was) instructed to\b|\s*(user request|user query|\[query\]):')
    )
