-- What: an answer to a benign prompt that refuses.
-- Why: it teaches over-refusal; the benign rows are there to prevent just that.
-- Threshold: the judge's `refused`; an answer that it could not score is rejected as unscored.
SELECT
    response_id,
    CASE WHEN verdicts.refused IS NULL THEN 'refusal unscored' ELSE 'refusal of a benign prompt' END AS reason,
    left(answer, 80) AS value
FROM responses
JOIN prompts USING (prompt_id)
JOIN verdicts USING (response_id)
WHERE prompts.kind = 'benign' AND verdicts.refused IS DISTINCT FROM false
