-- What: a response that no judge could judge, or that has no verdict at all.
-- Why: unscored is not clean; a row of which nothing is known is not released.
-- Threshold: none. A fixed text, which no teacher wrote, needs no verdict.
SELECT
    response_id,
    CASE WHEN verdicts.response_id IS NULL THEN 'no verdict' ELSE 'unscored' END AS reason,
    concat_ws('; ', nullif(verdicts.reason, ''), nullif(verdicts.safety_reason, '')) AS value
FROM responses
LEFT JOIN verdicts USING (response_id)
WHERE reasoning_source <> 'fixed'
    AND (verdicts.response_id IS NULL OR verdicts.reason <> '' OR verdicts.safety_reason <> '')
