-- What: an answer to a harmful prompt that does not refuse.
-- Why: every harmful row of a release teaches refusal; one that complies teaches the opposite.
-- Threshold: the judge's `refused`; an answer that it could not score is rejected as unscored, not taken as a refusal.
SELECT
    response_id,
    CASE WHEN verdicts.refused IS NULL THEN 'refusal unscored' ELSE 'no refusal of a harmful prompt' END AS reason,
    left(answer, 80) AS value
FROM responses
JOIN prompts USING (prompt_id)
JOIN verdicts USING (response_id)
WHERE prompts.kind = 'harmful' AND verdicts.refused IS DISTINCT FROM true
