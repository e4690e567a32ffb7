-- What: a response that is not reasoning followed by an answer.
-- Why: trained on, it teaches the student to stop in mid-thought, to skip the thought, or to leak tags.
-- Threshold: none; the reasoning may be empty only in a variant whose reasoning_words are [0, 0] (variant.yaml).
SELECT
    response_id,
    CASE
        -- A response that the endpoint itself stopped is not one that ran out of tokens.
        WHEN lower(finish_reason) IN ('content_filter', 'safety') THEN 'stopped by a content filter'
        -- Of a row that another dataset brought, why it ended may not be known.
        WHEN reasoning_source = 'truncated'
            OR lower(finish_reason) NOT IN (SELECT natural_stops.finish_reason FROM natural_stops)
            AND NOT (teacher = 'dataset' AND finish_reason = 'unknown') THEN 'truncated'
        -- No letter and no digit, or what a program writes where a text is missing.
        WHEN NOT regexp_matches(answer, '[\p{L}\p{N}]') OR trim(answer) IN ('None', 'null', 'nan', 'NaN', 'undefined')
            THEN 'answer missing'
        WHEN reasoning = '' AND variants.most_words > 0 THEN 'reasoning missing'
        WHEN reasoning <> '' AND variants.most_words = 0 THEN 'reasoning where there should be none'
        WHEN regexp_full_match(trim(answer), '\\boxed\{[^{}]*[A-Za-z]+ [A-Za-z'' ]+[^{}]*\}') THEN 'answer in a box'
        WHEN holds_tag(answer) THEN 'tag left in the answer'
        WHEN holds_tag(reasoning) THEN 'tag left in the reasoning'
    END AS reason,
    finish_reason || ', ' || reasoning_source AS value
FROM responses
JOIN variants USING (variant)
WHERE reason IS NOT NULL
