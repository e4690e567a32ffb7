-- What: a response that no judge could judge, or that has no verdict at all.
-- Why: unscored is not clean; a row of which nothing is known is not released.
-- Threshold: none. A fixed text, which the run itself wrote, needs no verdict. In a refusal without reasoning there are
--   no patterns to judge, and where `checks.patterns` is empty none are asked for: a verdict on safety is enough, and
--   needed.
SELECT
    response_id,
    CASE
        WHEN verdicts.response_id IS NULL THEN 'no verdict'
        WHEN patternless AND verdicts.safety_reason = '' THEN 'no reasoning, and no judge of safety'
        WHEN len(patterns) = 0 AND verdicts.safety_reason = '' THEN 'no judge of safety'
        ELSE 'unscored'
    END AS reason,
    concat_ws('; ', nullif(verdicts.reason, ''), nullif(verdicts.safety_reason, '')) AS value
FROM (
    SELECT
        response_id, reasoning_source,
        prompts.kind = 'harmful' AND NOT regexp_matches(reasoning, '\S') AND answer <> '' AS patternless
    FROM responses
    JOIN prompts USING (prompt_id)
)
LEFT JOIN verdicts USING (response_id)
CROSS JOIN settings
WHERE reasoning_source <> 'fixed' AND (
    verdicts.response_id IS NULL OR verdicts.safety_reason <> ''
    OR CASE WHEN patternless OR len(patterns) = 0 THEN verdicts.safety IS NULL ELSE verdicts.reason <> '' END
)
