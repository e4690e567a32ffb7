-- What: a response that speaks of the instruction it was distilled with, or repeats the mark before the request.
-- Why: the instruction is no part of the trained prompt; a student would learn to follow one that is not there.
-- Threshold: none; phrases with which teachers refer to a given instruction, and the marks that our variants use.
SELECT
    response_id,
    'instruction leaked into the ' || CASE WHEN in_reasoning <> '' THEN 'reasoning' ELSE 'answer' END AS reason,
    coalesce(nullif(in_reasoning, ''), in_answer) AS value
FROM (
    SELECT
        response_id,
        regexp_extract(reasoning, pattern) AS in_reasoning,
        regexp_extract(answer, pattern) AS in_answer
    FROM responses
    CROSS JOIN (
        SELECT
            '(?i)\b(according to|as (per|stated in|required by)|following|based on|given|under)'
            || ' (the|my|these|those|your) (system )?(instruction|guideline|prompt)s?\b'
            || '|\b(the|these|your|my) (system )?(instruction|guideline|system prompt)s? (say|state|tell|ask|require)s?\b'
            || '|\b(as|i was|i am|i''m) instructed to\b'
            || '|(?m)^\s*(user request|user query|\[query\]|query):' AS pattern
    )
)
WHERE in_reasoning <> '' OR in_answer <> ''
