-- What: reasoning shorter or longer than its variant allows.
-- Why: a reasoning of two words is none, and one of many thousand mostly runs in circles.
-- Threshold: reasoning_words of the variant (variant.yaml), in words between spaces and line ends. Harmful prompts only:
--   what a benign one asks for may take long.
SELECT
    response_id,
    CASE WHEN words < least_words THEN 'reasoning too short' ELSE 'reasoning too long' END AS reason,
    words || ' words, ' || least_words || ' to ' || most_words || ' allowed' AS value
FROM (
    SELECT
        response_id, prompt_id, variant,
        length(reasoning) - length(replace(replace(reasoning, ' ', ''), chr(10), ''))
            + CAST(reasoning <> '' AS INTEGER) AS words
    FROM responses
    WHERE reasoning <> ''
)
JOIN variants USING (variant)
JOIN prompts USING (prompt_id)
WHERE prompts.kind = 'harmful' AND most_words > 0 AND NOT words BETWEEN least_words AND most_words
