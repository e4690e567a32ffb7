-- What: a response that is not reasoning followed by an answer.
-- Why: trained on, it teaches the student to stop in mid-thought, to skip the thought, or to leak tags.
-- Threshold: none; the reasoning may be empty only in a variant whose reasoning_words are [0, 0] (variant.yaml).
SELECT
    response_id,
    CASE
        -- A response that the endpoint itself stopped is not one that ran out of tokens.
        WHEN finish_reason = 'content_filter' THEN 'stopped by a content filter'
        WHEN finish_reason = 'length' OR reasoning_source = 'truncated' THEN 'truncated'
        WHEN answer = '' THEN 'answer missing'
        WHEN reasoning = '' AND variants.most_words > 0 THEN 'reasoning missing'
        WHEN reasoning <> '' AND variants.most_words = 0 THEN 'reasoning where there should be none'
        WHEN regexp_matches(answer, '</?think>') THEN 'tag left in the answer'
        WHEN regexp_matches(reasoning, '</?think>') THEN 'tag left in the reasoning'
    END AS reason,
    finish_reason || ', ' || reasoning_source AS value
FROM responses
JOIN variants USING (variant)
WHERE reason IS NOT NULL
